"""What each dialect can show of a case, and in which words.

Written from the vendors' documents and the README's table of what each dialect carries, not from
the gateway's code: statuses, bodies and texts are spelled out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tests.clients.cases import Case, Fact, Failure
from tests.e2e.routes import HELPER, HELPER_UI, HYPERLEAP, HYPONEMA, WIDGET, Chat

Seen = dict[str, object]
"""What a client showed, by fact; a fact that it has no place for is missing."""

_BROKEN: Final = "the model could not answer: try again"
_CUT: Final = "the model's reply was cut short: try again"
_REFUSAL: Final = "I can't help with that."
_SDK_REASONS: Final = {"stop": "stop", "tool_calls": "tool-calls"}


@dataclass(frozen=True)
class Wire:
    """A dialect in one framing.

    `shows` has the facts that its records can carry beside the text and errors, `errors` how it
    spells the failures, the first as status and body. `silent` is what it puts in place of an
    empty reply, `arguments` says whether a call's arguments are on it.
    """

    chat: Chat
    shows: frozenset[Fact]
    errors: Mapping[Failure, str]
    status: int
    reasons: Mapping[str, str] | None = None
    silent: str = ""
    arguments: bool = True


WIRES: Final[dict[str, Wire]] = {
    "hyponema": Wire(
        HYPONEMA,
        frozenset({"calls", "usage"}),
        {
            "refused": f'{{"detail":"{_BROKEN}","error_kind":"upstream_error"}}',
            "upstream_error": f"upstream_error: {_BROKEN}",
            "truncated": f"truncated: {_CUT}",
        },
        502,
    ),
    "hyperleap": Wire(
        HYPERLEAP,
        frozenset({"calls", "sources", "usage", "reason"}),
        {
            "refused": f'{{"error":{{"code":"upstream_error","message":"{_BROKEN}"}}}}',
            "upstream_error": "error",
            "truncated": "error",
        },
        502,
        {"stop": "stop", "tool_calls": "tool_calls"},
        arguments=False,
    ),
    "widget": Wire(
        WIDGET,
        frozenset({"streamed"}),
        {
            "refused": '{"error":"Internal server error"}',
            "upstream_error": "Internal server error",
            "truncated": "Internal server error",
        },
        500,
        silent=_REFUSAL,
    ),
    "helper v4": Wire(
        HELPER,
        frozenset({"reasoning", "calls", "sources", "usage", "reason"}),
        {
            "refused": '{"error":"Internal server error"}',
            "upstream_error": _BROKEN,
            "truncated": _CUT,
        },
        500,
        _SDK_REASONS,
    ),
    "helper v4, early": Wire(
        HELPER,
        frozenset({"calls", "usage", "reason"}),
        {
            "refused": '{"error":"Internal server error"}',
            "upstream_error": _BROKEN,
            "truncated": _CUT,
        },
        500,
        _SDK_REASONS,
    ),
    "helper v5": Wire(
        HELPER_UI,
        frozenset({"reasoning", "calls", "sources", "usage", "reason"}),
        {
            "refused": '{"error":"Internal server error"}',
            "upstream_error": _BROKEN,
            "truncated": _CUT,
        },
        500,
        _SDK_REASONS,
    ),
}
WIRES["hyperleap sse"] = replace(
    WIRES["hyperleap"], chat=Chat("hyperleap", "PATCH", "/conversations/{id}/chat-sse", "sse")
)


def expected(case: Case, wire: Wire) -> Seen:
    """Everything that a client of this wire has to come away with."""
    failed = case.failure is not None
    facts: Seen = {
        "text": case.text,
        "error": None,
        "status": wire.status if case.failure == "refused" else 200,
        "state": "error" if failed else "ready",
        "open": 0,
    }
    if wire.silent and case.failure is None:
        facts["text"] = case.text.strip() or wire.silent
    if case.restless:
        facts["kept_alive"] = True
    if "streamed" in wire.shows:
        facts["streamed"] = case.text
    if case.failure is not None:
        return facts | {"error": wire.errors[case.failure]}
    good: dict[Fact, object] = {
        "reasoning": case.reasoning,
        "calls": [[name, known if wire.arguments else None] for name, known in case.calls],
        "sources": [list(source) for source in case.sources],
        "usage": None if case.usage is None else list(case.usage),
    }
    if wire.reasons is not None:
        good["reason"] = wire.reasons["tool_calls" if case.calls else "stop"]
    return facts | {fact: value for fact, value in good.items() if fact in wire.shows}
