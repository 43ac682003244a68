import json
import stat
from pathlib import Path
from time import time

import pytest

from gateway.access.keys import hash_key
from gateway.demo import TENANT, Demo, DemoError
from gateway.messages import ConversationKey
from gateway.settings import Settings
from gateway.stores import MemoryStore
from gateway.wiring.access import session_tokens

NAMES = ("hyponema", "hyperleap", "widget", "helper_secret", "helper_visitor", "helper_slug")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "demo.json"


def kept(path: Path) -> dict[str, str]:
    value = json.loads(path.read_text())
    assert isinstance(value, dict)
    return value


async def shown(demo: Demo, store: MemoryStore) -> str:
    said: list[str] = []
    tokens = session_tokens(demo.applied_to(Settings()))
    await demo.prepare(store, tokens)
    demo.show("http://127.0.0.1:1", say=said.append)
    return "\n".join(said)


def test_the_keys_are_made_once_and_for_their_owner_only(path: Path) -> None:
    first = Demo.load(path).applied_to(Settings())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["demo.json"]
    assert Demo.load(path).applied_to(Settings()) == first


def test_each_key_is_for_its_dialect(path: Path) -> None:
    tenant = Demo.load(path).applied_to(Settings()).tenants[TENANT]
    for dialect in ("hyponema", "hyperleap", "widget"):
        key = tenant.keys[dialect]
        assert key.hash.get_secret_value() == hash_key(kept(path)[dialect])
        assert key.dialects == (dialect,)
    (secret,) = tenant.dialects.helper.session_secrets
    assert secret.get_secret_value() == kept(path)["helper_secret"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{cut o",
        b"[]",
        b"null",
        b"\xff\xfe",
        json.dumps(dict.fromkeys(NAMES, 1)).encode(),
        json.dumps(dict.fromkeys(NAMES, "")).encode(),
        json.dumps(dict.fromkeys(NAMES, "x" * 40)).encode(),
    ],
)
async def test_a_file_that_cannot_be_used_is_made_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert "# helper" in await shown(Demo.load(path), MemoryStore())
    assert kept(path).keys() >= set(NAMES)


@pytest.mark.parametrize("member", NAMES)
async def test_a_single_bad_member_makes_the_file_anew(path: Path, member: str) -> None:
    Demo.load(path)
    path.write_text(json.dumps(kept(path) | {member: "{3c90c3cc-0d44-4b50-8888}"}))
    assert "# helper" in await shown(Demo.load(path), MemoryStore())
    assert kept(path)[member] != "{3c90c3cc-0d44-4b50-8888}"


def test_a_place_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(DemoError, match=r"cannot write .*demo\.json: .*; make "):
        Demo.load(tmp_path / "var" / "demo.json")
    (tmp_path / "demo.json").mkdir()
    with pytest.raises(DemoError):
        Demo.load(tmp_path / "demo.json")


async def test_a_curl_is_shown_for_each_dialect_with_its_key(path: Path) -> None:
    text = await shown(Demo.load(path), MemoryStore())
    for name in ("hyponema", "hyperleap", "widget", "helper"):
        assert f"# {name}\n" in text
        assert kept(path)[name] in text
    assert kept(path)["helper_secret"] not in text
    assert text.count("curl -N -X") == 4


async def test_the_helper_token_opens_the_conversation_that_was_made_for_it(path: Path) -> None:
    store = MemoryStore()
    demo = Demo.load(path)
    await shown(demo, store)
    await shown(demo, store)
    tokens = session_tokens(demo.applied_to(Settings()))
    principal = tokens.authenticate(kept(path)["helper"], "helper", now=time())
    key = ConversationKey(TENANT, "helper", kept(path)["helper_slug"])
    conversation = await store.load(key, messages=1)
    assert conversation.owner == principal.identity
