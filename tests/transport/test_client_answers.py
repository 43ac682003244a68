import pytest

from gateway.errors import (
    UpstreamDenied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.events import ModelFinished, TextDelta
from tests.transport.calls import CANARY, EVENTS, GOOD, HEAD, WANTED, Make, ask, failure, left
from tests.upstream import Hang, Reset, Script, ScriptedUpstream, answer


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
        (answer(401, {"error": {"message": f"bad key {CANARY}"}}), UpstreamDenied, None),
        (answer(422, {"error": {"message": f"bad {CANARY}"}}), UpstreamRejected, None),
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


@pytest.mark.heavy
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
