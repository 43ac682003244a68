import json
from pathlib import Path

import pytest

from gateway.chat import Target, UsageError, choose


def demo_file(tmp_path: Path) -> Path:
    file = tmp_path / "demo.json"
    keys = {name: f"key-of-{name}" for name in ("widget", "hyponema", "hyperleap", "helper")}
    file.write_text(json.dumps({"url": "http://127.0.0.1:9999", **keys, "other": 1}))
    return file


def test_the_demos_file_is_enough(tmp_path: Path) -> None:
    target = choose(demo_file(tmp_path), dialect=None, url=None, key=None)
    assert target == Target("http://127.0.0.1:9999", "widget", "key-of-widget")
    target = choose(demo_file(tmp_path), dialect="helper", url=None, key=None)
    assert (target.dialect, target.key) == ("helper", "key-of-helper")


def test_the_demos_keys_stay_on_this_machine(tmp_path: Path) -> None:
    near = choose(demo_file(tmp_path), dialect=None, url="http://localhost:1/", key=None)
    assert (near.url, near.key) == ("http://localhost:1", "key-of-widget")
    with pytest.raises(UsageError, match="no key for widget"):
        choose(demo_file(tmp_path), dialect=None, url="https://gw.example", key=None)


def test_options_come_before_the_demos_file(tmp_path: Path) -> None:
    target = choose(demo_file(tmp_path), dialect="hyponema", url="https://gw.example", key="K")
    assert target == Target("https://gw.example", "hyponema", "K")


@pytest.mark.parametrize(
    ("key", "dialect"),
    [
        ("cgw_hn_x", "hyponema"),
        ("cgw_hl_x", "hyperleap"),
        ("cgw_w_x", "widget"),
        ("eyJh.b.c", "helper"),
    ],
)
def test_a_key_tells_its_dialect(tmp_path: Path, key: str, dialect: str) -> None:
    target = choose(tmp_path / "none", dialect=None, url=None, key=key)
    assert target == Target("http://127.0.0.1:8080", dialect, key)


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"widget": 5}'])
def test_without_a_key_it_says_where_keys_come_from(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "demo.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match="gateway keys new"):
        choose(file, dialect=None, url=None, key=None)


@pytest.mark.parametrize(
    "url", ["gw.example", "ftp://x", "http://x/path", "http://[", "http://x?q=1"]
)
def test_an_address_that_is_no_gateways_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="not the address of a gateway"):
        choose(tmp_path / "none", dialect=None, url=url, key="K")


@pytest.mark.parametrize("key", ["a b", "a\r\nx: y", "clé"])
def test_a_key_that_no_header_may_carry_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match="not a key"):
        choose(tmp_path / "none", dialect=None, url=None, key=key)


def test_the_key_is_not_in_a_repr() -> None:
    target = Target("http://x", "widget", "THE-KEY")
    assert "THE-KEY" not in repr(target) + repr(target.message("c", "hi"))
