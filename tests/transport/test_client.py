import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.errors import (
    GatewayError,
    Truncated,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.events import ModelEvent, ModelFinished, TextDelta
from gateway.messages import Prompt, PromptMessage, Usage
from gateway.ports import Model, ModelStream, Upstream
from gateway.transport.client import HttpModel, open_session
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.openai import OpenAI
from tests.upstream import (
    Fin,
    Hang,
    Reset,
    Script,
    ScriptedUpstream,
    Seen,
    Sleep,
    Step,
    Unframed,
    Wait,
    answer,
    anthropic_stream,
    openai_chunk,
    openai_stream,
    sse,
    stream,
)

PROMPT = Prompt("some-model", "", (PromptMessage("user", "hi"),))
EVENTS = openai_stream(["Hel", "lo"])
GOOD = stream(*EVENTS)
WANTED: list[ModelEvent] = [
    TextDelta("Hel"),
    TextDelta("lo"),
    ModelFinished("stop", Usage(12, 3)),
]
CANARY = "sk-canary-1234567890"
BOUND = 10.0

Make = Callable[..., HttpModel]
SELF_SIGNED = Path(__file__).parent / "self_signed.pem"


def model_of(
    session: aiohttp.ClientSession,
    base_url: str,
    *,
    codec: Upstream | None = None,
    connect_s: float = 5.0,
    total_s: float = 60.0,
    max_in_flight: int = 100,
    one_connection_per_request: bool = False,
    stream_bytes: int = 4 * 1024 * 1024,
) -> HttpModel:
    return HttpModel(
        name="main",
        codec=codec or OpenAI(api_key=CANARY),
        session=session,
        base_url=base_url,
        model="some-model",
        connect_s=connect_s,
        first_token_s=60.0,
        idle_s=30.0,
        total_s=total_s,
        max_in_flight=max_in_flight,
        one_connection_per_request=one_connection_per_request,
        stream_bytes=stream_bytes,
    )


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(GOOD) as started:
        yield started


@pytest.fixture
def make(session: aiohttp.ClientSession, upstream: ScriptedUpstream) -> Make:
    def made(base_url: str | None = None, **changes: Any) -> HttpModel:
        return model_of(session, base_url or f"{upstream.url}/v1", **changes)

    return made


async def drain(running: ModelStream) -> list[ModelEvent]:
    events: list[ModelEvent] = []
    try:
        while not events or not isinstance(events[-1], ModelFinished):
            events += await running.read()
    finally:
        await running.close()
    return events


async def ask(model: Model) -> list[ModelEvent]:
    async with asyncio.timeout(BOUND):
        return await drain(await model.call(PROMPT))


async def failure(model: HttpModel) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await ask(model)
    assert CANARY not in repr(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert model.in_flight == 0
    return caught.value


async def left(seen: Seen) -> None:
    async with asyncio.timeout(BOUND):
        await seen.gone.wait()


async def test_a_stream_comes_as_events(make: Make, upstream: ScriptedUpstream) -> None:
    model: Model = make()
    assert await ask(model) == WANTED
    seen = await upstream.request()
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.json["messages"] == [{"role": "user", "content": "hi"}]


async def test_the_request_asks_for_no_encoding_and_forwards_the_ids(
    make: Make, upstream: ScriptedUpstream
) -> None:
    ids = (("traceparent", "00-1-2-01"), ("x-request-id", "r1"))
    await drain(await make().call(PROMPT, headers=ids))
    names = [name for name, _ in upstream.requests[0].headers]
    assert len(names) == len(set(names))
    fields = dict(upstream.requests[0].headers)
    assert fields["accept-encoding"] == "identity"
    assert fields["authorization"] == f"Bearer {CANARY}"
    assert fields["traceparent"] == "00-1-2-01"
    assert fields["x-request-id"] == "r1"
    assert fields["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("codec", "base", "path"),
    [
        (OpenAI(), "", "/chat/completions"),
        (OpenAI(), "/v1/", "/v1/chat/completions"),
        (OpenAI(), "/openai/v2", "/openai/v2/chat/completions"),
        (Anthropic(), "", "/v1/messages"),
        (Anthropic(), "/", "/v1/messages"),
        (Anthropic(), "/v1", "/v1/messages"),
        (Anthropic(), "/anthropic", "/anthropic/v1/messages"),
    ],
)
async def test_a_base_url_is_joined_with_the_codecs_path(
    make: Make, upstream: ScriptedUpstream, codec: Upstream, base: str, path: str
) -> None:
    texts = ["Hel", "lo"]
    upstream.play(
        stream(*(openai_stream(texts) if codec.provider == "openai" else anthropic_stream(texts)))
    )
    assert await ask(make(codec=codec, base_url=upstream.url + base)) == WANTED
    assert upstream.requests[0].path == path


async def test_a_connection_is_used_again(make: Make, upstream: ScriptedUpstream) -> None:
    model = make()
    for _ in range(5):
        assert await ask(model) == WANTED
    assert (len(upstream.requests), upstream.connections) == (5, 1)


async def test_a_connection_is_used_again_though_its_answer_ends_a_little_later(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*EVENTS, Sleep(0.02)))
    model = make()
    for number in range(3):
        assert await ask(model) == WANTED
        seen = await upstream.request(number)
        await seen.finished.wait()
        await asyncio.sleep(0.05)
    assert upstream.connections == 1


async def test_closing_does_not_wait_for_an_answer_that_never_ends(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*EVENTS, Hang()))
    model = make()
    running = await model.call(PROMPT)
    while not any(isinstance(event, ModelFinished) for event in await running.read()):
        pass
    seen = await upstream.request()
    await running.close()
    assert not seen.gone.is_set()
    assert model.in_flight == 0
    await left(seen)


async def test_a_session_that_is_closed_takes_lingering_connections_with_it(
    upstream: ScriptedUpstream,
) -> None:
    upstream.play(stream(*EVENTS, Hang()))
    async with open_session() as session:
        assert await ask(model_of(session, upstream.url)) == WANTED
    await left(upstream.requests[0])


async def test_a_connection_per_request_is_never_used_again(
    make: Make, upstream: ScriptedUpstream
) -> None:
    model = make(one_connection_per_request=True)
    for _ in range(3):
        assert await ask(model) == WANTED
    assert upstream.connections == 3
    assert {seen.header("connection") for seen in upstream.requests} == {"close"}


async def test_a_server_that_closes_after_every_stream_fails_no_call(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*EVENTS, Unframed(b"0\r\n\r\n"), Sleep(0.01), Fin()))
    model = make(one_connection_per_request=True)
    for _ in range(20):
        assert await ask(model) == WANTED


@pytest.mark.parametrize("end", [Fin(), Reset()])
async def test_a_call_on_a_connection_that_was_just_closed_is_sent_once_more(
    make: Make, upstream: ScriptedUpstream, end: Step
) -> None:
    upstream.play(GOOD, Script((end,), framing="raw"), GOOD)
    model = make()
    assert await ask(model) == WANTED
    assert await ask(model) == WANTED
    assert [seen.connection for seen in upstream.requests] == [0, 0, 1]


async def test_it_is_sent_only_once_more(make: Make, upstream: ScriptedUpstream) -> None:
    model = make()
    assert await ask(model) == WANTED
    upstream.play(Script((Fin(),), framing="raw"))
    assert isinstance(await failure(model), UpstreamUnavailable)
    assert len(upstream.requests) == 3


async def test_it_is_sent_only_once_more_though_the_pool_has_another_connection(
    make: Make, upstream: ScriptedUpstream
) -> None:
    go_on = asyncio.Event()
    upstream.play(stream(EVENTS[0], Wait(go_on), *EVENTS[1:]))
    model = make()
    running = [await model.call(PROMPT) for _ in range(3)]
    go_on.set()
    for one in running:
        assert await drain(one) == WANTED
    upstream.play(Script((Fin(),), framing="raw"))
    assert isinstance(await failure(model), UpstreamUnavailable)
    assert (len(upstream.requests), upstream.connections) == (5, 3)


async def test_nothing_is_sent_again_on_a_fresh_connection(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(Script((Fin(),), framing="raw"))
    assert isinstance(await failure(make()), UpstreamUnavailable)
    assert len(upstream.requests) == 1


async def test_nothing_is_sent_again_once_an_answer_has_begun(
    make: Make, upstream: ScriptedUpstream
) -> None:
    model = make()
    assert await ask(model) == WANTED
    upstream.play(Script((b"HTTP/1.1 200 OK\r\ncontent-", Sleep(0.02), Fin()), framing="raw"))
    assert isinstance(await failure(model), UpstreamUnavailable)
    assert len(upstream.requests) == 2


async def test_a_port_where_nobody_listens_is_unavailable(make: Make) -> None:
    with contextlib.closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await failure(make(base_url=f"http://127.0.0.1:{port}/v1"))
    assert isinstance(error, UpstreamUnavailable)


async def test_a_name_that_does_not_resolve_is_unavailable(make: Make) -> None:
    error = await failure(make(base_url="http://nowhere.invalid/v1"))
    assert isinstance(error, UpstreamUnavailable)


async def test_a_server_without_tls_is_unavailable_over_https(make: Make) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 No\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(make(base_url=f"https://127.0.0.1:{port}/v1"))
    assert isinstance(error, UpstreamUnavailable)


async def test_a_certificate_that_nobody_vouches_for_is_refused(make: Make) -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(1))
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(SELF_SIGNED)
    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(make(base_url=f"https://127.0.0.1:{port}/v1"))
    assert isinstance(error, UpstreamUnavailable)
    assert "Certificate" in str(error)
    assert requests == []


async def test_connecting_has_a_clock(make: Make) -> None:
    with contextlib.closing(socket.socket()) as deaf, contextlib.closing(socket.socket()) as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        first.connect(address)  # fills the queue, so the next handshake gets no answer
        model = make(base_url=f"http://127.0.0.1:{address[1]}/v1", connect_s=0.2)
        assert isinstance(await failure(model), UpstreamTimeout)


async def test_waiting_for_a_place_in_the_pool_has_the_same_clock(
    upstream: ScriptedUpstream,
) -> None:
    upstream.play(stream(EVENTS[0], Hang()))
    async with open_session(limit=1) as session:
        model = model_of(session, upstream.url, connect_s=0.2)
        running = [await model.call(PROMPT) for _ in range(2)]
        with pytest.raises(UpstreamTimeout):
            await ask(model)
        for one in running:
            await one.close()
    assert model.in_flight == 0


async def test_a_call_over_max_in_flight_is_unavailable_at_once(
    make: Make, upstream: ScriptedUpstream
) -> None:
    go_on = asyncio.Event()
    upstream.play(stream(EVENTS[0], Wait(go_on), *EVENTS[1:]))
    model = make(max_in_flight=2)
    running = [await model.call(PROMPT) for _ in range(2)]
    with pytest.raises(UpstreamUnavailable) as caught:
        await model.call(PROMPT)
    assert caught.value.retry_after is not None
    assert len(upstream.requests) == 2
    go_on.set()
    for one in running:
        assert await drain(one) == WANTED
    assert await ask(model) == WANTED


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    make: Make, upstream: ScriptedUpstream, status: int
) -> None:
    async with ScriptedUpstream(GOOD) as other:
        place = (("location", f"{other.url}/latest/meta-data"),)
        upstream.play(answer(status, {}, headers=place))
        error = await failure(make())
        assert type(error) is UpstreamError
        assert (len(upstream.requests), other.requests) == (1, [])


@pytest.mark.parametrize(
    ("script", "kind", "wait"),
    [
        (answer(429, {}, headers=[("retry-after", "7")]), UpstreamRateLimited, 7.0),
        (answer(503, {}, headers=[("Retry-After", "9")]), UpstreamUnavailable, 9.0),
        (answer(504, {}), UpstreamTimeout, None),
        (answer(500, b"\xff" * 10_000_000), UpstreamError, None),
        (answer(401, {"error": {"message": f"bad key {CANARY}"}}), UpstreamError, None),
        (Script((b"{", Reset()), status=500), UpstreamError, None),
        (
            answer(429, b"\x1f\x8b", headers=[("content-encoding", "gzip")]),
            UpstreamRateLimited,
            None,
        ),
        (
            Script(status=204, framing="raw", steps=(b"HTTP/1.1 204 No\r\n\r\n",)),
            UpstreamError,
            None,
        ),
    ],
)
async def test_another_status_is_what_the_codec_says(
    make: Make,
    upstream: ScriptedUpstream,
    script: Script,
    kind: type[UpstreamError],
    wait: float | None,
) -> None:
    upstream.play(script)
    error = await failure(make())
    assert type(error) is kind
    assert error.retry_after == wait


async def test_an_errors_body_that_does_not_come_is_not_waited_for_long(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(Script((b'{"error":', Hang()), status=429))
    assert isinstance(await failure(make()), UpstreamRateLimited)
    await left(upstream.requests[0])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP"])
async def test_an_encoded_answer_is_refused(
    make: Make, upstream: ScriptedUpstream, encoding: str
) -> None:
    fields = (("content-type", "text/event-stream"), ("content-encoding", encoding))
    upstream.play(Script((*EVENTS, Hang()), headers=fields))
    assert type(await failure(make())) is UpstreamProtocolError
    await left(upstream.requests[0])


async def test_a_page_is_refused(make: Make, upstream: ScriptedUpstream) -> None:
    upstream.play(Script((b"<html>", Hang()), headers=(("content-type", "text/html"),)))
    assert type(await failure(make())) is UpstreamProtocolError
    await left(upstream.requests[0])


async def test_an_answer_that_is_not_streamed_is_read(
    make: Make, upstream: ScriptedUpstream
) -> None:
    choice = {"message": {"content": "Hello"}, "finish_reason": "stop"}
    upstream.play(answer(200, {"choices": [choice]}))
    assert await ask(make()) == [TextDelta("Hello"), ModelFinished("stop", None)]


async def test_no_cookie_is_kept(make: Make, upstream: ScriptedUpstream) -> None:
    fields = (("content-type", "text/event-stream"), ("set-cookie", "a=b"))
    upstream.play(Script(EVENTS, headers=fields))
    model = make()
    await ask(model)
    await ask(model)
    assert upstream.requests[1].header("cookie") is None


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"hello\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        HEAD + b"x: " + b"a" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * 20_000 + b"\r\n\r\n",
        HEAD + b"".join(b"x%d: y\r\n" % number for number in range(200)) + b"\r\n",
        HEAD + b"x: a\x00b\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_malformed_head_is_an_error(
    make: Make, upstream: ScriptedUpstream, head: bytes
) -> None:
    upstream.play(Script((head, Hang()), framing="raw"))
    assert type(await failure(make())) is UpstreamProtocolError
    await left(upstream.requests[0])


async def test_interim_answers_and_trailers_mean_nothing(
    make: Make, upstream: ScriptedUpstream
) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 50
    body = b"".join(EVENTS)
    upstream.play(
        Script(
            (
                b"HTTP/1.1 100 Continue\r\n\r\n" + interim,
                HEAD + b"transfer-encoding: chunked\r\n\r\n",
                b"%x\r\n%b\r\n0\r\nx-trailer: y\r\n\r\n" % (len(body), body),
            ),
            framing="raw",
        )
    )
    assert await ask(make()) == WANTED


@pytest.mark.parametrize(
    "script",
    [
        stream(*EVENTS[:3], Fin()),
        stream(*EVENTS[:3], Reset()),
        stream(*EVENTS[:3], Unframed(b"50\r\ndata: {"), Fin()),
        stream(*EVENTS[:3]),
        stream(*EVENTS[:3], framing="close"),
        stream(*EVENTS[:3], Reset(), framing="close"),
        Script(EVENTS[:3], framing="length", declared=9999, keep=False),
        stream(),
        stream(framing="close"),
    ],
    ids=str,
)
async def test_a_stream_that_is_cut_short_is_truncated(
    make: Make, upstream: ScriptedUpstream, script: Script
) -> None:
    upstream.play(script)
    assert type(await failure(make())) is Truncated


@pytest.mark.parametrize("end", [Fin(), Reset()])
async def test_a_stream_that_breaks_after_its_finish_is_good(
    make: Make, upstream: ScriptedUpstream, end: Step
) -> None:
    upstream.play(stream(*openai_stream(["Hel", "lo"], done=False), Sleep(0.02), end))
    assert await ask(make()) == WANTED


async def test_a_stream_that_ends_with_its_connection_is_good(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*EVENTS, framing="close"))
    assert await ask(make()) == WANTED


async def test_a_stream_that_is_killed_at_any_byte_is_never_good(
    make: Make, upstream: ScriptedUpstream
) -> None:
    body = b"".join(openai_stream(["Hel", "lo"], usage=None, done=False))
    finish = body.index(b'"finish_reason":"stop"')
    model = make()
    for place in range(0, finish, 5):
        upstream.play(stream(body[:place], Reset()) if place else stream(Reset()))
        assert type(await failure(model)) in (Truncated, UpstreamUnavailable), place


@pytest.mark.parametrize("frame", [b"zz\r\ndata\r\n", b"5\r\ndata: {too long}\r\n", b"-1\r\n"])
async def test_a_malformed_chunk_in_mid_stream_is_told_at_once(
    make: Make, upstream: ScriptedUpstream, frame: bytes
) -> None:
    upstream.play(stream(EVENTS[1], Sleep(0.05), Unframed(frame), Hang()))
    running = await make().call(PROMPT)
    async with asyncio.timeout(BOUND):
        assert await running.read() == [TextDelta("Hel")]
        with pytest.raises(UpstreamProtocolError):
            await drain(running)
    await left(upstream.requests[0])


async def test_the_whole_call_has_a_clock(make: Make, upstream: ScriptedUpstream) -> None:
    for script in (stream(EVENTS[0], Hang()), Script((Hang(),), framing="raw")):
        upstream.play(script)
        model = make(total_s=0.3)
        assert type(await failure(model)) is UpstreamTimeout
        await left(upstream.requests[-1])


async def test_an_endless_stream_is_cut_at_its_limit(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*([openai_chunk({"content": "word "}) * 100] * 1000), Hang()))
    error = await failure(make(stream_bytes=1_000_000))
    assert type(error) is Truncated
    await left(upstream.requests[0])


async def test_a_line_that_is_too_long_is_an_error(make: Make, upstream: ScriptedUpstream) -> None:
    upstream.play(stream(EVENTS[1], *([b"x" * 65536] * 5), Hang()))
    assert type(await failure(make())) is UpstreamProtocolError
    await left(upstream.requests[0])


async def test_an_error_behind_text_is_told_though_nothing_more_comes(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(EVENTS[1] + sse({"error": {"message": "x"}}), Hang()))
    running = await make().call(PROMPT)
    async with asyncio.timeout(BOUND):
        assert await running.read() == [TextDelta("Hel")]
        with pytest.raises(UpstreamError):
            await running.read()
    await left(upstream.requests[0])


async def test_text_of_an_unfinished_last_event_comes_before_the_error(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(EVENTS[1][:-2], framing="close"))
    running = await make().call(PROMPT)
    events: list[ModelEvent] = []
    async with asyncio.timeout(BOUND):
        while not events:
            events += await running.read()
        assert events == [TextDelta("Hel")]
        with pytest.raises(Truncated):
            await running.read()


async def test_a_cancelled_read_closes_the_socket(make: Make, upstream: ScriptedUpstream) -> None:
    upstream.play(stream(EVENTS[1], Hang()))
    model = make()
    running = await model.call(PROMPT)
    assert await running.read() == [TextDelta("Hel")]
    reading = asyncio.create_task(running.read())
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert model.in_flight == 0
    await left(upstream.requests[0])
    await running.close()
    assert model.in_flight == 0


async def test_a_cancelled_call_closes_the_socket(make: Make, upstream: ScriptedUpstream) -> None:
    upstream.play(Script((Hang(),), framing="raw"))
    model = make()
    calling = asyncio.create_task(model.call(PROMPT))
    seen = await upstream.request()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await left(seen)
    assert model.in_flight == 0


async def test_a_call_that_is_cancelled_while_an_errors_body_comes_closes_the_socket(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(Script((b"{", Hang()), status=500))
    model = make()
    calling = asyncio.create_task(model.call(PROMPT))
    seen = await upstream.request()
    await asyncio.sleep(0.05)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await left(seen)
    assert model.in_flight == 0


async def test_closing_a_stream_early_closes_its_socket(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(EVENTS[1], Hang()))
    model = make()
    running = await model.call(PROMPT)
    await running.close()
    await running.close()
    assert model.in_flight == 0
    await left(upstream.requests[0])


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_closing_a_stream_drops_what_the_upstream_has_not_taken_of_the_request(
    make: Make,
) -> None:
    closed, counted = asyncio.Event(), asyncio.Event()
    taken = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        await closed.wait()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1_000_000):
                taken += len(data)
        writer.close()
        counted.set()

    size = 40_000_000
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        model = make(base_url=f"http://127.0.0.1:{port}")
        running = await model.call(Prompt("m", "x" * size, ()))
        await running.close()
        closed.set()
        async with asyncio.timeout(BOUND):
            await counted.wait()
    assert 0 < taken < size


async def test_a_broken_connection_is_nobodys_complaint(
    make: Make, upstream: ScriptedUpstream
) -> None:
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    upstream.play(stream(EVENTS[1], Sleep(0.02), Reset()))
    for _ in range(3):
        await failure(make())
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_a_call_after_the_session_was_closed_is_unavailable(
    make: Make, session: aiohttp.ClientSession
) -> None:
    model = make()
    await session.close()
    assert isinstance(await failure(model), UpstreamUnavailable)


async def test_no_proxy_of_the_environment_is_used(
    make: Make, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedUpstream(GOOD) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert await ask(make()) == WANTED
        assert proxy.connections == 0


async def test_many_calls_at_once_leave_nothing_behind(
    make: Make, upstream: ScriptedUpstream
) -> None:
    scripts = [GOOD, stream(*EVENTS[:2], Reset()), answer(500, {}), stream(EVENTS[0], Hang())]
    upstream.play(lambda seen: scripts[len(upstream.requests) % 4])
    model = make(total_s=1.0)
    results = await asyncio.gather(*(ask(model) for _ in range(60)), return_exceptions=True)
    assert all(isinstance(result, list | GatewayError) for result in results)
    assert model.in_flight == 0
    async with asyncio.timeout(BOUND):
        # What is left may only be waiting for the next call.
        while upstream.open_connections > 30:
            await asyncio.sleep(0.01)
