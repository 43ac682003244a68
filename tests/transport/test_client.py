import asyncio
import contextlib
import resource
import socket
import ssl

import pytest

from gateway.errors import (
    ConnectTimeout,
    Overloaded,
    UpstreamUnavailable,
)
from gateway.events import ModelFinished
from gateway.messages import Prompt, PromptMessage
from gateway.ports.codecs import Upstream
from gateway.transport.client import open_session
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.openai import OpenAI
from tests.model_streams import anthropic_stream, openai_stream
from tests.transport.calls import (
    BOUND,
    CANARY,
    EVENTS,
    GOOD,
    PROMPT,
    SELF_SIGNED,
    WANTED,
    Make,
    ask,
    drain,
    failure,
    left,
    model_of,
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
    Wait,
    stream,
)


async def test_a_stream_comes_as_events(make: Make, upstream: ScriptedUpstream) -> None:
    model = make()
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


@pytest.mark.parametrize("status", [200, 408])
async def test_what_a_server_says_unasked_is_nobodys_answer(
    make: Make, upstream: ScriptedUpstream, status: int
) -> None:
    stale = b"".join(openai_stream(["meant for another"]))
    head = b"HTTP/1.1 %d Unasked\r\ncontent-type: text/event-stream\r\n" % status
    unasked = Unframed(head + b"content-length: %d\r\n\r\n%b" % (len(stale), stale))
    said = asyncio.Event()
    upstream.play(stream(*EVENTS, Unframed(b"0\r\n\r\n"), Wait(said), unasked, Hang()), GOOD)
    model = make()
    assert await ask(model) == WANTED
    said.set()
    await asyncio.sleep(0.05)
    assert await ask(model) == WANTED
    assert [seen.connection for seen in upstream.requests] == [0, 1]


async def test_a_want_of_descriptors_is_not_the_servers_fault(make: Make) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest.fileno(), hard))
        try:
            error = await failure(make())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert type(error) is Overloaded


async def test_a_port_where_nobody_listens_is_unavailable(make: Make) -> None:
    with contextlib.closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await failure(make(base_url=f"http://127.0.0.1:{port}/v1"))
    assert isinstance(error, UpstreamUnavailable)
    assert "ECONNREFUSED" in str(error)


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


async def test_an_authority_of_ones_own_is_trusted(make: Make) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(SELF_SIGNED)
    async with ScriptedUpstream(GOOD, tls=tls) as served:
        trusted = make(
            base_url=f"https://127.0.0.1:{served.port}/v1",
            tls=ssl.create_default_context(cafile=SELF_SIGNED),
        )
        assert await ask(trusted) == WANTED
        # The pool keeps the trusted connection, and does not lend it to who does not trust it.
        stranger = make(base_url=f"https://127.0.0.1:{served.port}/v1")
        assert isinstance(await failure(stranger), UpstreamUnavailable)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_call_to_a_server_that_does_not_read_can_be_cancelled(make: Make) -> None:
    connected, over, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        await over.wait()
        transport.abort()
        gone.set()

    prompt = Prompt("m", "", (PromptMessage("user", "x" * 20_000_000),))
    async with await asyncio.start_server(talk, "127.0.0.1", 0, limit=1) as server:
        port = server.sockets[0].getsockname()[1]
        model = make(base_url=f"http://127.0.0.1:{port}/v1")
        async with asyncio.timeout(BOUND):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await model.call(prompt)
            over.set()
            await gone.wait()
    assert connected.is_set()


async def test_connecting_has_a_clock(make: Make) -> None:
    with contextlib.closing(socket.socket()) as deaf, contextlib.closing(socket.socket()) as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        first.connect(address)  # fills the queue, so the next handshake gets no answer
        model = make(base_url=f"http://127.0.0.1:{address[1]}/v1", connect_s=0.2)
        assert isinstance(await failure(model), ConnectTimeout)


async def test_waiting_for_a_place_in_the_pool_has_the_same_clock(
    upstream: ScriptedUpstream,
) -> None:
    upstream.play(stream(EVENTS[0], Hang()))
    async with open_session(limit=1) as session:
        model = model_of(session, upstream.url, connect_s=0.2)
        running = [await model.call(PROMPT) for _ in range(2)]
        with pytest.raises(ConnectTimeout):
            await ask(model)
        for one in running:
            await one.close()
