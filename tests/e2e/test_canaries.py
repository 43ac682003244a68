import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from gateway.settings import load_settings
from tests.e2e.canaries import CANARY, found_in
from tests.e2e.config import key_of, token_of
from tests.e2e.faults import FAULTS
from tests.e2e.process import clean_environment
from tests.e2e.routes import HELPER, MAIN, STREAMING, WIDGET, Chat
from tests.e2e.wire import Request
from tests.e2e.world import PROTOCOLS, World
from tests.model_streams import openai_chunk, openai_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = f"My name is {CANARY}."
RESULT: Final = {"state": "result", "toolCallId": CANARY, "result": {"found": CANARY}}


def by_id(chat: Chat) -> str:
    return chat.id


async def told_nothing(world: World) -> None:
    """What was logged so far has been read, and holds nothing planted."""
    await asyncio.sleep(0.05)
    assert not world.gateway.leaks


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_what_people_and_models_say_is_in_no_log_line(
    world: World, chat: Chat, protocol: str
) -> None:
    world.reply(f"Hello {CANARY}, ", f"I remember {CANARY}.")
    answer = await world.ask(chat, SAID, protocol=protocol)
    assert answer.status == 200
    assert CANARY in json.dumps(world.last_messages())
    await told_nothing(world)


@pytest.mark.parametrize("arguments", [json.dumps({"q": CANARY}), f'{{"q": "{CANARY}'])
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_what_a_model_asks_of_a_tool_is_in_no_log_line(
    world: World, chat: Chat, arguments: str
) -> None:
    call = {"index": 0, "id": f"call_{CANARY}", "type": "function"}
    call["function"] = {"name": f"look_{CANARY}", "arguments": arguments}
    *_, usage, done = openai_stream([], usage=(3, 4))
    finish = openai_chunk({}, finish_reason="tool_calls")
    world.play(openai_chunk({"role": "assistant", "tool_calls": [call]}), finish, usage, done)
    await world.ask(chat, SAID)
    await told_nothing(world)


POSTED: Final[dict[str, dict[str, object]]] = {
    "version 4": {
        "content": "",
        "createdAt": "2026-11-22T08:00:00Z",
        "toolInvocations": [{**RESULT, "toolName": "look", "args": {"q": CANARY}}],
        "parts": [{"type": "tool-invocation", "toolInvocation": RESULT}],
    },
    "version 5": {
        "parts": [
            {
                "type": f"tool-look_{CANARY}",
                "toolCallId": CANARY,
                "state": "output-available",
                "input": {"q": CANARY},
                "output": {"found": CANARY},
            }
        ],
    },
    "malformed": {"content": {CANARY: CANARY}, "toolInvocations": CANARY},
}


@pytest.mark.parametrize("message", POSTED.values(), ids=list(POSTED))
async def test_what_a_client_posts_of_a_tools_result_is_not_told(
    world: World, message: dict[str, object]
) -> None:
    conversation = await world.conversation(HELPER)
    body = {"conversationSlug": conversation, "message": {"role": "assistant", **message}}
    world.reply("Hello")
    answer = await world.send(
        HELPER.request(conversation, SAID).carrying(json.dumps(body).encode())
    )
    assert answer.status == (400 if isinstance(message.get("content"), dict) else 200)
    await told_nothing(world)


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_what_a_faulty_model_says_is_in_no_log_line_and_no_answer(
    brief_world: World, fault: str
) -> None:
    brief_world.fail(fault)
    answer = await brief_world.ask(WIDGET, SAID)
    assert not found_in(answer.text)
    await told_nothing(brief_world)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_what_a_stranger_sends_anywhere_is_not_told(
    world: World, chat: Chat, protocol: str
) -> None:
    good = chat.request(f"{CANARY}-conversation", SAID)
    strangers = [
        chat.request("c", SAID, credential=f"{CANARY}-unknown"),
        chat.request("c", SAID, credential=f"Bearer {CANARY}.{CANARY}.{CANARY}"),
        good.plus(("origin", f"https://{CANARY}.example")),
        good.plus(("user-agent", CANARY), ("cookie", CANARY), ("referer", CANARY)).carrying(b"{"),
        good.carrying(json.dumps({CANARY: SAID}).encode()),
        good.carrying(f'{{"text": 1, "message": 2, "x": "{CANARY}'.encode()),
        good.to(chat.method, f"{good.path}?key={CANARY}").carrying(b"[]"),
        good.to(chat.method, f"/{CANARY}/{CANARY}"),
        Request("DELETE", f"{good.path}?{CANARY}", good.headers),
    ]
    for stranger in strangers:
        answer = await world.send(stranger, protocol=protocol)
        assert 400 <= answer.status < 500, answer.text
    await told_nothing(world)


async def test_no_metric_has_any_of_it(world: World, brief_world: World) -> None:
    for it in (world, brief_world):
        assert (await it.gateway.metrics()).total("chatgw_turns_total") > 0
        assert not it.gateway.leaks


async def test_no_setting_shows_a_secret_when_it_is_printed(world: World) -> None:
    file = world.gateway.file
    assert CANARY in file.read_text()
    settings = load_settings(file, {}, {}).settings
    assert not found_in(repr(settings))
    assert not found_in(str(settings.tenants["acme"].dialects.helper.session_secrets))
    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "config", "--config", str(file)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "acme" in shown.stdout
    assert not found_in(shown.stdout + shown.stderr)


async def test_a_faulty_configuration_is_told_without_its_secrets(tmp_path: Path) -> None:
    key, token = key_of("acme", "widget"), token_of("acme")
    values = {
        "upstreams": {"main": {"api_key": [f"sk-{CANARY}"], "base_url": f"http://u:{CANARY}@h/"}},
        "tenants": {
            "acme": {
                "keys": {"site": {"hash": key, "dialects": ["widget"]}},
                "dialects": {"helper": {"session_secrets": [CANARY], "token": token}},
            }
        },
    }
    file = tmp_path / "faulty.yaml"
    file.write_text(json.dumps(values))
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "check", str(file)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 2
    assert "tenants.acme.keys.site.hash" in told.stdout + told.stderr
    assert not found_in(told.stdout + told.stderr)
