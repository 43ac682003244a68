import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.access.strangers import PER_MINUTE
from gateway.errors import Overloaded
from gateway.messages import Headers, Reply, RequestHead
from gateway.settings import load_settings
from gateway.turn.pressure import FEW, LATE_S, TICK_S
from gateway.wiring import Built, build
from tests.e2e.config import ORIGIN, config, tenant, upstream
from tests.e2e.routes import ALL, HYPONEMA, MAIN, WIDGET, Chat
from tests.e2e.wire import Request


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Built]:
    values = config(
        {"main": upstream("http://127.0.0.1:9/v1")},
        tenants={"acme": tenant("acme"), "other": tenant("other")},
        store="memory:",
    )
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(values))
    async with build(load_settings(file, {}, {}).settings) as built:
        yield built


@contextmanager
def pressed(gateway: Built) -> Iterator[None]:
    """In the block the loop is late, and `acme` has asked for far more than its share."""
    pressure = gateway.app.gate.pressure
    with ExitStack() as stack:
        for _ in range(FEW):
            stack.enter_context(gateway.turns.place("acme"))
        for _ in range(20):
            pressure.tick(TICK_S + 2 * LATE_S, 2 * LATE_S)
            for _ in range(50):
                with suppress(Overloaded):
                    pressure.admit("acme")
        yield


def head_of(request: Request) -> RequestHead:
    fields = tuple((name.lower(), value) for name, value in request.headers)
    return RequestHead(request.method, request.path, "", Headers(fields))


def asked(gateway: Built, request: Request) -> Reply | None:
    return gateway.app.gate.refusal(head_of(request), "192.0.2.1")


@pytest.mark.parametrize("chat", ALL, ids=lambda chat: chat.id)
async def test_a_turn_too_many_is_refused_as_its_dialect_does(gateway: Built, chat: Chat) -> None:
    with pressed(gateway):
        reply = asked(gateway, chat.request("c1", "Hello").plus(("x-request-id", "mine")))
    assert reply is not None
    assert reply.status == 503
    headers = dict(reply.headers)
    assert int(headers["retry-after"]) >= 1
    assert headers["x-request-id"] == "mine"
    assert headers["content-type"].startswith("application/json")
    assert json.loads(reply.body)
    assert gateway.metrics.total("chatgw_refused_total", chat.dialect, "overloaded") == 1


@pytest.mark.parametrize("chat", MAIN, ids=lambda chat: chat.dialect)
async def test_what_is_no_turn_that_a_caller_may_ask_for_is_left_to_the_application(
    gateway: Built, chat: Chat
) -> None:
    request = chat.request("c1", "Hello")
    elsewhere = request.plus(("origin", "https://elsewhere.example"))
    with pressed(gateway):
        for other in (
            elsewhere,
            request.to("OPTIONS", request.path),
            request.to("GET", "/livez"),
            request.to(request.method, "/nowhere"),
        ):
            assert asked(gateway, other) is None
    assert gateway.metrics.total("chatgw_refused_total", chat.dialect, "overloaded") == 0


@pytest.mark.parametrize("chat", MAIN, ids=lambda chat: chat.dialect)
async def test_a_wrong_key_is_answered_as_the_application_does(gateway: Built, chat: Chat) -> None:
    stranger = chat.request("c1", "Hello", credential="nobody")
    answers: list[Reply] = []
    with pressed(gateway):
        while not answers or answers[-1].status == 401:  # the bucket refills meanwhile
            answer = asked(gateway, stranger)
            assert answer is not None
            answers.append(answer)
    *wrong, last = answers
    assert len(wrong) >= PER_MINUTE
    assert last.status == 429
    assert int(dict(last.headers)["retry-after"]) >= 1
    refused = gateway.metrics.total("chatgw_refused_total", chat.dialect, "unauthorized")
    assert refused == len(wrong)
    assert gateway.metrics.total("chatgw_limited_total", "wrong_credentials") == 1


async def test_a_page_may_read_the_refusal(gateway: Built) -> None:
    with pressed(gateway):
        reply = asked(gateway, WIDGET.request("c1", "Hello").plus(("origin", ORIGIN)))
    assert reply is not None
    assert ("access-control-allow-origin", ORIGIN) in reply.headers


async def test_nothing_is_judged_without_pressure(gateway: Built) -> None:
    assert not gateway.app.gate.shedding


async def test_a_few_turns_are_never_too_many(gateway: Built) -> None:
    with pressed(gateway):
        pass
    assert gateway.app.gate.shedding
    assert asked(gateway, HYPONEMA.request("c1", "Hello")) is None


async def test_a_tenant_that_asks_little_is_let_in(gateway: Built) -> None:
    with pressed(gateway):
        assert asked(gateway, HYPONEMA.request("c1", "Hello")) is not None
        assert asked(gateway, HYPONEMA.request("c1", "Hello", tenant="other")) is None
