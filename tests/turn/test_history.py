import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import pytest

from gateway.errors import (
    Cancelled,
    Deadline,
    Drained,
    GatewayError,
    StoreUnavailable,
    Truncated,
    UpstreamTimeout,
)
from gateway.events import (
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
)
from gateway.messages import ConversationKey, KeptCall, Leased, Message, Recorded
from gateway.ports.conversations import ConversationStore
from gateway.stores import MemoryStore, SqliteStore
from gateway.stores.valkey import ValkeyStore
from gateway.turn.engine import KeptReply
from gateway.turn.locks import ConversationLocks
from gateway.turn.prompt import exchanges
from gateway.turn.seats import Seat, Seats
from tests.stores.rig import make
from tests.turn.playbook import Play, ScriptedModel, Step
from tests.valkey import ValkeyProcess, valkey

KEY: Final = ConversationKey("acme", "widget", "c1")
PATIENCE_S: Final = 10.0
CALL: Final[list[ModelEvent]] = [
    ToolCallStarted("c1", "lookup"),
    ToolCallDelta("c1", "{}"),
    ToolCallEnded("c1", "lookup", "{}"),
]
RESULT: Final = ToolReturned("c1", "lookup", "{}", "[1]", 3, "ok")
END: Final = ModelFinished("stop", None)

# Stage -> what the model says until then, and what of it history may hold.
STAGES: Final[dict[str, tuple[list[list[ModelEvent]], str, tuple[KeptCall, ...]]]] = {
    "before a word": ([], "", ()),
    "while it thinks": ([[ReasoningDelta("hm")]], "", ()),
    "in the text": ([[TextDelta("Hel")], [TextDelta("lo")]], "Hello", ()),
    "in a call": ([[TextDelta("Wait")], CALL[:2]], "Wait", ()),
    "after a call": ([[TextDelta("Wait")], CALL], "Wait", (KeptCall("c1", "lookup", "{}"),)),
    "after a call alone": ([CALL], "", (KeptCall("c1", "lookup", "{}"),)),
    "after a result": (
        [[TextDelta("Wait")], CALL, [RESULT]],
        "Wait",
        (KeptCall("c1", "lookup", "{}", "[1]"),),
    ),
}
ABORTS: Final[dict[str, GatewayError | None]] = {
    "the client goes": None,
    "the client is silent": Cancelled("stalled"),
    "the upstream breaks off": Truncated(),
    "the upstream is silent": UpstreamTimeout(),
    "the turn is too long": Deadline(),
    "the worker stops": Drained(),
}
FROM_UPSTREAM: Final = (Truncated, UpstreamTimeout)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyProcess]:
    with valkey() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "valkey"])
async def store(
    request: pytest.FixtureRequest, server: ValkeyProcess, tmp_path: Path
) -> AsyncIterator[ConversationStore]:
    server.say("FLUSHALL")
    made: ConversationStore
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "gateway.db", retention_days=90)
    else:
        made = ValkeyStore(server.url, retention_days=90)
    await made.open()
    yield made
    await made.close()


class Conversing(Play):
    """A turn on a stored conversation, as a chat route runs it."""

    def __init__(self, seats: Seats, store: ConversationStore, *steps: Step) -> None:
        super().__init__(ScriptedModel(list(steps)))
        self._seats = seats
        self._store_of = store
        self._seat: Seat | None = None
        self.began = asyncio.Event()

    async def converse(self) -> None:
        async with self._seats.take(KEY, self._begin, wait_s=0) as self._seat:
            self._past = exchanges(self._seat.conversation.messages, refusal="no")
            self.began.set()
            await self.run()

    async def _begin(self) -> Leased | Recorded:
        return await self._store_of.begin(KEY, identity=None, create=True, messages=100)

    async def _keep(self, reply: KeptReply) -> None:
        await super()._keep(reply)
        assert self._seat is not None
        asked = Message("q", "user", self._text, 1.0)
        answer = Message("a", "assistant", reply.text, 2.0, reply.status, reply.calls)
        await self._seat.keep((asked, answer))

    async def _release(self) -> None:
        await super()._release()
        assert self._seat is not None
        await self._seat.leave()


async def history(store: ConversationStore) -> list[tuple[str, str, str, tuple[KeptCall, ...]]]:
    found = await make(store, KEY)
    return [(entry.role, entry.text, entry.status, entry.calls) for entry in found.messages]


WHOLE: Final = [("user", "hello", "complete", ()), ("assistant", "Hello", "complete", ())]


@pytest.mark.parametrize("abort", ABORTS)
@pytest.mark.parametrize("stage", STAGES)
async def test_after_any_abort_history_is_whole_and_the_conversation_free(
    store: ConversationStore, stage: str, abort: str
) -> None:
    said, text, calls = STAGES[stage]
    fault = ABORTS[abort]
    reached = asyncio.Event()
    last: list[Step] = [fault] if isinstance(fault, FROM_UPSTREAM) else [asyncio.Event()]
    seats = Seats(store, ConversationLocks())
    await Conversing(seats, store, [TextDelta("Hello")], [END]).converse()
    turn = Conversing(seats, store, *said, Reached(reached), *last)
    task = asyncio.create_task(turn.converse())
    async with asyncio.timeout(PATIENCE_S):
        await reached.wait()
        if fault is None:
            task.cancel()
        elif not isinstance(fault, FROM_UPSTREAM):
            turn.watch.stop_turn(fault)
        with suppress(asyncio.CancelledError):
            await task
    # The moment the turn is over its conversation is free, and nothing half is in it.
    await Conversing(seats, store, [TextDelta("Hello")], [END]).converse()
    kept = [("user", "hello", "complete", ()), ("assistant", text, "partial", calls)]
    assert await history(store) == [*WHOLE, *(kept if text or calls else []), *WHOLE]
    assert len(seats) == 0


@pytest.mark.parametrize("passes", range(12))
async def test_a_client_that_goes_at_the_end_leaves_a_whole_exchange_or_none(
    store: ConversationStore, passes: int
) -> None:
    seats = Seats(store, ConversationLocks())
    turn = Conversing(seats, store, [TextDelta("Hello")], [END])
    task = asyncio.create_task(turn.converse())
    await turn.began.wait()
    for _ in range(passes):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    found = await history(store)
    cut = [WHOLE[0], ("assistant", "Hello", "partial", ())]
    assert found in ([], cut, WHOLE)
    await Conversing(seats, store, [TextDelta("Hello")], [END]).converse()
    assert await history(store) == [*found, *WHOLE]


async def test_a_reply_that_cannot_be_stored_is_not_told_as_good(
    store: ConversationStore,
) -> None:
    seats = Seats(store, ConversationLocks())
    turn = Conversing(seats, store, [TextDelta("Hello")], [END])
    turn._store_error = StoreUnavailable("down")
    await turn.converse()
    assert turn.tally.outcome == "store_unavailable"
    assert turn.client.ended == 1
    assert await history(store) == []
    await Conversing(seats, store, [TextDelta("Hello")], [END]).converse()
    assert await history(store) == WHOLE


async def test_a_conversation_that_is_deleted_under_a_turn_does_not_come_back(
    store: ConversationStore,
) -> None:
    seats = Seats(store, ConversationLocks())
    reached, gate = asyncio.Event(), asyncio.Event()
    turn = Conversing(seats, store, [TextDelta("Hel")], Reached(reached), gate, [END])
    task = asyncio.create_task(turn.converse())
    await reached.wait()
    await store.delete(KEY)
    gate.set()
    await task
    assert turn.tally.outcome == "not_found"
    assert await history(store) == []


class Reached(asyncio.Event):
    """Tells that the model has come this far, and lets it go on."""

    def __init__(self, reached: asyncio.Event) -> None:
        super().__init__()
        self._reached = reached

    async def wait(self) -> Literal[True]:
        self._reached.set()
        return True
