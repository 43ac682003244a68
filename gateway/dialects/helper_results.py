"""What a Helper client's own tools gave, out of the assistant message that it posts once more.

    AI SDK 4    toolInvocations[], parts[].toolInvocation
                {"state": "result", "toolCallId", "result"}
    AI SDK 5+   parts[] of the type "tool-NAME" or "dynamic-tool"
                {"state": "output-available", "toolCallId", "output"}
                {"state": "output-error", "toolCallId", "errorText"}

A result is JSON text, or plain text if it is a string. What else the message says of its calls is
not read: the gateway keeps them itself. Source: `ToolInvocation`, `ToolUIPart` and
`DynamicToolUIPart` of the AI SDK.
"""

from collections.abc import Iterator

import orjson

from gateway.framing.surrogates import clean


def tool_results(message: dict[str, object]) -> dict[str, str]:
    """The results by the ids of their calls."""
    results: dict[str, str] = {}
    for call in _calls(message):
        call_id, state = call.get("toolCallId"), call.get("state")
        if not isinstance(call_id, str):
            continue
        if state == "result":
            results[call_id] = _text(call.get("result"))
        elif state == "output-available":
            results[call_id] = _text(call.get("output"))
        elif state == "output-error":
            results[call_id] = _text({"error": call.get("errorText")})
    return results


def _calls(message: dict[str, object]) -> Iterator[dict[str, object]]:
    for name in ("toolInvocations", "parts"):
        entries = message.get(name)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                call = entry.get("toolInvocation", entry)
                if isinstance(call, dict):
                    yield call


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else orjson.dumps(value).decode()
