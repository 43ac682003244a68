import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from gateway.cli import main
from gateway.settings import ConfigError, Settings, TenantSettings, load_settings, model

CONFIG = Path(__file__).resolve().parent.parent / "config"
REFERENCE = CONFIG / "gateway.yaml"
FILES = sorted(CONFIG.rglob("*.yaml"))
SECTIONS: list[type[BaseModel]] = [
    value
    for value in vars(model).values()
    if isinstance(value, type) and issubclass(value, model.Section)
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIG)))
def test_the_file_loads_without_a_warning(file: Path) -> None:
    assert load_settings(file, {}, {}).warnings == ()


def test_there_is_an_example_for_every_dialect_and_server() -> None:
    names = {file.stem for file in FILES}
    assert names >= {"hyponema", "hyperleap", "widget", "helper"}
    assert names >= {"openai", "azure", "anthropic", "vllm", "llama-cpp", "ollama"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIG)))
def test_the_command_finds_the_file_good(file: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"ok: {file}\n")


def test_the_reference_shows_the_defaults() -> None:
    shown = load_settings(REFERENCE, {}, {}).settings
    assert shown == Settings(tenants={"acme": TenantSettings()})


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_reference_names_every_setting(section: type[BaseModel]) -> None:
    text = REFERENCE.read_text()
    for name in section.model_fields:
        assert re.search(rf"^[ #-]*{name}:", text, re.MULTILINE), name


def test_the_references_examples_are_good_once_uncommented(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    # An example's line has no space after its #, or the indentation of two and more.
    text = re.sub(r"^( *)#(?! \S)", r"\1", REFERENCE.read_text(), flags=re.MULTILINE)
    file.write_text(re.sub(r"^.*api_key_file:.*\n", "", text, flags=re.MULTILINE))
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {}, {})
    texts = {problem.text for problem in caught.value.problems}
    assert texts == {"is not available in this release; remove it"}
    keys = {problem.key for problem in caught.value.problems}
    assert keys >= {"tools", "guards"}


def test_the_development_file_needs_nothing_but_the_machine() -> None:
    settings = load_settings(CONFIG / "dev.yaml", {}, {}).settings
    assert settings.server.bind == ("127.0.0.1:8080",)
    assert settings.upstreams["local"].protocol == "embedded"
    assert settings.server.drain_notice_s == 0
    assert not settings.tenants["demo"].keys
