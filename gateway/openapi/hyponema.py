"""Hyponema's routes: sessions and their messages."""

from typing import Final

from gateway.dialects.hyponema import MAX_CHARACTERS, Hyponema
from gateway.errors import HttpError, NotFound
from gateway.framing.events_out import MEDIA_TYPE
from gateway.neighbours.hyponema import (
    LONGEST_S,
    MAX_ID,
    MAX_REASON,
    MODALITIES,
    HyponemaEnd,
    HyponemaSession,
    HyponemaStart,
)
from gateway.neighbours.started import MAX_BYTES, MAX_VALUES
from gateway.openapi.parts import (
    ANY,
    ID,
    KEYED_ERRORS,
    MOMENT,
    NULL,
    ONCE,
    STRING,
    TURN_ERRORS,
    Answer,
    Body,
    Content,
    ErrorShape,
    Schema,
    Section,
    answer,
    nullable,
    record,
    ref,
    request,
    served,
    text,
)
from gateway.openapi.samples import streams
from gateway.replies import PRE_STREAM_KINDS

_STREAM: Final = """\
Server-sent events with a name and one line of JSON each. `turn_start` comes first; `token` has text
to append; `tool_call` the whole argument text so far; `tool_result` what the assistant sees;
`guard` what a guard did. The last one is `turn_end`, or `error` if the turn failed. Comments are
keep-alives.
"""
_DIALECT: Final = Hyponema()

_VIEW: Final[dict[str, Schema]] = {
    "id": ID,
    "status": {"enum": ["pending", "in_progress", "completed", "failed"]},
    "ws_url": NULL,
    "chat_url": NULL,
}
_START: Final = request(
    {
        "agent_id": text(
            MAX_ID, shortest=1, description="One of the tenant's agents, if it has any."
        ),
        "user_id": text(MAX_ID, shortest=1),
    },
    {
        "modality": nullable({"enum": list(MODALITIES)}),
        "dynamic_variables": nullable(
            {
                "type": "object",
                "additionalProperties": STRING,
                "maxProperties": MAX_VALUES,
                "description": f"At most {MAX_BYTES} bytes of JSON.",
            }
        ),
        "ttl_seconds": nullable(
            {
                "type": "integer",
                "minimum": 1,
                "description": f"After so long the session ends; more than {LONGEST_S} is as good.",
            }
        ),
        "overrides": ANY,
        "voice_stack_override": ANY,
    },
)
_END: Final = request(
    {}, {"status": {"enum": ["completed", "failed"]}, "reason": nullable(text(MAX_REASON))}
)

SECTION: Final = Section(
    name=_DIALECT.name,
    description="Hyponema: sessions, and messages answered with server-sent events.",
    operations=(
        *served(
            _DIALECT,
            "Send a message and stream the reply",
            {
                200: Answer(
                    "The turn's events.",
                    {
                        MEDIA_TYPE: Content(
                            {"type": "string", "description": _STREAM},
                            streams(_DIALECT, "sse", "reply", "tool", "guard", "failure"),
                        )
                    },
                )
            },
            TURN_ERRORS,
            parameters=(ONCE,),
            body=Body(request({"text": text(MAX_CHARACTERS, shortest=1)})),
            ids=ID,
        ),
        *served(
            HyponemaStart,
            "Make a session",
            {201: answer("The new session.", ref("HyponemaNewSession"))},
            (*KEYED_ERRORS, HttpError(415), NotFound()),
            body=Body(_START),
        ),
        *served(
            HyponemaSession,
            "Show a session",
            {200: answer("Where it stands.", ref("HyponemaSession"))},
            (*KEYED_ERRORS, NotFound()),
            ids=ID,
        ),
        *served(
            HyponemaEnd,
            "End a session",
            {200: answer("Where it stands now.", ref("HyponemaSession"))},
            (*KEYED_ERRORS, HttpError(415), NotFound()),
            body=Body(_END, required=False),
            ids=ID,
        ),
    ),
    schemas={
        "HyponemaSession": record(**_VIEW),
        "HyponemaNewSession": record(**_VIEW, token=NULL, expires_at=MOMENT),
    },
    errors=ErrorShape(
        record(detail=STRING, error_kind={"enum": list(PRE_STREAM_KINDS)}), _DIALECT.encode_error
    ),
    credentials={_DIALECT.credentials[0]: "One of the tenant's keys."},
)
