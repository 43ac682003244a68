"""Streams of model servers, as bytes: chat completions of OpenAI, messages of Anthropic."""

from collections.abc import Iterable

import orjson


def sse(data: object, *, event: str = "") -> bytes:
    """One server-sent event; data that is not bytes is sent as JSON."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def openai_chunk(
    delta: dict[str, object] | None = None, *, finish: str | None = None, **members: object
) -> bytes:
    """One chunk of a chat completion as an event; `members` stand beside `choices`."""
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    chunk: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1753357673,
        "model": "some-model",
        "choices": [choice],
    }
    return sse(chunk | members)


def openai_stream(
    texts: Iterable[str],
    *,
    usage: tuple[int, int] | None = (12, 3),
    finish: str | None = "stop",
    calls: Iterable[tuple[str, str, str]] = (),
    done: bool = True,
) -> list[bytes]:
    """A chat completion's events: a delta a text, then the tool calls (id, name, arguments)."""
    events = [openai_chunk({"role": "assistant", "content": ""})]
    events += [openai_chunk({"content": text}) for text in texts]
    for index, (call_id, name, arguments) in enumerate(calls):
        first = {"index": index, "id": call_id, "type": "function"}
        events.append(
            openai_chunk({"tool_calls": [first | {"function": {"name": name, "arguments": ""}}]})
        )
        rest = {"index": index, "function": {"arguments": arguments}}
        events.append(openai_chunk({"tool_calls": [rest]}))
    if finish is not None:
        events.append(openai_chunk(finish=finish))
    if usage is not None:
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        events.append(openai_chunk(choices=[], usage=counts | {"total_tokens": sum(usage)}))
    if done:
        events.append(sse(b"[DONE]"))
    return events


def anthropic_stream(
    texts: Iterable[str], *, usage: tuple[int, int] = (12, 3), stop_reason: str = "end_turn"
) -> list[bytes]:
    """A message's events: one text block, a delta a text."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "some-model",
        "content": [],
        "usage": {"input_tokens": usage[0], "output_tokens": 1},
    }
    block = {"index": 0, "content_block": {"type": "text", "text": ""}}
    bodies: list[dict[str, object]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", **block},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in texts
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason},
            "usage": {"output_tokens": usage[1]},
        },
        {"type": "message_stop"},
    ]
    return [sse(body, event=str(body["type"])) for body in bodies]
