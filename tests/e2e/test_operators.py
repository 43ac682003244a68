import asyncio
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.config import DIALECTS, EMAIL, key_of, secret_of, token_of
from tests.e2e.process import clean_environment
from tests.e2e.routes import HELPER, MAIN, STREAMING, WIDGET, Chat
from tests.e2e.wire import whole
from tests.e2e.world import PROTOCOLS, World, open_world, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAMILIES = {
    "chatgw_turns_total": ("dialect", "outcome", "http_version"),
    "chatgw_refused_total": ("dialect", "kind"),
    "chatgw_turns_in_flight": ("dialect",),
    "chatgw_turn_duration_seconds_count": (),
    "chatgw_time_to_first_token_seconds_count": (),
    "chatgw_tokens_total": ("dialect", "direction"),
    "chatgw_build_info": (),
    "process_cpu_seconds_total": (),
    "process_resident_memory_bytes": (),
    "process_open_fds": (),
    "gen_ai_client_operation_duration_seconds_count": (),
    "gen_ai_client_token_usage_count": (),
    "gen_ai_server_request_duration_seconds_count": (),
    "gen_ai_server_time_to_first_token_seconds_count": (),
}


def by_id(chat: Chat) -> str:
    return chat.id


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/version"])
async def test_the_probes_answer_on_both_listeners(world: World, path: str) -> None:
    for address in (world.gateway.public, world.gateway.admin):
        answer = await world.gateway.ask(address, path)
        assert answer.status == 200
        assert answer.header("x-request-id")


async def test_readiness_can_say_what_it_looked_at(world: World) -> None:
    answer = await world.gateway.ask(world.gateway.admin, "/readyz?verbose")
    assert answer.status == 200
    assert "ok" in answer.text


async def test_the_widgets_health_check(world: World) -> None:
    answer = await world.gateway.ask(world.gateway.public, "/health")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


async def test_the_metrics_are_for_operators_only(world: World) -> None:
    assert (await world.gateway.ask(world.gateway.public, "/metrics")).status == 404


async def test_every_family_of_the_metrics_is_there_from_the_start(world: World) -> None:
    samples = (await world.gateway.metrics()).samples
    for name, labels in FAMILIES.items():
        found = [set(dict(has)) for key, has in samples if key == name]
        assert found, name
        assert all(has >= set(labels) for has in found), name


async def test_every_turn_is_counted_once_with_its_tokens(world: World) -> None:
    before = await world.gateway.settled()
    for protocol in PROTOCOLS:
        for chat in STREAMING:
            world.reply("Some", " words", usage=(11, 7))
            await world.ask(chat, "Hello", protocol=protocol)
    grown = (await world.gateway.settled()).since(before)
    turns = partial(grown.by, "chatgw_turns_total")
    assert turns("dialect") == Counter(hyponema=2, hyperleap=2, widget=2, helper=4)
    assert turns("http_version") == Counter({"1.1": 5, "2": 5})
    assert turns("outcome") == Counter(ok=10)
    assert grown.by("chatgw_tokens_total", "direction") == Counter(input=110, output=70)


async def test_a_refusal_is_counted_as_no_turn(world: World) -> None:
    before = await world.gateway.settled()
    for chat in MAIN:
        await world.send(chat.request("c", "Hello", credential="x"))
    grown = (await world.gateway.settled()).since(before)
    assert grown.by("chatgw_refused_total", "dialect") == Counter(dict.fromkeys(DIALECTS, 1))
    assert grown.total("chatgw_turns_total") == 0


@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_request_leaves_one_log_line(world: World, chat: Chat) -> None:
    world.reply("Some words")
    request_id = f"line-{chat.framing}-{chat.dialect}"
    request = chat.request(await world.conversation(chat), "Hello")
    answer = await world.send(request.plus(("x-request-id", request_id)))
    assert answer.header("x-request-id") == request_id
    record = await world.gateway.record_of(request_id)
    assert record["dialect"] == chat.dialect
    assert record["status"] == 200
    assert record["outcome"] == "ok"
    await asyncio.sleep(0.1)
    lines = [entry for entry in world.gateway.records if entry.get("request_id") == request_id]
    assert len(lines) == 1


@pytest.mark.parametrize("given", ["a b", "x" * 129, "", "a\x1b[31m", "%0a"])
async def test_a_request_id_that_is_not_safe_is_replaced(world: World, given: str) -> None:
    answer = await world.send(
        WIDGET.request("c", "x", credential="x").plus(("x-request-id", given))
    )
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.header("x-request-id"))
    assert answer.header("x-request-id") != given


async def test_an_answer_does_not_say_what_serves_it(world: World) -> None:
    world.reply("Hello")
    answer = await world.ask(WIDGET, "Hi")
    assert answer.header("server") == ""
    assert answer.header("x-content-type-options") == "nosniff"


async def test_no_secret_and_no_message_is_in_logs_or_metrics(world: World) -> None:
    canary = "canary7Zq"
    world.reply(f"The answer {canary}")
    for chat in MAIN:
        world.reply(f"The answer {canary}")
        await world.ask(chat, f"The question {canary}")
        await world.send(chat.request("c", canary, credential=f"Bearer {canary}"))
        path = chat.path.replace("{id}", "c") + f"?key={canary}"
        await world.send(chat.request("c", canary).to(chat.method, path).without("authorization"))
    world.forget_replies()
    scrape = await world.gateway.ask(world.gateway.admin, "/metrics")
    output = "\n".join([*map(json.dumps, world.gateway.records), *world.gateway.noise, scrape.text])
    secrets = [canary, secret_of("acme"), EMAIL, token_of("acme").split(".")[2]]
    secrets += [key_of("acme", dialect) for dialect in ("hyponema", "hyperleap", "widget")]
    assert [secret for secret in secrets if secret in output] == []


async def test_every_log_line_is_one_json_object(world: World) -> None:
    request = WIDGET.request("c", "x").to("POST", "/chat?a=%0a%1b[31m")
    await world.send(request.plus(("user-agent", '"}\x1b[31m{"')))
    assert world.gateway.noise == []


async def test_turns_that_run_at_the_signal_are_finished_and_new_ones_refused(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path, server={"drain_s": 30}) as world:
        gate = world.reply_in_two("First", " second")
        kept = await world.h1()
        helper = await world.conversation(HELPER)
        async with world.asking(WIDGET, "Hello") as exchange:
            await exchange.part()
            world.gateway.send(signal.SIGTERM)
            await world.gateway.logged("draining")
            refused = await whole(await kept.send(HELPER.request(helper, "Hello")))
            gate.set()
            await whole(exchange)
        await kept.close()
        assert await world.gateway.wait() == 0
    assert (refused.status, refused.json()) == (503, {"error": "Service unavailable"})
    assert int(refused.header("retry-after")) >= 1
    assert read(WIDGET, exchange.answer).text == "First second"


async def test_turns_that_last_longer_than_the_drain_are_told(own_world: World) -> None:
    async with AsyncExitStack() as stack:
        exchanges = []
        for chat in STREAMING:
            own_world.reply_in_two("First", " never")
            exchange = await stack.enter_async_context(own_world.asking(chat, "Hello"))
            await exchange.part()
            exchanges.append(exchange)
        own_world.gateway.send(signal.SIGTERM)
        answers = await asyncio.gather(*map(whole, exchanges))
    for chat, answer in zip(STREAMING, answers, strict=True):
        assert answer.ended, chat.id
        assert read(chat, answer).terminals == ["error"], chat.id
    assert await own_world.gateway.wait() == 0


async def test_a_configuration_with_mistakes_names_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("server: {bnd: []}\nlimits:\n  body_s: soon\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--config", str(file)],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert re.search(r"bad\.yaml:1\b.*bnd", said)
    assert re.search(r"bad\.yaml:3\b.*body_s", said)
