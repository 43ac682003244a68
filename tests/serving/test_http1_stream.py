import asyncio

import pytest

from gateway.serving.http1_head import read_head
from gateway.serving.http1_stream import Http1Stream, Outgoing, response_head

HEAD = b"%b /a HTTP/1.1\r\nhost: a\r\n%b\r\n"


class Recorder(Outgoing):
    """A way out that keeps each write, and of which `full` says whether the client keeps up."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.full = False
        self.caught_up = asyncio.Event()

    def write(self, data: bytes) -> bool:
        self.writes.append(data)
        return not self.full

    async def room(self) -> None:
        await self.caught_up.wait()


class Owner:
    """A connection that remembers which of its requests are answered."""

    def __init__(self) -> None:
        self.closes = False
        self.done: list[Http1Stream] = []

    def own_fields(self) -> list[tuple[bytes, bytes]]:
        return [(b"date", b"today")]

    def consumed(self) -> None:
        pass

    def answered(self, stream: Http1Stream) -> None:
        self.done.append(stream)

    def app_ended(self, stream: Http1Stream) -> None:
        pass


def begun(method: bytes = b"GET", fields: bytes = b"") -> tuple[Http1Stream, Recorder, Owner]:
    owner, out = Owner(), Recorder()
    raw = HEAD % (method, fields)
    return Http1Stream(owner, out, raw, read_head(raw)), out, owner


async def answer(stream: Http1Stream, *parts: bytes, fields: bool = False) -> None:
    length = [(b"content-length", b"%d" % sum(map(len, parts)))] if fields else []
    await stream.send({"type": "http.response.start", "status": 200, "headers": length})
    for part in parts:
        await stream.send({"type": "http.response.body", "body": part, "more_body": True})
    await stream.send({"type": "http.response.body", "body": b"", "more_body": False})


async def test_the_head_leaves_with_the_first_message_and_each_other_one_alone() -> None:
    stream, out, owner = begun()
    await answer(stream, b"one", b"two", b"x" * 300)
    first, *others = out.writes
    head = b"HTTP/1.1 200 OK\r\ndate: today\r\ntransfer-encoding: chunked\r\n\r\n"
    assert first == head + b"3\r\none\r\n"
    assert others == [b"3\r\ntwo\r\n", b"12c\r\n" + b"x" * 300 + b"\r\n", b"0\r\n\r\n"]
    assert owner.done == [stream]
    assert stream.keeps_alive


async def test_a_whole_answer_is_one_write() -> None:
    stream, out, _ = begun()
    await answer(stream, b"whole", fields=True)
    assert b"".join(out.writes).endswith(b"\r\n\r\nwhole")
    assert len([data for data in out.writes if data]) == 1


@pytest.mark.parametrize("parts", [[b"sho", b""], [b"too", b"long"]])
async def test_a_body_that_is_not_as_long_as_declared_is_the_applications_fault(
    parts: list[bytes],
) -> None:
    stream, out, owner = begun()
    fields = [(b"content-length", b"5")]
    await stream.send({"type": "http.response.start", "status": 200, "headers": fields})
    await stream.send({"type": "http.response.body", "body": parts[0], "more_body": True})
    with pytest.raises(RuntimeError, match="not as long"):
        await stream.send({"type": "http.response.body", "body": parts[1], "more_body": False})
    assert b"".join(out.writes).endswith(b"\r\n\r\n" + parts[0])
    assert owner.done == []


@pytest.mark.parametrize(
    ("name", "value"), [(b"a", b"b\r\nc: d"), (b"a", b"b\nc"), (b"a: b\r\nc", b"d"), (b"", b"d")]
)
def test_a_field_is_one_line_of_a_head(name: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        response_head(200, [(b"x", b"y"), (name, value)])


async def test_a_message_waits_only_while_the_client_does_not_keep_up() -> None:
    stream, out, owner = begun()
    out.full = True
    task = asyncio.create_task(answer(stream, b"one", b"two"))
    await asyncio.sleep(0.01)
    assert len(out.writes) == 1, "the second message waits for the first"
    out.caught_up.set()
    await task
    assert owner.done == [stream]


async def test_nothing_is_written_for_a_client_that_has_gone() -> None:
    stream, out, owner = begun()
    stream.lose()
    await answer(stream, b"one")
    assert out.writes == []
    assert owner.done == []
    assert await stream.receive() == {"type": "http.disconnect"}


async def test_a_body_is_read_as_it_comes_and_ends_once() -> None:
    stream, _, _ = begun(b"POST", b"content-length: 5\r\n")
    waiting = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    assert stream.feed(b"he") == b""
    assert await waiting == {"type": "http.request", "body": b"he", "more_body": True}
    assert stream.feed(b"lloGET /next") == b"GET /next"
    assert stream.unread == 3
    assert await stream.receive() == {"type": "http.request", "body": b"llo", "more_body": False}
    await answer(stream)
    assert await stream.receive() == {"type": "http.disconnect"}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.body", "body": b"x"},
        {"type": "http.response.trailers", "headers": []},
        {"type": "websocket.accept"},
    ],
)
async def test_a_message_out_of_place_is_the_applications_fault(message: dict[str, object]) -> None:
    stream, _, _ = begun()
    with pytest.raises(RuntimeError, match="not for this moment"):
        await stream.send(message)  # type: ignore[arg-type]  # what the types forbid, too
