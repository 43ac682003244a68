import asyncio
import contextlib
import gc

import aiohttp
import pytest

from gateway.errors import (
    GatewayError,
    ReplyTooLong,
    Truncated,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from gateway.events import ModelEvent, ModelFinished, TextDelta
from gateway.messages import Prompt
from gateway.upstreams.anthropic import Anthropic
from tests.model_streams import anthropic_stream, openai_chunk, openai_stream, sse
from tests.transport.calls import (
    BOUND,
    EVENTS,
    GOOD,
    HEAD,
    PROMPT,
    WANTED,
    Make,
    ask,
    drain,
    failure,
    left,
)
from tests.upstream import (
    Fin,
    Hang,
    Reset,
    Script,
    ScriptedUpstream,
    Sleep,
    Step,
    Unframed,
    answer,
    stream,
)


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


@pytest.mark.parametrize("passes", range(5))
async def test_a_malformed_chunk_is_one_whenever_the_next_read_comes(
    make: Make, upstream: ScriptedUpstream, passes: int
) -> None:
    whole = b"%x\r\n%b\r\n" % (len(EVENTS[1]), EVENTS[1])
    upstream.play(stream(Sleep(0.05), Unframed(whole + b"zz\r\n"), Hang()))
    running = await make().call(PROMPT)
    assert await running.read() == [TextDelta("Hel")]
    for _ in range(passes):  # the connection closes meanwhile
        await asyncio.sleep(0)
    async with asyncio.timeout(BOUND):
        with pytest.raises(UpstreamProtocolError):
            await running.read()


async def test_many_tokens_in_large_events_are_one_reply(
    make: Make, upstream: ScriptedUpstream
) -> None:
    # As a server sends 30,000 tokens that it pads or explains.
    word = openai_chunk({"content": "word "}, obfuscation="x" * 100)
    upstream.play(stream(*[word * 300] * 100, *EVENTS[3:]))
    events = await ask(make())
    assert len(events) == 30_001


async def test_an_endless_stream_is_cut_at_its_limit(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*([openai_chunk({"content": "word "}) * 100] * 1000), Hang()))
    error = await failure(make(stream_bytes=1_000_000))
    assert type(error) is ReplyTooLong
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
    await left(upstream.requests[0])
    await running.close()


async def test_a_cancelled_call_closes_the_socket(make: Make, upstream: ScriptedUpstream) -> None:
    upstream.play(Script((Hang(),), framing="raw"))
    model = make()
    calling = asyncio.create_task(model.call(PROMPT))
    seen = await upstream.request()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await left(seen)


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


async def test_closing_a_stream_early_closes_its_socket(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(EVENTS[1], Hang()))
    model = make()
    running = await model.call(PROMPT)
    await running.close()
    await running.close()
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
    model = make()
    calls = (asyncio.wait_for(ask(model), 1.0) for _ in range(60))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, list | GatewayError | TimeoutError) for result in results)
    async with asyncio.timeout(BOUND):
        # What is left may only be waiting for the next call.
        while upstream.open_connections > 30:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("cut", [-1, -2])
async def test_silence_after_the_finish_reason_is_a_good_end(
    make: Make, upstream: ScriptedUpstream, cut: int
) -> None:
    upstream.play(stream(*EVENTS[:cut], Hang()))
    events = await ask(make(grace_s=0.1))
    assert events[:-1] == WANTED[:-1]
    assert events[-1] == (WANTED[-1] if cut == -1 else ModelFinished("stop", None))
    await left(upstream.requests[0])


async def test_pings_after_the_finish_reason_do_not_hold_the_end_up(
    make: Make, upstream: ScriptedUpstream
) -> None:
    pings: list[Step] = [b": ping\n\n", Sleep(0.05)]
    upstream.play(stream(*EVENTS[:-1], *pings * 100))
    assert await ask(make(grace_s=0.2)) == WANTED
    assert not upstream.requests[0].finished.is_set()


async def test_silence_before_the_finish_reason_is_not_cut_short(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*EVENTS[:3], Sleep(0.5), *EVENTS[3:]))
    assert await ask(make(grace_s=0.05)) == WANTED


async def test_usage_that_comes_within_the_grace_is_taken(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*EVENTS[:4], Sleep(0.1), *EVENTS[4:]))
    assert await ask(make(grace_s=5.0)) == WANTED


async def test_silence_before_anthropics_end_mark_is_no_good_end(
    make: Make, upstream: ScriptedUpstream
) -> None:
    upstream.play(stream(*anthropic_stream(["Hel", "lo"])[:-1], Hang()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await ask(make(codec=Anthropic(), grace_s=0.05))
