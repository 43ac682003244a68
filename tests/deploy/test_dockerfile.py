import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def instructions() -> Iterator[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, " ".join(rest.split())


def values(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def final_stage() -> list[tuple[str, str]]:
    stage: list[tuple[str, str]] = []
    for word, rest in instructions():
        stage = [] if word == "FROM" else [*stage, (word, rest)]
    return stage


def test_the_base_image_is_pinned_by_a_tag() -> None:
    for image in values("FROM"):
        name, _, tag = image.split()[0].partition(":")
        assert name == "python"
        assert re.fullmatch(r"3\.\d+(\.\d+)?-slim-[a-z]+", tag)


def test_the_process_runs_as_a_fixed_user_that_is_not_root() -> None:
    words = [word for word, _ in final_stage()]
    (user,) = values("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert words.index("USER") > max(at for at, word in enumerate(words) if word == "RUN")


def test_every_package_is_a_wheel_with_a_known_hash() -> None:
    installs = re.findall(r"\binstall --no-cache-dir.*?\.txt", " ".join(values("RUN")))
    assert [install.split()[-1] for install in installs] == [
        "requirements.txt",
        "requirements-model.txt",
    ]
    for install in installs:
        assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(install.split())


def test_no_stage_has_a_compiler_or_a_package_from_elsewhere() -> None:
    text = DOCKERFILE.read_text()
    for word in ("apt-get", "gcc", "build-essential", "curl", "wget", "://"):
        assert word not in text


def test_nothing_is_added_or_left_to_chance() -> None:
    assert values("ADD") == []
    assert "latest" not in DOCKERFILE.read_text()


def test_no_secret_is_copied_or_set() -> None:
    sources = [source for copy in values("COPY") for source in copy.split()[:-1]]
    assert {source for source in sources if not source.startswith("--")} == {
        "requirements.txt",
        "requirements-model.txt",
        "gateway",
        "config",
        "/opt/gateway",
        "/srv/gateway/gateway",
    }
    assert not re.search(r"(?i)secret|password|token|api_key", DOCKERFILE.read_text())


def test_the_only_writable_folder_is_a_volume_of_the_user() -> None:
    (volume,) = values("VOLUME")
    (workdir,) = [rest for word, rest in final_stage() if word == "WORKDIR"]
    assert json.loads(volume) == [f"{workdir}/var"]
    (run,) = [rest for word, rest in final_stage() if word == "RUN"]
    assert "install -d -o 10001 -g 10001 -m 0700 var" in run
    assert any("PYTHONDONTWRITEBYTECODE=1" in rest for rest in values("ENV"))


def test_it_stops_by_sigterm_and_serves() -> None:
    assert values("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(values("ENTRYPOINT")[0]) == ["python", "-m", "gateway"]
    assert [json.loads(command) for command in values("CMD")] == [["serve"]]


def test_its_health_is_asked_without_another_program() -> None:
    (check,) = values("HEALTHCHECK")
    program, flag, code = json.loads(check.partition(" CMD ")[2])
    assert (program, flag) == ("python", "-c")
    ast.parse(code)
    assert "/livez" in code


def test_the_listeners_can_be_reached_from_outside_the_container() -> None:
    (env,) = values("ENV")
    assert """GATEWAY_SERVER__BIND='["0.0.0.0:8080"]'""" in env
    assert 'GATEWAY_ADMIN__BIND="0.0.0.0:9464"' in env
    assert values("EXPOSE") == ["8080 9464"]


@pytest.mark.parametrize("path", ["gateway", "config", "requirements.txt"])
def test_the_builder_is_sent_what_is_copied_and_nothing_else(path: str) -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    assert f"!{path}" in rules
    assert not {"!var", "!.git", "!tests"} & set(rules)
