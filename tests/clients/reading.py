"""The bytes of an answer, as somebody who reads them with a JSON parser understands them.

For clients that hand over what they received: curl, HTTP libraries, browsers' `fetch`. Each wire's
records are taken apart as its document says, and their members become facts (`wires.Seen`).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tests.clients.wires import Seen

Record = dict[str, object]


def read(wire: str, status: int, body: bytes) -> Seen:
    """What an answer with that status and body shows."""
    if status != 200:
        text = body.decode(errors="replace")
        return {"status": status, "text": "", "error": text, "streamed": ""}
    try:
        seen = _SEEN[wire](body)
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        return {"crashed": f"{error!r} in {body[:2000]!r}"}
    return {**seen, "status": status, "kept_alive": _kept_alive(wire, body)}


def from_events(wire: str, events: Sequence[tuple[str, str]]) -> Seen:
    """What server-sent events (name, data) show on a wire that has them."""
    try:
        return _from_events(wire, events)
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        return {"crashed": f"{error!r} in {events[:20]!r}"}


def _from_events(wire: str, events: Sequence[tuple[str, str]]) -> Seen:
    if wire == "hyponema":
        return _hyponema([(name, _record(data)) for name, data in events])
    if wire == "hyperleap":
        return _hyperleap([_record(data) for _, data in events])
    *chunks, last = [data for _, data in events]
    seen = _ui_messages([_record(data) for data in chunks])
    return seen if last == "[DONE]" else seen | {"error": "no [DONE]"}


def _kept_alive(wire: str, body: bytes) -> bool:
    if wire == "hyperleap":
        return b"\n" in body
    if wire in ("hyponema", "helper v5"):
        return body.startswith(b": ") or b"\n\n: " in body
    return body.startswith(b"\n") or b"\n\n" in body


def _record(text: str | bytes) -> Record:
    value = json.loads(text)
    assert isinstance(value, dict), text
    return value


def _events(body: bytes) -> list[tuple[str, str]]:
    events = []
    for block in body.decode("ascii").split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            events.append((fields.get("event", "message"), fields["data"]))
    return events


def _lines(body: bytes) -> list[str]:
    return [line for line in body.decode("ascii").split("\n") if line]


def _hyponema(events: Iterable[tuple[str, Record]]) -> Seen:
    seen: Seen = {"text": "", "calls": [], "usage": None, "error": "no terminal event"}
    calls: dict[str, list[object]] = {}
    names = []
    for name, data in events:
        names.append(name)
        if name == "token":
            seen["text"] = f"{seen['text']}{data['text']}"
        elif name == "tool_call":
            calls[str(data["call_id"])] = [data["name"], str(data["arguments_partial"])]
        elif name == "turn_end":
            seen |= {"usage": _usage(data, "prompt_tokens", "completion_tokens"), "error": None}
        elif name == "error":
            seen["error"] = f"{data['error_kind']}: {data['detail']}"
    seen["calls"] = [[name, json.loads(str(text) or "{}")] for name, text in calls.values()]
    if names.count("turn_end") + names.count("error") != 1 or names[:1] != ["turn_start"]:
        seen["error"] = f"events {names}"
    return seen


def _hyperleap(items: Iterable[Record]) -> Seen:
    text, reason, usage, sources, calls = "", None, None, [], []
    for item in items:
        choice = item["choice"]
        assert isinstance(choice, dict)
        assert reason is None, "an item after the last"
        message = choice["message"]
        if message["toolCallId"] is not None:
            calls.append([message["name"], None])
        text += message["content"]
        reason = choice["finish_reason"]
        found = item["citations"] or []
        assert isinstance(found, list)
        sources += [[source["link"], source["sourceName"]] for source in found]
        if item["usage"] is not None:
            usage = _usage(item["usage"], "prompt_tokens", "completion_tokens")
    error = None if reason in ("stop", "tool_calls") else str(reason)
    facts = {"usage": usage, "sources": sources, "calls": calls, "reason": reason}
    return {"text": text, "error": error, **facts}


def _array(body: bytes) -> Seen:
    items = json.loads(body)
    assert isinstance(items, list)
    return _hyperleap(items)


def _widget(body: bytes) -> Seen:
    start, *events, last = [_record(line) for line in _lines(body)]
    assert start["type"] == "start"
    assert all(event["type"] == "token" for event in events), "an unknown event"
    streamed = "".join(str(event["token"]) for event in events)
    if last["type"] == "error":
        return {"text": streamed, "streamed": streamed, "error": last["error"]}
    assert last["type"] == "done"
    assert last["conversationId"] == start["conversationId"]
    return {"text": last["message"], "streamed": streamed, "error": None}


def _data_stream(body: bytes) -> Seen:
    parts = [(line[0], json.loads(line[2:])) for line in _lines(body)]
    said: dict[str, list[object]] = {code: [] for code in "0g9h3de8f"}
    for code, value in parts:
        said[code].append(value)
    (end,) = said["d"]
    text = "".join(map(str, said["0"]))
    if said["3"]:
        return {"text": text, "error": said["3"][0]}
    assert isinstance(end, dict)
    return {
        "text": text,
        "error": None,
        "reasoning": "".join(map(str, said["g"])),
        "calls": [[call["toolName"], call["args"]] for call in _records(said["9"])],
        "sources": [[source["url"], source["title"]] for source in _records(said["h"])],
        "usage": _usage(end.get("usage"), "promptTokens", "completionTokens"),
        "reason": end["finishReason"],
    }


def _ui_messages(chunks: Iterable[Record]) -> Seen:
    kinds: dict[object, list[Record]] = {}
    for chunk in chunks:
        kinds.setdefault(chunk["type"], []).append(chunk)
    text = "".join(str(chunk["delta"]) for chunk in kinds.get("text-delta", []))
    if "error" in kinds:
        return {"text": text, "error": kinds["error"][0]["errorText"]}
    (finish,) = kinds.get("finish", [{}])
    metadata = finish.get("messageMetadata")
    assert isinstance(metadata, dict), "no finish"
    thought = [str(chunk["delta"]) for chunk in kinds.get("reasoning-delta", [])]
    calls = kinds.get("tool-input-available", [])
    return {
        "text": text,
        "error": None,
        "reasoning": "".join(thought),
        "calls": [[call["toolName"], call["input"]] for call in calls],
        "sources": [[source["url"], source["title"]] for source in kinds.get("source-url", [])],
        "usage": _usage(metadata.get("usage"), "promptTokens", "completionTokens"),
        "reason": metadata["finishReason"],
    }


def _records(values: Iterable[object]) -> list[Record]:
    return [value for value in values if isinstance(value, dict)]


def _usage(value: object, first: str, second: str) -> object:
    if not isinstance(value, dict) or value.get(first) is None:
        return None
    return [value[first], value[second]]


_SEEN: Final[dict[str, Callable[[bytes], Seen]]] = {
    "hyponema": lambda body: _hyponema((name, _record(data)) for name, data in _events(body)),
    "hyperleap": _array,
    "widget": _widget,
    "helper v4": _data_stream,
    "helper v5": lambda body: _from_events("helper v5", _events(body)),
}
