"""What a model says, case by case, and what of it there is to see.

A case is written once: what its upstream sends (`script`) and what a person has to see of that.
`wires.py` says which part of it each dialect can show, and how.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

from tests.e2e.faults import FAULTS, HALF
from tests.model_streams import openai_chunk, openai_stream, sse
from tests.upstream import Script, Sleep, Step, stream

Fact = Literal[
    "text",  # what stands there in the end
    "streamed",  # what came of it on the way
    "reasoning",
    "calls",
    "sources",
    "usage",
    "reason",
    "error",
    "status",  # of HTTP
    "state",  # of a chat on a screen: ready or error
    "open",  # how many parts are still expected to grow
    "kept_alive",
]
Failure = Literal["refused", "upstream_error", "truncated"]

KEEP_ALIVE_S: Final = 0.2
"""The silence after which the restless gateway sends a keep-alive."""

_SILENCE: Final = Sleep(3.5 * KEEP_ALIVE_S)
_APART: Final = Sleep(0.005)
_PUNCTUATION: Final = ' e\u0301 \u2028 \u0085 \\ " \t\x7f\x01 \n\n'


@dataclass(frozen=True)
class Case:
    """`subject` is what the case is about: a client that cannot show it has nothing to prove.

    `calls` are tool, arguments; `sources` address, title. `usage` None: the model's server sent
    none. `restless`: the case is played behind the gateway that sends keep-alives early.
    """

    name: str
    script: Script
    text: str = ""
    subject: Fact = "text"
    reasoning: str = ""
    calls: tuple[tuple[str, dict[str, object]], ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    usage: tuple[int, int] | None = (11, 7)
    failure: Failure | None = None
    restless: bool = False

    @property
    def word(self) -> str:
        """The name as configurations spell names."""
        return self.name.replace(" ", "_").replace("-", "_")


def _said(name: str, *deltas: str, before: Step | None = None, between: Step | None = None) -> Case:
    """A good reply: `before` its first delta, `between` two of them."""
    role, *rest = openai_stream(deltas, usage=(11, 7))
    steps: list[Step] = [role] if before is None else [role, before]
    for number, event in enumerate(rest):
        pause = between if 0 < number < len(deltas) else None
        steps += [event] if pause is None else [pause, event]
    return Case(name, stream(*steps), "".join(deltas))


def _unicode() -> Case:
    """Also a character whose two UTF-16 halves come in two chunks, as some servers cut."""
    said = ("Ωλ ", "日本", "語 🧑‍", "🚀 مرحبا", _PUNCTUATION)
    role, *rest = openai_stream(said, usage=(11, 7))
    halves = [
        sse(b'{"choices":[{"index":0,"delta":{"content":"\\u%b"}}]}' % half)
        for half in (b"d83d", b"de80")
    ]
    events = [role, *rest[: len(said)], *halves, *rest[len(said) :]]
    steps = [step for event in events for step in (event, _APART)]
    return Case("unicode", stream(*steps), "".join(said) + "\U0001f680")


def _reasoned() -> Case:
    role, *rest = openai_stream(["Forty-", "two."], usage=(11, 7))
    thought = ("Six times ", "seven: 七 🧮")
    steps = [openai_chunk({"reasoning_content": text}) for text in thought]
    script = stream(role, *steps, *rest)
    return Case("reasoning", script, "Forty-two.", "reasoning", "".join(thought))


def _called() -> Case:
    arguments = '{"city":"Zürich 日本","days":2,"units":["°C"]}'
    calls = (("call_1", "forecast", arguments), ("call_2", "now", "{}"))
    events = openai_stream(["Let me look. "], usage=(11, 7), finish="tool_calls", calls=calls)
    known = {"city": "Zürich 日本", "days": 2, "units": ["°C"]}
    shown: tuple[tuple[str, dict[str, object]], ...] = (("forecast", known), ("now", {}))
    return Case("tools", stream(*events), "Let me look. ", "calls", calls=shown)


def _cited() -> Case:
    sources = (
        ("https://shop.example/returns?a=1&b=2#%C3%BC", "Returns – 返品"),
        ("https://shop.example/terms", 'Terms "2026"'),
    )
    links = [
        {"type": "url_citation", "url_citation": _place(number) | {"url": url, "title": title}}
        for number, (url, title) in enumerate(sources)
    ]
    *said, end, usage, done = openai_stream(["Within ", "30 days."], usage=(11, 7))
    cited = [openai_chunk({"annotations": [link]}) for link in links]
    script = stream(*said, *cited, end, usage, done)
    return Case("citations", script, "Within 30 days.", "sources", sources=sources)


def _place(number: int) -> dict[str, object]:
    return {"start_index": number, "end_index": number + 1}


def _counted(name: str, usage: tuple[int, int] | None) -> Case:
    events = openai_stream(["Counted."], usage=usage)
    return Case(name, stream(*events), "Counted.", "usage", usage=usage)


def _failed(name: str, fault: str, failure: Failure) -> Case:
    text = "" if failure == "refused" else HALF
    return Case(name, FAULTS[fault][1], text, "error", failure=failure)


_SHORT: Final = tuple(f"{number} 日本語 🧑‍🚀 é " for number in range(60))
# The longest is near the size of an HTTP/2 frame, 16 KiB, once it is JSON in ASCII; and all of
# them together fit one, as the widget's last line has to.
_STORY: Final = "長い話 🚀 longue histoire, Größe. "
_LONG: Final = (_STORY * 150, _STORY, _STORY * 20, "…" + _STORY * 30)
_VERY_LONG: Final = tuple(f"{number}: {_STORY * 400}" for number in range(8))

CASES: Final = (
    _said("plain text", "Plain ", "text, ", "in three.", between=_APART),
    _unicode(),
    _said("empty reply"),
    _reasoned(),
    _called(),
    _cited(),
    _counted("usage", (1234567, 89)),
    _counted("no usage", None),
    _failed("error before the stream", "fault", "refused"),
    _failed("error in the stream", "reports-an-error", "upstream_error"),
    _failed("truncated upstream", "breaks-off", "truncated"),
    replace(_said("keep-alive first", "At ", "last.", before=_SILENCE), restless=True),
    replace(_said("keep-alive between", "One ", "moment.", between=_SILENCE), restless=True),
    _said("short at once", *_SHORT),
    _said("short spaced", *_SHORT, between=_APART),
    _said("long at once", *_LONG),
    _said("long spaced", *_LONG, between=Sleep(0.02)),
    _said("very long", *_VERY_LONG),
)
BY_WORD: Final = {case.word: case for case in CASES}
