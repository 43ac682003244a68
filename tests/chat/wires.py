"""One reply, and the same one failing, on every wire that `gateway chat` reads.

Written from the vendors' documents; the text is always `Hello`, in two pieces.
"""

from typing import Final

HYPONEMA = (
    b'event: turn_start\ndata: {"turn_id":"t","model":"m"}\n\n: keep-alive\n\n'
    b'event: token\ndata: {"text":"Hel"}\n\nevent: token\ndata: {"text":"lo"}\n\n'
    b'event: turn_end\ndata: {"turn_id":"t","latency_ms":842,"prompt_tokens":1,'
    b'"completion_tokens":2}\n\n'
)


def _item(content: str, reason: str = "null") -> bytes:
    return (
        f'{{"choice":{{"finish_reason":{reason},"index":0,"message":{{"role":"assistant",'
        f'"content":"{content}","toolCallId":null,"name":null}},"moderation_results":null}},'
        f'"usage":null,"messageId":"m","runId":"r","citations":null}}'
    ).encode()


HYPERLEAP = b"".join(
    [
        *(b"[", _item(""), b",", _item("Hel"), b"\n,", _item("lo")),
        *(b",", _item("", '"stop"'), b"]"),
    ]
)
WIDGET = (
    b'{"type":"start","conversationId":"j97ch2kj8xm6rpct8te5w9b1fh6pc7k8"}\n'
    b'{"type":"token","token":"Hel"}\n\n{"type":"token","token":"lo"}\n'
    b'{"type":"done","message":"Hello","conversationId":"j97ch2kj8xm6rpct8te5w9b1fh6pc7k8"}\n'
)
UI = (
    b'data: {"type":"start","messageId":"m1"}\n\ndata: {"type":"start-step"}\n\n'
    b'data: {"type":"text-start","id":"t1"}\n\n: keep-alive\n\n'
    b'data: {"type":"text-delta","id":"t1","delta":"Hel"}\n\n'
    b'data: {"type":"text-delta","id":"t1","delta":"lo"}\n\n'
    b'data: {"type":"text-end","id":"t1"}\n\ndata: {"type":"finish-step"}\n\n'
    b'data: {"type":"finish","messageMetadata":{"finishReason":"stop","latencyMs":842}}\n\n'
    b"data: [DONE]\n\n"
)
DATA_STREAM = (
    b'f:{"messageId":"m1"}\n0:"Hel"\n\n0:"lo"\n'
    b'e:{"finishReason":"stop","isContinued":false}\nd:{"finishReason":"stop"}\n'
    b'8:[{"id":"1","traceId":"t"}]\n'
)
SSE = "text/event-stream"
WIRES: Final = {
    "hyponema": ("hyponema", SSE, HYPONEMA),
    "hyperleap": ("hyperleap", "application/json", HYPERLEAP),
    "widget": ("widget", "application/x-ndjson", WIDGET),
    "helper": ("helper", SSE, UI),
    "helper-v4": ("helper", "text/plain; charset=utf-8", DATA_STREAM),
}
FAILURES: Final = {
    "hyponema": (
        HYPONEMA[: HYPONEMA.index(b"event: turn_end")]
        + b'event: error\ndata: {"detail":"The model failed","error_kind":"upstream_error"}\n\n',
        "The model failed (upstream_error)",
    ),
    "hyperleap": (HYPERLEAP.replace(b'"stop"', b'"error"'), "the reply failed"),
    "widget": (
        WIDGET[: WIDGET.index(b'{"type":"done"')]
        + b'{"type":"error","error":"Internal server error"}\n',
        "Internal server error",
    ),
    "helper": (
        UI[: UI.index(b'data: {"type":"text-end"')]
        + b'data: {"type":"text-end","id":"t1"}\n\n'
        + b'data: {"type":"error","errorText":"No answer"}\n\ndata: [DONE]\n\n',
        "No answer",
    ),
    "helper-v4": (
        DATA_STREAM[: DATA_STREAM.index(b"e:{")]
        + b'3:"No answer"\ne:{"finishReason":"error","isContinued":false}\n'
        + b'd:{"finishReason":"error"}\n',
        "No answer",
    ),
}
