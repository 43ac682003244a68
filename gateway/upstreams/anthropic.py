"""The messages wire of Anthropic, which llama.cpp and some proxies speak too.

POST {host}/v1/messages; the answer is a `text/event-stream` of typed events that ends with
`message_stop`, or one JSON document. Source: Anthropic API reference, "Messages" and "Streaming
messages" (API version 2023-06-01).

`max_tokens` is mandatory and the system prompt stands beside the messages. Usage is cumulative:
the last value counts, and input is what was billed as new, written to and read from the cache.
Tools that the server runs itself (`server_tool_use`) are calls with their results in one stream.
Unknown events and block types are skipped, as the versioning policy asks.
"""

from collections.abc import Mapping
from typing import Final

from gateway.errors import GatewayError, Truncated, UpstreamProtocolError
from gateway.events import (
    CitationFound,
    FinishReason,
    ModelEvent,
    ModelFinished,
    ModerationReported,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
)
from gateway.framing.surrogates import SurrogateJoiner, clean
from gateway.messages import Headers, Prompt, UpstreamRequest, Usage
from gateway.ports.codecs import Decoder
from gateway.upstreams.faults import error_member, fault, retry_after
from gateway.upstreams.told import content_messages
from gateway.upstreams.wire import compact, decoder_for, encode_body, parse

_REASONS: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_INPUT_COUNTS: Final = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)


class Anthropic:
    """The codec (`ports.Upstream`).

    `max_tokens` is sent when the prompt sets no limit. `extra_body` members replace the codec's
    own, and null removes one; `extra_headers` likewise replace by name.
    """

    provider = "anthropic"

    def __init__(
        self,
        *,
        api_key: str | None = None,
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        max_tokens: int = 1024,
        version: str = "2023-06-01",
    ) -> None:
        headers = {
            "accept": "text/event-stream",
            "content-type": "application/json",
            "anthropic-version": version,
        }
        if api_key is not None:
            headers["x-api-key"] = api_key
        headers |= {name.lower(): value for name, value in (extra_headers or {}).items()}
        self._headers = tuple(headers.items())
        self._extra_body = dict(extra_body or {})
        self._max_tokens = max_tokens

    def encode_request(self, prompt: Prompt) -> UpstreamRequest:
        """A streaming call."""
        system = [prompt.system] if prompt.system else []
        messages: list[dict[str, object]] = []
        for entry in prompt.messages:
            if entry.role == "system":
                system.append(entry.text)
            else:
                messages += content_messages(entry)
        body: dict[str, object] = {
            "model": prompt.model,
            "max_tokens": self._max_tokens if prompt.max_tokens is None else prompt.max_tokens,
            "messages": messages,
            "stream": True,
        }
        if system:
            body["system"] = "\n\n".join(system)
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        if prompt.stop:
            body["stop_sequences"] = prompt.stop
        if prompt.tools:
            body["tools"] = [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "input_schema": tool.parameters,
                }
                for tool in prompt.tools
            ]
        return UpstreamRequest("/v1/messages", self._headers, encode_body(body, self._extra_body))

    def decoder(self, content_type: str, *, rounds: int = 0, citations: int = 0) -> Decoder:
        """A decoder for one answer; an answer without a type is taken for a stream.

        Ids of calls are the server's own, so the `rounds` change nothing.
        """
        return decoder_for(content_type, _Message(citations))

    def decode_error(self, status: int, headers: Headers, body: bytes) -> GatewayError:
        """What an answer with another status than 200 means."""
        return fault(status, error_member(body), wait=retry_after(headers))


class _Block:
    """An open content block: its type, and for a tool call its id, name and argument text."""

    __slots__ = ("call_id", "input", "joiner", "name", "pieces", "type")

    def __init__(self, kind: str) -> None:
        self.type = kind
        self.call_id = ""
        self.name = ""
        self.input: object = None
        self.pieces: list[str] = []
        self.joiner = SurrogateJoiner()

    @property
    def arguments(self) -> str:
        text = "".join(self.pieces)
        if text.strip():
            return text
        return text + (compact(self.input) if isinstance(self.input, dict) else "{}")


class _Message:
    """One answer: its events in, model events out."""

    __slots__ = ("_blocks", "_citations", "_count", "_inputs", "_outputs", "_reason", "_server")

    def __init__(self, citations: int) -> None:
        self._count = 0
        self._blocks: dict[int, _Block] = {}
        self._server: dict[str, _Block] = {}
        self._citations = citations
        self._inputs: dict[str, int] = {}
        self._outputs: int | None = None
        self._reason: str | None = None

    @property
    def finishing(self) -> bool:
        """Never: nothing but `message_stop` is a good end."""
        return False

    def event(self, name: str, data: bytes, events: list[ModelEvent]) -> bool:
        """Reads one event; `message_stop` is the end mark."""
        self._count += 1
        if not data.startswith(b"{") and (not data.strip() or data.strip() == b"[DONE]"):
            return False  # some proxies add OpenAI's end mark
        payload, _ = parse(data, self._count)
        kind = payload.get("type")
        if kind == "content_block_delta":
            self._delta(payload, events)
        elif kind == "content_block_start":
            self._start(_index(payload), _member(payload, "content_block"), events)
        elif kind == "content_block_stop":
            self._stop(_index(payload), events)
        elif kind == "message_start":
            self._take_inputs(_member(payload, "message").get("usage"))
        elif kind == "message_delta":
            self._message_delta(payload)
        elif kind == "message_stop":
            self._finish(events)
            return True
        elif kind == "error" or name == "error" or (kind is None and payload.get("error")):
            raise fault(None, payload.get("error") or payload)
        return False

    def whole(self, payload: dict[str, object], events: list[ModelEvent]) -> None:
        """Reads an answer that is one document, whose end needs no mark."""
        if payload.get("type") == "error" or payload.get("error"):
            raise fault(None, payload.get("error"))
        content = payload.get("content")
        if not isinstance(content, list):
            raise UpstreamProtocolError("the answer has no content")
        for index, block in enumerate(content):
            if not isinstance(block, dict):
                raise UpstreamProtocolError("content holds something else than blocks")
            self._start(index, block, events)
            citations = block.get("citations") or []
            if not isinstance(citations, list):
                raise UpstreamProtocolError("citations is no array")
            for citation in citations:
                self._cite(citation, events)
            self._stop(index, events)
        reason = payload.get("stop_reason")
        self._reason = reason if isinstance(reason, str) else None
        self._take_inputs(payload.get("usage"))
        self._take_outputs(payload.get("usage"))
        self._finish(events)

    def end(self, events: list[ModelEvent]) -> None:
        """The end of the bytes, which is too early without `message_stop`."""
        raise Truncated("the stream ended without message_stop")

    def _start(self, index: int, start: Mapping[str, object], events: list[ModelEvent]) -> None:
        kind = start.get("type")
        if not isinstance(kind, str):
            raise UpstreamProtocolError("a content block has no type")
        if index in self._blocks:
            raise UpstreamProtocolError(f"content block {index} is open already")
        block = self._blocks[index] = _Block(kind)
        if kind == "text":
            _say(TextDelta, block, start.get("text"), events)
        elif kind == "thinking":
            _say(ReasoningDelta, block, start.get("thinking"), events)
        elif kind.endswith("tool_use"):
            block.call_id, block.name = _word(start.get("id")), _word(start.get("name"))
            block.input = start.get("input")
            if not block.call_id or not block.name:
                raise UpstreamProtocolError("a tool call has no id or no name")
            events.append(ToolCallStarted(block.call_id, block.name))
        elif kind.endswith("tool_result"):
            self._return(start, events)

    def _delta(self, payload: Mapping[str, object], events: list[ModelEvent]) -> None:
        delta = _member(payload, "delta")
        block = self._blocks.get(_index(payload))
        if block is None:
            raise UpstreamProtocolError("a delta belongs to no open content block")
        kind = delta.get("type")
        if kind == "text_delta":
            _say(TextDelta, block, delta.get("text"), events)
        elif kind == "thinking_delta":
            _say(ReasoningDelta, block, delta.get("thinking"), events)
        elif kind == "input_json_delta":
            piece = delta.get("partial_json")
            if not isinstance(piece, str):
                raise UpstreamProtocolError("partial_json is no text")
            _append(block, block.joiner.feed(piece), events)
        elif kind == "citations_delta":
            self._cite(delta.get("citation"), events)

    def _stop(self, index: int, events: list[ModelEvent]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            raise UpstreamProtocolError(f"content block {index} is not open")
        rest = block.joiner.close()
        if not block.call_id:
            if rest:
                _say(TextDelta if block.type == "text" else ReasoningDelta, block, rest, events)
            return
        if rest:
            _append(block, rest, events)
        if not block.pieces and block.input:
            _append(block, block.arguments, events)
        events.append(ToolCallEnded(block.call_id, block.name, block.arguments))
        if block.type != "tool_use":
            self._server[block.call_id] = block

    def _return(self, start: Mapping[str, object], events: list[ModelEvent]) -> None:
        call = self._server.pop(_word(start.get("tool_use_id")), None)
        if call is None:
            return  # the result of a call in an earlier answer, which nobody waits for
        content = start.get("content")
        failed = start.get("is_error") is True or (
            isinstance(content, dict) and str(content.get("type")).endswith("error")
        )
        result = content if isinstance(content, str) else compact(content)
        events.append(
            ToolReturned(
                call.call_id,
                call.name,
                call.arguments,
                clean(result),
                0,
                "error" if failed else "ok",
            )
        )

    def _cite(self, citation: object, events: list[ModelEvent]) -> None:
        if not isinstance(citation, dict):
            raise UpstreamProtocolError("a citation is no object")
        self._citations += 1
        events.append(
            CitationFound(
                str(self._citations),
                _word(citation.get("url")) or None,
                _word(citation.get("document_title")) or _word(citation.get("title")) or None,
                _word(citation.get("cited_text")) or None,
            )
        )

    def _message_delta(self, payload: Mapping[str, object]) -> None:
        reason = _member(payload, "delta").get("stop_reason")
        if isinstance(reason, str):
            self._reason = reason
        self._take_inputs(payload.get("usage"))
        self._take_outputs(payload.get("usage"))

    def _finish(self, events: list[ModelEvent]) -> None:
        for index in tuple(self._blocks):
            self._stop(index, events)
        # Where the server stopped before its own tool answered, nobody else will run it.
        events.extend(
            ToolReturned(call.call_id, call.name, call.arguments, "", 0, "error")
            for call in self._server.values()
        )
        if self._reason == "refusal":
            events.append(ModerationReported("refusal", True, None))
        usage = None
        if self._outputs is not None and "input_tokens" in self._inputs:
            usage = Usage(sum(self._inputs.values()), self._outputs)
        events.append(ModelFinished(_REASONS.get(self._reason or "", "other"), usage))

    def _take_inputs(self, usage: object) -> None:
        if isinstance(usage, dict):
            for name in _INPUT_COUNTS:
                count = usage.get(name)
                if type(count) is int and count >= 0:
                    self._inputs[name] = count

    def _take_outputs(self, usage: object) -> None:
        # The count in `message_start` is that of the first token only and is not taken.
        count = usage.get("output_tokens") if isinstance(usage, dict) else None
        if type(count) is int and count >= 0:
            self._outputs = count


def _say(
    kind: type[TextDelta] | type[ReasoningDelta],
    block: _Block,
    text: object,
    events: list[ModelEvent],
) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise UpstreamProtocolError(f"the text of a {kind.__name__} is no text")
    whole = block.joiner.feed(text)
    if whole:
        events.append(kind(whole))


def _append(block: _Block, piece: str, events: list[ModelEvent]) -> None:
    if piece:
        block.pieces.append(piece)
        events.append(ToolCallDelta(block.call_id, piece))


def _index(payload: Mapping[str, object]) -> int:
    index = payload.get("index")
    if type(index) is not int:
        raise UpstreamProtocolError("a content block event has no index")
    return index


def _member(payload: Mapping[str, object], name: str) -> dict[str, object]:
    member = payload.get(name)
    if not isinstance(member, dict):
        raise UpstreamProtocolError(f"{name} is no object")
    return member


def _word(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""
