"""The probes of the public listener, its versions, and this document."""

from typing import Final

from gateway.openapi.parts import JSON, STRING, Answer, Content, Operation, Section, query, record
from gateway.ports.routes import Route

_PLAIN: Final = "text/plain"
_VERBOSE: Final = query("verbose", STRING, "Whatever its value: lists the checks.")


def _text(body: str, description: str) -> Answer:
    return Answer(description, {_PLAIN: Content(STRING, {"answer": body})})


def _live(path: str) -> Operation:
    running = _text("ok\n", "The event loop runs.")
    return Operation(Route("GET", path), "Is it alive?", {200: running}, ())


SECTION: Final = Section(
    name="operators",
    description="Probes, without a credential.",
    operations=(
        _live("/livez"),
        _live("/healthz"),
        Operation(
            Route("GET", "/readyz"),
            "Does it take requests?",
            {
                200: _text("ok\n", "Every check holds."),
                503: _text("not ready\n", "A check fails, or the gateway is about to stop."),
            },
            (),
            parameters=(_VERBOSE,),
        ),
        Operation(
            Route("GET", "/version"),
            "What runs?",
            {
                200: Answer(
                    "Versions by name.",
                    {
                        JSON: Content(
                            record(version=STRING, python=STRING, hypercorn=STRING, sqlite=STRING)
                        )
                    },
                )
            },
            (),
        ),
        Operation(
            Route("GET", "/openapi.json"),
            "What can be asked?",
            {200: Answer("This document.", {JSON: Content({"type": "object"})})},
            (),
        ),
    ),
)
