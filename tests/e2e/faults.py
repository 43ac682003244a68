"""What can go wrong behind a gateway: each fault as a script, and the error kind that it is.

Those of `BEFORE` happen before the model has said a word, those of `AFTER` after half a reply.
"""

from typing import Final

from tests.e2e.canaries import CANARY, UPSTREAM_WORDS
from tests.model_streams import openai_chunk, sse
from tests.upstream import Fin, Hang, Reset, Script, Sleep, Step, answer, stream

HALF: Final = "Half a reply"
# Words that no client may ever read, because they are the upstream's.
WORDS: Final = f"{UPSTREAM_WORDS}: sk-{CANARY} is over quota"

_ROLE: Final = openai_chunk({"role": "assistant", "content": ""})
_BEGUN: Final[tuple[Step, ...]] = (_ROLE, openai_chunk({"content": HALF}), Sleep(0.1))
_ERROR: Final = {"error": {"message": WORDS, "type": "server_error", "code": f"sk-{CANARY}"}}

BEFORE: Final[dict[str, tuple[str, Script]]] = {
    "bad-request": ("upstream_error", answer(400, _ERROR)),
    "bad-key": ("upstream_error", answer(401, _ERROR)),
    "missing": ("upstream_error", answer(404, _ERROR)),
    "fault": ("upstream_error", answer(500, _ERROR)),
    "overloaded": ("upstream_unavailable", answer(503, _ERROR)),
    "rate-limited": (
        "upstream_rate_limited",
        answer(429, _ERROR, headers=[("retry-after", "7")]),
    ),
    "html": ("upstream_error", answer(200, b"<h1>Welcome</h1>", media="text/html")),
    "redirect": (
        "upstream_error",
        answer(307, b"", headers=[("location", "http://127.0.0.1:9/")]),
    ),
    "closes": ("upstream_unavailable", Script((Fin(),), framing="raw")),
    "resets": ("upstream_unavailable", Script((Reset(),), framing="raw")),
    "silent": ("upstream_timeout", Script((Hang(),), framing="raw")),
    "role-then-silent": ("upstream_timeout", stream(_ROLE, Hang())),
    "role-then-breaks": ("upstream_error", stream(_ROLE, Sleep(0.02), Fin())),
    "role-then-error": ("upstream_error", stream(_ROLE, sse(_ERROR))),
    "nothing": ("upstream_error", stream()),
    "garbage": ("upstream_error", stream(b"data: {not json}\n\n")),
}
AFTER: Final[dict[str, tuple[str, Script]]] = {
    "breaks-off": ("truncated", stream(*_BEGUN, Fin())),
    # What was not read before a reset is lost (RFC 9293 section 3.10.7.4).
    "breaks-off-hard": ("truncated", stream(*_BEGUN, Sleep(0.3), Reset())),
    "ends-early": ("truncated", stream(*_BEGUN)),
    "falls-silent": ("upstream_timeout", stream(*_BEGUN, Hang())),
    "reports-an-error": ("upstream_error", stream(*_BEGUN, sse(_ERROR))),
    "turns-to-garbage": ("upstream_error", stream(*_BEGUN, b"data: {not json}\n\n")),
}
FAULTS: Final = {**BEFORE, **AFTER}
