"""A prompt's message in the words of each wire: with tool calls it is told as several.

Chat completions: the assistant's message with `tool_calls`, then one of the role `tool` for each
result. Messages: an assistant's `tool_use` blocks, then a user's `tool_result` blocks. Source:
OpenAI API reference, "Chat completions"; Anthropic API reference, "Tool use".
"""

import orjson

from gateway.messages import PromptMessage


def chat_messages(entry: PromptMessage) -> list[dict[str, object]]:
    """The message as chat completions take it."""
    if not entry.calls:
        return [{"role": entry.role, "content": entry.text}]
    calls = [
        {"id": it.id, "type": "function", "function": {"name": it.name, "arguments": it.arguments}}
        for it in entry.calls
    ]
    told: list[dict[str, object]] = [
        {"role": entry.role, "content": entry.text or None, "tool_calls": calls}
    ]
    told += [{"role": "tool", "tool_call_id": it.id, "content": it.result} for it in entry.calls]
    return told


def content_messages(entry: PromptMessage) -> list[dict[str, object]]:
    """The message as Anthropic's messages take it; an empty text block would be refused."""
    if not entry.calls:
        return [{"role": entry.role, "content": entry.text}]
    text = [{"type": "text", "text": entry.text}] if entry.text.strip() else []
    calls = [
        {"type": "tool_use", "id": it.id, "name": it.name, "input": _input(it.arguments)}
        for it in entry.calls
    ]
    results = [
        {"type": "tool_result", "tool_use_id": it.id, "content": it.result} for it in entry.calls
    ]
    return [
        {"role": entry.role, "content": [*text, *calls]},
        {"role": "user", "content": results},
    ]


def _input(arguments: str) -> dict[str, object]:
    """A call's input: an object, whatever the model wrote."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
