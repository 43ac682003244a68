import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import RFC_4122, UUID

import pytest

from gateway.errors import StoreUnavailable
from gateway.messages import ConversationKey
from gateway.settings import Settings, load_settings
from gateway.transport.asgi import Message
from gateway.wiring import Asgi, Built, build
from gateway.wiring.access import session_tokens
from gateway.wiring.ids import NewIds, NewPublicIds
from tests.e2e.config import config, tenant, upstream
from tests.e2e.routes import WIDGET, credential_field
from tests.model_streams import openai_stream
from tests.turn.playbook import until
from tests.upstream import ScriptedUpstream, Wait, answer, stream

NOBODY = {"main": upstream("http://127.0.0.1:9/v1")}


def settings(directory: Path, values: dict[str, object]) -> Settings:
    file = directory / "gateway.yaml"
    file.write_text(json.dumps(values))
    return load_settings(file, {}, {}).settings


class Call:
    """One request to an application, and what came back."""

    def __init__(
        self, method: str, path: str, *fields: tuple[str, str], body: bytes | None = b""
    ) -> None:
        self.sent: list[Message] = []
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        if body is not None:
            self.received.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self._scope: Message = {
            "type": "http",
            "method": method,
            "path": path,
            "http_version": "1.1",
            "headers": [(name.encode(), value.encode()) for name, value in fields],
        }

    async def to(self, app: Asgi) -> "Call":
        async def send(message: Message) -> None:
            self.sent.append(message)

        async with asyncio.timeout(10):
            await app(self._scope, self.received.get, send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


@asynccontextmanager
async def built(directory: Path, values: dict[str, object]) -> AsyncIterator[Built]:
    async with build(settings(directory, values)) as gateway:
        yield gateway


def counted(gateway: Built, name: str, *labels: str) -> float:
    return gateway.metrics.total(name, *labels)


def chat(conversation: str = "s", **fields: str) -> Call:
    request = WIDGET.request(conversation, "hi")
    return Call(request.method, request.path, *request.headers, *fields.items(), body=request.body)


async def test_an_admitted_request_is_answered_stored_and_counted_once(tmp_path: Path) -> None:
    async with ScriptedUpstream(stream(b"".join(openai_stream(["Hel", "lo"])))) as scripted:
        values = config({"main": upstream(f"{scripted.url}/v1")})
        async with built(tmp_path, values) as gateway:
            call = await chat().to(gateway.app)
            assert call.status == 200
            assert b'"message":"Hello"' in call.body
            assert counted(gateway, "chatgw_turns_total") == 1
            assert counted(gateway, "chatgw_refused_total") == 0
            assert counted(gateway, "chatgw_turns_admitted_total") == 1
            assert gateway.turns.count == 0


async def test_a_failure_of_the_model_is_a_turn_and_no_refusal(tmp_path: Path) -> None:
    async with ScriptedUpstream(answer(500, {})) as scripted:
        values = config({"main": upstream(f"{scripted.url}/v1")})
        async with built(tmp_path, values) as gateway:
            assert (await chat().to(gateway.app)).status == 500
            assert counted(gateway, "chatgw_turns_total") == 1
            assert counted(gateway, "chatgw_refused_total") == 0


async def test_a_refusal_is_no_turn(tmp_path: Path) -> None:
    async with built(tmp_path, config(NOBODY)) as gateway:
        assert (await Call("POST", "/chat", body=b"{}").to(gateway.app)).status == 401
        assert counted(gateway, "chatgw_turns_total") == 0
        assert counted(gateway, "chatgw_refused_total") == 1


async def test_an_underscore_in_a_fields_name_is_refused(tmp_path: Path) -> None:
    async with built(tmp_path, config(NOBODY)) as gateway:
        call = await chat(content_length="5").to(gateway.app)
        assert call.status == 400
        assert call.body == b'{"error":"Invalid request payload"}'


@pytest.mark.parametrize("path", ["/chat", "/livez"])
async def test_a_preflight_or_probe_that_is_broken_off_is_no_refusal(
    tmp_path: Path, path: str
) -> None:
    async with built(tmp_path, config(NOBODY)) as gateway:
        call = Call("OPTIONS" if path == "/chat" else "GET", path, body=None)
        asked = asyncio.create_task(call.to(gateway.app))
        await asyncio.sleep(0.05)
        call.received.put_nowait({"type": "http.disconnect"})
        await asked
        assert counted(gateway, "chatgw_refused_total") == 0


async def test_a_chat_that_is_broken_off_in_its_body_is_one_refusal(tmp_path: Path) -> None:
    fields = (("content-type", "application/json"), credential_field("widget", "acme"))
    async with built(tmp_path, config(NOBODY)) as gateway:
        call = Call("POST", "/chat", *fields, body=None)
        asked = asyncio.create_task(call.to(gateway.app))
        await until(lambda: gateway.turns.count == 1)
        assert gateway.turns.at_work == 0
        call.received.put_nowait({"type": "http.disconnect"})
        await asked
        assert counted(gateway, "chatgw_refused_total", "widget", "cancelled") == 1
        assert gateway.turns.count == 0


async def test_what_waited_in_line_until_the_drain_was_over_begins_no_turn(tmp_path: Path) -> None:
    gate = asyncio.Event()
    events = openai_stream(["a", "b"])
    script = stream(*events[:2], Wait(gate), *events[2:])
    async with ScriptedUpstream(script) as scripted:
        values = config({"main": upstream(f"{scripted.url}/v1")})
        async with built(tmp_path, values) as gateway:
            first, second = chat(), chat()
            asked = asyncio.gather(first.to(gateway.app), second.to(gateway.app))
            await scripted.request()
            assert await gateway.turns.drain(0.2)
            await asked
            assert first.body.endswith(b'{"type":"error","error":"Internal server error"}\n')
            assert second.status == 503
            assert len(scripted.requests) == 1
            assert counted(gateway, "chatgw_turns_total") == 1
            assert counted(gateway, "chatgw_refused_total", "widget", "draining") == 1


async def test_readiness_goes_with_the_notice_and_liveness_stays(tmp_path: Path) -> None:
    async with built(tmp_path, config(NOBODY)) as gateway:
        assert (await Call("GET", "/readyz").to(gateway.app)).status == 200
        gateway.turns.notice()
        assert (await Call("GET", "/readyz").to(gateway.app)).status == 503
        assert (await Call("GET", "/livez").to(gateway.app)).status == 200


async def test_metrics_are_not_on_the_public_listener(tmp_path: Path) -> None:
    async with built(tmp_path, config(NOBODY)) as gateway:
        assert (await Call("GET", "/metrics").to(gateway.app)).status == 404


async def test_a_model_that_no_agent_uses_is_not_started(tmp_path: Path) -> None:
    values = config({**NOBODY, "local": {"protocol": "embedded"}})
    async with built(tmp_path, values) as gateway:
        assert (await Call("GET", "/readyz").to(gateway.app)).status == 200


async def test_the_end_takes_everything_down(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    store = f"sqlite:{tmp_path / 'gateway.db'}"
    async with built(tmp_path, config(NOBODY, store=store)) as gateway:
        await chat().to(gateway.app)
    with pytest.raises(StoreUnavailable):
        await gateway.store.load(ConversationKey("acme", "widget", "s"), messages=1)
    assert asyncio.all_tasks() == before


async def test_a_store_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    values = config(NOBODY, store=f"sqlite:{tmp_path / 'file' / 'gateway.db'}")
    with pytest.raises(StoreUnavailable):
        async with built(tmp_path, values):
            raise AssertionError("it started")


def test_only_tenants_with_a_secret_have_session_tokens(tmp_path: Path) -> None:
    plain = tenant("plain", dialects={"helper": {"session_secrets": []}})
    values = config(NOBODY, tenants={"acme": tenant("acme"), "plain": plain})
    assert session_tokens(settings(tmp_path, values)).tenants == ("acme",)


def test_new_public_ids_are_of_one_form_and_never_the_same() -> None:
    new_id = NewPublicIds()
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-9a-z]{32}", text) for text in ids)


def test_new_ids_are_uuids_of_version_4_and_never_the_same() -> None:
    new_id = NewIds()
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for text in ids:
        parsed = UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (4, RFC_4122, text)
