import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import UpstreamError
from gateway.telemetry.lines import encode_line, exception_fields

CANARY = "canary-5f3759df"


def read(fields: dict[str, object]) -> dict[str, object]:
    line = encode_line(fields)
    assert line.endswith(b"\n")
    assert line.isascii()
    assert not any(byte < 0x20 or byte == 0x7F for byte in line[:-1])
    parsed = json.loads(line)
    assert isinstance(parsed, dict)
    return parsed


@pytest.mark.parametrize(
    "nasty",
    [
        "%0a%1b[31m",
        "a\r\nb",
        'a"b\\c',
        "\x1b[31mred\x1b[0m",
        "\x7f\x9b31m\x85",
        "\u2028\u2029",
        "caf\u00e9 \U0001f600",
        "\x00",
    ],
)
def test_a_line_is_one_ascii_json_object_whatever_a_value_holds(nasty: str) -> None:
    assert read({"event": "request", "method": nasty})["method"] == nasty


def test_a_lone_surrogate_is_written_as_an_escape() -> None:
    assert read({"event": "request", "route": "\ud800"})["route"] == "\ud800"


def test_numbers_beyond_64_bits_and_beyond_json_do_not_lose_the_line() -> None:
    fields = read({"event": "x", "big": 2**70, "infinite": float("inf"), "nan": float("nan")})
    assert (fields["big"], fields["infinite"], fields["nan"]) == (2**70, None, None)


def test_time_level_and_event_come_first_and_the_time_is_utc() -> None:
    line = read({"a": 1, "event": "request", "level": "info"})
    assert list(line)[:3] == ["ts", "level", "event"]
    stamp = str(line["ts"])
    assert stamp.endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(stamp)
    assert timedelta(0) <= age < timedelta(minutes=1)


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "x-api-key",
        "X-Widget-Api-Key",
        "x_hl_api_key",
        "cookie",
        "text",
        "message",
        "content",
        "token",
        "arguments",
        "result",
    ],
)
def test_members_named_after_secrets_and_message_text_are_redacted(name: str) -> None:
    nested: dict[str, object] = {"event": "x", "deep": [{name: CANARY}], "map": {name: [CANARY]}}
    assert CANARY not in json.dumps(read(nested | {name: CANARY}))


def test_a_configured_keys_name_and_token_counts_are_kept() -> None:
    line = read({"event": "request", "key": "site", "input_tokens": 5})
    assert (line["key"], line["input_tokens"]) == ("site", 5)


def test_values_are_cut_at_200_characters() -> None:
    line = read({"event": "x", "a": "\u00e9" * 1000, "b": ["c" * 1000] * 10, "d": [1] * 100})
    assert line["a"] == "\u00e9" * 200
    assert line["b"] == ["c" * 200] * 10
    assert line["d"] == [1] * 20


def test_a_line_is_at_most_what_a_pipe_takes_whole() -> None:
    fields: dict[str, object] = {"event": "e", "short": "kept"}
    fields |= {f"long{number}": "\u0001" * 200 for number in range(20)}
    line = encode_line(fields)
    assert len(line) <= 4096
    shown = json.loads(line)
    assert (shown["event"], shown["short"]) == ("e", "kept")
    assert "[too long]" in shown.values()
    assert "\u0001" * 200 in shown.values()


def test_values_of_unknown_types_show_only_their_type() -> None:
    line = read({"event": "x", "a": {CANARY}, "b": CANARY.encode(), "c": ValueError(CANARY)})
    assert (line["a"], line["b"], line["c"]) == ("<set>", "<bytes>", "<ValueError>")


def test_nesting_is_bounded() -> None:
    deep: object = CANARY
    for _ in range(200):
        deep = {"a": deep}
    assert CANARY not in json.dumps(read({"event": "x", "deep": deep}))


def call(secret: str) -> None:
    raise UpstreamError(f"upstream said {secret}")


def fail(prompt: str) -> None:
    secret = prompt + "!"
    try:
        call(secret)
    except UpstreamError as error:
        raise ValueError(f"no number: {secret}") from error


def test_an_exception_shows_types_and_places_but_no_message_and_no_values() -> None:
    with pytest.raises(ValueError) as caught:
        fail(CANARY)
    line = read({"event": "x", "exception": exception_fields(caught.value)})
    shown = line["exception"]
    assert isinstance(shown, dict)
    assert shown["type"] == "builtins.ValueError"
    assert ".fail:" in shown["at"][-1]
    assert shown["cause"]["type"] == "gateway.errors.UpstreamError"
    assert shown["cause"]["kind"] == "upstream_error"
    assert shown["cause"]["at"]
    assert CANARY not in json.dumps(line)


def test_an_operating_systems_error_shows_its_number_by_name() -> None:
    shown = exception_fields(ConnectionRefusedError(111, CANARY))
    assert shown["errno"] == "ECONNREFUSED"
    assert CANARY not in json.dumps(shown)


def test_a_group_shows_its_parts_and_an_endless_chain_ends() -> None:
    first, second = KeyError(CANARY), TypeError(CANARY)
    first.__cause__, second.__cause__ = second, first
    group = ExceptionGroup(CANARY, [first] * 50)
    line = read({"event": "x", "exception": exception_fields(group)})
    assert "builtins.KeyError" in json.dumps(line)
    assert CANARY not in json.dumps(line)
    assert len(json.dumps(line)) < 5000
