import tempfile
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import ConfigError, load_settings
from tests.e2e.config import config, upstream
from tests.fuzz.inputs import json_values

GOOD = config({"main": upstream("http://127.0.0.1:9/v1")})

_texts = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: yaml.safe_dump(value, allow_unicode=False).encode()),
    st.tuples(st.sampled_from(sorted(GOOD)), json_values).map(
        lambda change: yaml.safe_dump({**GOOD, change[0]: change[1]}).encode()
    ),
)


def problems_of(file: Path | None, variables: dict[str, str]) -> list[str] | None:
    try:
        load_settings(file, variables, {})
    except ConfigError as error:
        return [problem.text for problem in error.problems]
    return None


@given(_texts)
def test_a_configuration_is_good_or_its_problems_are_told(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "gateway.yaml"
        file.write_bytes(text)
        assert problems_of(file, {}) != []


@given(st.dictionaries(st.text("GATEWY_ABS0", max_size=30), st.text(max_size=30), max_size=4))
def test_variables_are_settings_or_their_problems_are_told(variables: dict[str, str]) -> None:
    assert problems_of(None, {f"GATEWAY_{name}": text for name, text in variables.items()}) != []
