"""Fragments of tool calls in, the events of whole calls out, for the chat-completions wire.

The API reference keys fragments by `index`; servers leave it out, repeat it for every call, send
ids and names on every fragment, late or never, and whole calls at once. So a fragment belongs to
the call with its id; without an id, to the one with its index; with neither, to the current one.
A new id, or another name, at a used index is a new call. A name is set once, never joined. A call
is announced when its name is known; a server that sends no id gets one made of the answer's id, if
it sends one, and of the call's place in its round and the round's in its turn.
"""

from collections.abc import Mapping

from gateway.errors import UpstreamProtocolError
from gateway.events import ModelEvent, ToolCallDelta, ToolCallEnded, ToolCallStarted
from gateway.framing.surrogates import SurrogateJoiner, clean
from gateway.upstreams.wire import compact


class _Call:
    __slots__ = ("announced", "id", "joiner", "known_id", "name", "pieces")

    def __init__(self, call_id: str, known_id: str) -> None:
        self.id = call_id
        self.known_id = known_id
        self.name = ""
        self.pieces: list[str] = []
        self.announced = False
        self.joiner = SurrogateJoiner()


class ToolCalls:
    """The calls of one answer, in the order in which they began."""

    __slots__ = ("_by_id", "_by_index", "_calls", "_current", "_rounds")

    def __init__(self, rounds: int = 0) -> None:
        self._rounds = rounds
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._current: _Call | None = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def fragment(self, raw: object, answer_id: object, events: list[ModelEvent]) -> None:
        """Reads one element of `tool_calls`. Raises `UpstreamProtocolError` for a wrong type."""
        if not isinstance(raw, dict):
            raise UpstreamProtocolError("tool_calls holds something else than objects")
        function = raw.get("function") or {}
        if not isinstance(function, dict):
            raise UpstreamProtocolError("a tool call's function is no object")
        index = raw.get("index")
        self._append(
            self._find(_word(raw.get("id")), index if type(index) is int else None, function),
            answer_id,
            function,
            events,
        )

    def legacy(self, raw: object, answer_id: object, events: list[ModelEvent]) -> None:
        """Reads the deprecated `function_call`, of which an answer has at most one."""
        # An index that no server sends keeps its fragments together, however often named.
        self.fragment({"index": -1, "function": raw}, answer_id, events)

    def end(self, events: list[ModelEvent]) -> None:
        """Ends every call. Raises `UpstreamProtocolError` for one that never got a name."""
        for call in self._calls:
            if not call.announced:
                raise UpstreamProtocolError("a tool call has no name")
            rest = call.joiner.close()
            if rest:
                call.pieces.append(rest)
                events.append(ToolCallDelta(call.id, rest))
            arguments = "".join(call.pieces)
            if not arguments.strip():
                arguments += "{}"  # what was already told stays its beginning
            events.append(ToolCallEnded(call.id, call.name, arguments))

    def _find(self, call_id: str, index: int | None, function: Mapping[str, object]) -> _Call:
        if call_id:
            call = self._by_id.get(call_id)
            if call is None and index is not None:
                call = self._by_index.get(index)
                if call is not None and call.known_id:
                    call = None
        elif index is not None:
            call = self._by_index.get(index)
            if call is not None and _renames(call, function):
                call = None
        else:
            call = self._current
            if call is not None and call.name and _word(function.get("name")):
                call = None
        if call is None:
            call = _Call("", call_id)
            self._calls.append(call)
        if call_id:
            call.known_id = call_id
            self._by_id[call_id] = call
        if index is not None:
            self._by_index[index] = call
        self._current = call
        return call

    def _append(
        self,
        call: _Call,
        answer_id: object,
        function: Mapping[str, object],
        events: list[ModelEvent],
    ) -> None:
        piece = call.joiner.feed(_argument_text(function.get("arguments")))
        if piece:
            call.pieces.append(piece)
        if call.announced:
            if piece:
                events.append(ToolCallDelta(call.id, piece))
            return
        call.name = _word(function.get("name"))
        if not call.name:
            return
        call.announced = True
        call.id = call.known_id or self._made_id(call, answer_id)
        events.append(ToolCallStarted(call.id, call.name))
        if call.pieces:
            events.append(ToolCallDelta(call.id, "".join(call.pieces)))

    def _made_id(self, call: _Call, answer_id: object) -> str:
        place = str(self._calls.index(call))
        if self._rounds:
            place = f"{self._rounds}-{place}"
        answer = _word(answer_id)
        return f"{answer}-call-{place}" if answer else f"call-{place}"


def _renames(call: _Call, function: Mapping[str, object]) -> bool:
    name = _word(function.get("name"))
    return bool(name and call.name and name != call.name)


def _word(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def _argument_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, dict):
        return compact(value)
    raise UpstreamProtocolError("a tool call's arguments are neither text nor an object")
