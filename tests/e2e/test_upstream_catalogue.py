import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import pytest

from tests.e2e.routes import MAIN, Chat
from tests.e2e.test_faults import check
from tests.e2e.world import World, read
from tests.model_streams import openai_chunk, openai_stream, sse
from tests.upstream import Fin, Hang, Reset, Script, Sleep, Step, answer, stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
SAID: Final = "one two three"
TEXTS: Final = ("one ", "two ", "three")
GOOD: Final = openai_stream(TEXTS)
BEGUN: Final[tuple[Step, ...]] = (b"".join(GOOD[:4]), Sleep(0.1))
ERROR: Final = {"error": {"message": "upstream says: sk-upstream-key", "type": "server_error"}}
DRIP: Final[tuple[Step, ...]] = (openai_chunk({"content": "x"}), Sleep(0.1))
ANY: Final = b"".join(openai_stream(["日本", "🧑\u200d🚀", "é"]))
SEVERE: Final = {"hate": {"filtered": True, "severity": "high"}}
SOON: Final = datetime.now(UTC) + timedelta(days=365)


@dataclass(frozen=True)
class Row:
    """A fault, and what it comes to: a good reply, a status, or a terminal record.

    `kind` is None for a good reply; `text` is what the client has read by then, None where only
    the upstream knows how much that is.
    """

    script: Script | None
    kind: str | None = None
    text: str | None = ""


def good(*steps: Step, text: str = SAID, **how: object) -> Row:
    return Row(stream(*steps, **how), None, text)  # type: ignore[arg-type]  # framing, keep


def refused(kind: str, script: Script) -> Row:
    return Row(script, kind)


def broken(kind: str, *steps: Step, text: str | None = SAID) -> Row:
    return Row(stream(*BEGUN, *steps), kind, text)


def raw(*steps: Step) -> Script:
    return Script(steps, framing="raw")


def chunked(*events: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


def call(arguments: str, **more: object) -> bytes:
    fragment = {**more, "function": {"name": "lookup", "arguments": arguments}}
    return openai_chunk({"tool_calls": [fragment]})


def waits(status: int, value: str) -> Row:
    kind = "upstream_rate_limited" if status == 429 else "upstream_unavailable"
    return refused(kind, answer(status, ERROR, headers=[("retry-after", value)]))


def replaced(text: str, *, by: bytes) -> list[bytes]:
    """A good stream whose second text is other bytes."""
    return [event.replace(text.encode(), by) for event in openai_stream(["a", text, "b"])]


ROWS: Final[dict[str, Row]] = {
    "UP-01 nobody listens": Row(None, "upstream_unavailable"),
    "UP-02 closes before its head": refused("upstream_unavailable", raw(Fin())),
    "UP-02 resets before its head": refused("upstream_unavailable", raw(Reset())),
    "UP-03 resets after three tokens": broken("truncated", Reset()),
    "UP-03 ends without a last chunk": broken("truncated", Fin()),
    "UP-03 ends before its length": Row(
        Script((*BEGUN, Fin()), framing="length", declared=99_999), "truncated", SAID
    ),
    "UP-04 hangs before its head": refused("upstream_timeout", raw(Hang())),
    "UP-05 stalls in its stream": broken("upstream_timeout", Hang()),
    "UP-06 drips": broken("deadline", *DRIP * 50, text=None),
    **{
        f"UP-07 answers {status}": refused("upstream_error", answer(status, ERROR))
        for status in (400, 401, 403, 404, 422)
    },
    "UP-08 429 with seconds": waits(429, "7"),
    "UP-08 429 with a date": waits(429, format_datetime(SOON, usegmt=True)),
    "UP-08 429 with garbage": waits(429, "soon"),
    "UP-08 503 with 10^9 seconds": waits(503, "1000000000"),
    "UP-09 answers 500": refused("upstream_error", answer(500, ERROR)),
    "UP-10 text/html": refused("upstream_error", answer(200, b"<h1>Hi</h1>", media="text/html")),
    "UP-10 application/json": Row(
        answer(200, {"choices": [{"message": {"content": SAID}, "finish_reason": "stop"}]}),
        None,
        SAID,
    ),
    "UP-10 no type": Row(Script(GOOD, headers=()), None, SAID),
    "UP-11 comments, CR, CRLF, BOM, retry": good(
        b"\xef\xbb\xbf: hello\n\nretry: 5\n\n",
        *(event.replace(b"\n\n", b"\r\n: ping\r\n\r\n") for event in GOOD[:3]),
        GOOD[3].replace(b"\n", b"\r").replace(b"data: ", b"data:"),
        b"\n",
        *GOOD[4:],
    ),
    "UP-12 cut at every byte": good(
        *(ANY[at : at + 1] for at in range(len(ANY))), text="日本🧑\u200d🚀é"
    ),
    "UP-13 a line of 200 KB": good(openai_chunk({"content": SAID}, pad="x" * 200_000), *GOOD[4:]),
    "UP-13 a line of 5 MB without an end": broken("upstream_error", *[b"x" * 50_000] * 100),
    "UP-14 malformed JSON": broken("upstream_error", b"data: {not json}\n\n"),
    "UP-14 wrong types": broken("upstream_error", sse({"choices": "none"})),
    "UP-14 empty choices, null delta, unknown fields": good(
        openai_chunk(choices=[], new={"x": 1}),
        sse({"choices": [{"index": 0, "delta": None}]}),
        openai_chunk({"role": "assistant", "content": None, "novelty": [1]}),
        *GOOD[1:],
    ),
    "UP-15 no [DONE]": good(*GOOD[:-1]),
    "UP-15 no [DONE], and silence": good(*GOOD[:-1], Hang()),
    "UP-15 [DONE] twice, and more": good(*GOOD, sse(b"[DONE]"), openai_chunk({"content": "x"})),
    "UP-15 no finish_reason": broken("truncated"),
    "UP-16 an error after tokens": broken("upstream_error", sse(ERROR)),
    "UP-16 an error first": refused("upstream_error", stream(sse(ERROR))),
    "UP-17 arguments cut in mid-JSON": broken("truncated", call('{"a": "b', index=0, id="c")),
    "UP-17 two calls interleaved": good(
        *GOOD[:4],
        *(call("", index=at, id=f"c{at}") for at in (0, 1)),
        *(call("{}", index=at) for at in (1, 0)),
        *GOOD[4:],
    ),
    **{
        f"UP-18 redirects with {status}": refused(
            "upstream_error",
            answer(status, b"", headers=[("location", "http://169.254.169.254/latest/meta-data")]),
        )
        for status in (301, 302, 307, 308)
    },
    "UP-19 gzip": refused(
        "upstream_error",
        Script(
            (b"\x1f\x8b\x08\x00" + b"\0" * 100,),
            headers=[("content-type", "text/event-stream"), ("content-encoding", "gzip")],
        ),
    ),
    "UP-20 103 again and again, and trailers": Row(
        raw(
            b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 20,
            HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(*GOOD) + b"0\r\nx-t: 1\r\n\r\n",
        ),
        None,
        SAID,
    ),
    "UP-20 a header of 20 KB": refused(
        "upstream_error", raw(HEAD + b"x-big: " + b"x" * 20_000 + b"\r\n\r\n", Hang())
    ),
    "UP-20 control characters in a header": refused(
        "upstream_error", raw(HEAD + b"x-odd: a\x00b\r\n\r\n", Hang())
    ),
    "UP-21 no UTF-8": good(*replaced("odd", by=b"\xff\xfe"), text="a\ufffd\ufffdb"),
    "UP-21 a lone surrogate": good(*replaced("odd", by=b"\\ud83d"), text="a\ufffdb"),
    "UP-22 never ends": Row(
        stream(*[openai_chunk({"content": "x" * 10_000})] * 100, Hang()), "truncated", None
    ),
    "UP-24 content_filter": good(
        *GOOD[:4],
        openai_chunk(choices=[{"index": 0, "content_filter_results": SEVERE}]),
        openai_chunk(finish="content_filter"),
        *GOOD[5:],
    ),
    "UP-24 a refusal": good(
        *(openai_chunk({"refusal": text}) for text in TEXTS), openai_chunk(finish="stop"), GOOD[-1]
    ),
}


@pytest.mark.parametrize("chat", MAIN, ids=lambda chat: chat.dialect)
@pytest.mark.parametrize("name", ROWS)
async def test_it_comes_to_what_the_catalogue_says(
    brief_world: World, chat: Chat, name: str
) -> None:
    row, tenant = ROWS[name], "acme"
    if row.script is None:
        tenant = "cut_off"
    else:
        brief_world.line_up([row.script] * 4)
    seen = await brief_world.ask(chat, "Hello", tenant=tenant)
    assert "sk-upstream" not in seen.text
    if row.kind is not None and row.text == "":
        check(chat, row.kind, seen)
        assert 1 <= int(seen.header("retry-after") or 1) <= 10
        return
    assert (seen.status, seen.ended) == (200, True), seen.text
    reader = read(chat, seen)
    assert reader.terminals == (["ok"] if row.kind is None else ["error"])
    if row.text is not None:
        assert reader.text == row.text
    await brief_world.upstream_is_alone()


async def test_up_07_a_request_that_is_to_blame_is_sent_once(own_world: World) -> None:
    # Of its own, because a server that asked for patience before is not asked a second time.
    for status, calls in ((400, 1), (413, 1), (422, 1), (401, 1), (500, 2), (503, 2)):
        before = own_world.calls
        own_world.line_up([stream(*GOOD)])
        await own_world.ask(MAIN[0], "Hello")  # a good end: nothing counts as an outage
        own_world.line_up([answer(status, ERROR)] * 4)
        await own_world.ask(MAIN[0], "Hello")
        own_world.forget_replies()
        assert own_world.calls - before - 1 == calls, status


async def test_up_20_no_header_of_the_upstream_reaches_a_client(brief_world: World) -> None:
    fields = (("content-type", "text/event-stream"), ("x-upstream", "1"), ("set-cookie", "a=b"))
    many = tuple((f"x-{number}", "1") for number in range(90))
    for chat in MAIN:
        brief_world.line_up([Script(GOOD, headers=fields + many)])
        seen = await brief_world.ask(chat, "Hello")
        assert not {name for name, _ in seen.headers} & {"x-upstream", "set-cookie", "x-1"}


async def test_up_24_a_filter_is_told_where_the_dialect_has_a_word_for_it(
    brief_world: World,
) -> None:
    found: dict[str, str] = {}
    for chat in MAIN:
        brief_world.line_up([_script("UP-24 content_filter")])
        found[chat.dialect] = (await brief_world.ask(chat, "Hello")).text
    last = json.loads(found["hyperleap"])[-1]
    assert last["choice"]["finish_reason"] == "content_filter"
    categories = [
        entry
        for item in json.loads(found["hyperleap"])
        for entry in (item["choice"]["moderation_results"] or {}).get("categoryResults", [])
    ]
    assert [(entry["category"], entry["filtered"]) for entry in categories] == [("hate", True)]
    assert '"finishReason":"content-filter"' in found["helper"].replace(" ", "")


def _script(name: str) -> Script:
    script = ROWS[name].script
    assert script is not None
    return script
