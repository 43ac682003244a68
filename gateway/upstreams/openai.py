"""The chat-completions wire, as OpenAI documents it and as other servers speak it.

POST {base URL}/chat/completions; the answer is a `text/event-stream` of chunks that ends with
`data: [DONE]`, or one JSON document from a server that does not stream. Source: OpenAI API
reference, "Chat completions" and "Streaming"; Azure OpenAI, "Content streaming".

What servers do beyond the reference, and is read here:

- usage on a chunk of its own, on the last one, on every one (the last counts), in `choices[0]`,
  or nowhere;
- no `[DONE]`: the end of the stream is good once a `finish_reason` was there, and never before;
- reasoning as `reasoning_content`, as `reasoning`, or as parts of `content`;
- tool calls without index or id, whole, or with everything repeated (`toolcalls.py`);
- errors inside a stream of status 200: an `error` member, an object, an event or a field of that
  name, a `finish_reason` that says that the server gave up;
- Azure's chunks without choices or delta, and its filter that may speak after `stop`.

A refusal is text, a moderation report and the reason `content_filter`. `<think>` stays text.
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
)
from gateway.framing.surrogates import SurrogateJoiner, clean
from gateway.messages import Headers, Prompt, UpstreamRequest, Usage
from gateway.ports.codecs import Decoder
from gateway.upstreams.faults import error_member, fault, retry_after
from gateway.upstreams.told import chat_messages
from gateway.upstreams.toolcalls import ToolCalls
from gateway.upstreams.wire import decoder_for, encode_body, parse

_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
# Of OpenRouter, vLLM and DeepSeek: what was said so far is no whole reply.
_GIVEN_UP: Final = ("error", "abort", "insufficient_system_resource")


class OpenAI:
    """The codec (`ports.Upstream`).

    `extra_body` members replace the codec's own, and null removes one; `extra_headers` likewise
    replace by name. `max_tokens_field` is the request member for the limit of generated tokens,
    which newer OpenAI models want as `max_completion_tokens`.
    """

    provider = "openai"

    def __init__(
        self,
        *,
        api_key: str | None = None,
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        max_tokens_field: str = "max_tokens",
    ) -> None:
        headers = {"accept": "text/event-stream", "content-type": "application/json"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        headers |= {name.lower(): value for name, value in (extra_headers or {}).items()}
        self._headers = tuple(headers.items())
        self._extra_body = dict(extra_body or {})
        self._max_tokens_field = max_tokens_field

    def encode_request(self, prompt: Prompt) -> UpstreamRequest:
        """A streaming call that asks for usage."""
        messages = [told for entry in prompt.messages for told in chat_messages(entry)]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        body: dict[str, object] = {
            "model": prompt.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.max_tokens is not None:
            body[self._max_tokens_field] = prompt.max_tokens
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        if prompt.stop:
            body["stop"] = prompt.stop
        if prompt.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters,
                    },
                }
                for tool in prompt.tools
            ]
        return UpstreamRequest(
            "/chat/completions", self._headers, encode_body(body, self._extra_body)
        )

    def decoder(self, content_type: str, *, rounds: int = 0, citations: int = 0) -> Decoder:
        """A decoder for one answer; an answer without a type is taken for a stream."""
        return decoder_for(content_type, _Completion(rounds, citations))

    def decode_error(self, status: int, headers: Headers, body: bytes) -> GatewayError:
        """What an answer with another status than 200 means."""
        return fault(status, error_member(body), wait=retry_after(headers))


class _Completion:
    """One answer: its chunks in, its events out."""

    __slots__ = (
        "_calls",
        "_citations",
        "_count",
        "_finish",
        "_reasoning",
        "_refused",
        "_reported",
        "_text",
        "_tolerant",
        "_usage",
    )

    def __init__(self, rounds: int, citations: int) -> None:
        self._count = 0
        self._tolerant = False
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._calls = ToolCalls(rounds)
        self._citations = citations
        self._reported: set[str] = set()
        self._refused = False
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None

    @property
    def finishing(self) -> bool:
        """Whether a finish reason was there: usage, a filter's word and the end mark may follow."""
        return self._finish is not None

    def event(self, name: str, data: bytes, events: list[ModelEvent]) -> bool:
        """Reads one chunk, or `[DONE]`, which is the end mark."""
        self._count += 1
        if not data.startswith(b"{"):
            data = data.strip()
            if data == b"[DONE]":
                self.end(events)
                return True
            if not data:
                return False
            if name == "error":
                raise fault(None, None)
        payload, self._tolerant = parse(data, self._count)
        if name == "error" or payload.get("error"):
            raise fault(None, payload.get("error") or payload)
        self._read(payload, "delta", events)
        return False

    def whole(self, payload: dict[str, object], events: list[ModelEvent]) -> None:
        """Reads an answer that is one document, whose end needs no mark."""
        if payload.get("error"):
            raise fault(None, payload["error"])
        if not payload.get("choices"):
            raise UpstreamProtocolError("the answer has no choices")
        self._tolerant = True
        self._read(payload, "message", events)
        self._finish = self._finish or "other"
        self.end(events)

    def end(self, events: list[ModelEvent]) -> None:
        """The end mark, or the end of the bytes: good if a finish reason was there."""
        reason = self._finish
        if reason is None:
            raise Truncated("the stream ended without a finish_reason")
        for joiner, kind in ((self._reasoning, ReasoningDelta), (self._text, TextDelta)):
            rest = joiner.close()
            if rest:
                events.append(kind(rest))
        self._calls.end(events)
        if self._refused:
            reason = "content_filter"
        elif self._calls and reason == "stop":
            # A call that the request forced is finished with "stop".
            reason = "tool_calls"
        events.append(ModelFinished(reason, self._usage))

    def _read(self, payload: dict[str, object], member: str, events: list[ModelEvent]) -> None:
        choices = payload.get("choices")
        if choices:
            if not isinstance(choices, list):
                raise UpstreamProtocolError("choices is no array")
            for choice in choices:
                if not isinstance(choice, dict):
                    raise UpstreamProtocolError("choices holds something else than objects")
                if not choice.get("index"):  # one was asked for; others are not this reply
                    self._choice(choice, member, payload, events)
        elif payload.get("object") == "error":
            raise fault(None, payload)
        if usage := payload.get("usage"):
            self._take_usage(usage)
        for name in ("prompt_filter_results", "prompt_annotations"):
            if results := payload.get(name):
                self._prompt_filters(results, events)

    def _choice(
        self,
        choice: dict[str, object],
        member: str,
        payload: dict[str, object],
        events: list[ModelEvent],
    ) -> None:
        delta = choice.get(member)
        if delta:
            if not isinstance(delta, dict):
                raise UpstreamProtocolError(f"{member} is no object")
            self._delta(delta, payload, events)
        if results := choice.get("content_filter_results"):
            self._filters(results, events)
        if usage := choice.get("usage"):
            self._take_usage(usage)
        if reason := choice.get("finish_reason"):
            if reason in _GIVEN_UP:
                raise fault(None, choice.get("error") or {"code": reason})
            # An asynchronous filter may overrule a finish that was already sent.
            if self._finish is None or reason == "content_filter":
                self._finish = _REASONS.get(reason, "other") if isinstance(reason, str) else "other"

    def _delta(
        self, delta: dict[str, object], payload: dict[str, object], events: list[ModelEvent]
    ) -> None:
        content = delta.get("content")
        if len(delta) > 1 or content is None:
            self._beside_content(delta, payload, events, content)
        elif isinstance(content, str):
            self._say(content, events)
        else:
            self._parts(content, events)

    def _beside_content(
        self,
        delta: dict[str, object],
        payload: dict[str, object],
        events: list[ModelEvent],
        content: object,
    ) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str):
            self._think(thought, events)
        if isinstance(content, str):
            self._say(content, events)
        elif content is not None:
            self._parts(content, events)
        if refusal := delta.get("refusal"):
            self._refuse(refusal, events)
        if calls := delta.get("tool_calls"):
            if not isinstance(calls, list):
                raise UpstreamProtocolError("tool_calls is no array")
            for raw in calls:
                self._calls.fragment(raw, payload.get("id"), events)
        elif legacy := delta.get("function_call"):
            self._calls.legacy(legacy, payload.get("id"), events)
        if annotations := delta.get("annotations"):
            self._annotations(annotations, events)

    def _say(self, text: str, events: list[ModelEvent]) -> None:
        if self._tolerant or self._text.held or "\0" in text:
            text = self._text.feed(text)
        if text:
            events.append(TextDelta(text))

    def _think(self, text: str, events: list[ModelEvent]) -> None:
        text = self._reasoning.feed(text)
        if text:
            events.append(ReasoningDelta(text))

    def _parts(self, content: object, events: list[ModelEvent]) -> None:
        if not isinstance(content, list):
            raise UpstreamProtocolError("content is neither text nor an array of parts")
        for part in content:
            if not isinstance(part, dict):
                raise UpstreamProtocolError("content holds something else than parts")
            if isinstance(text := part.get("text"), str):
                self._say(text, events)
            elif refusal := part.get("refusal"):
                self._refuse(refusal, events)
            elif isinstance(thought := part.get("thinking"), str):
                self._think(thought, events)
            elif isinstance(thought, list):
                for piece in thought:
                    if isinstance(piece, dict) and isinstance(text := piece.get("text"), str):
                        self._think(text, events)

    def _refuse(self, refusal: object, events: list[ModelEvent]) -> None:
        if not isinstance(refusal, str):
            raise UpstreamProtocolError("refusal is no text")
        if not self._refused:
            self._refused = True
            events.append(ModerationReported("refusal", True, None))
        self._say(refusal, events)

    def _annotations(self, annotations: object, events: list[ModelEvent]) -> None:
        if not isinstance(annotations, list):
            raise UpstreamProtocolError("annotations is no array")
        for annotation in annotations:
            source = annotation.get("url_citation") if isinstance(annotation, dict) else None
            if isinstance(source, dict):
                self._citations += 1
                link, title = _text(source.get("url")), _text(source.get("title"))
                events.append(CitationFound(str(self._citations), link, title, None))

    def _prompt_filters(self, results: object, events: list[ModelEvent]) -> None:
        if not isinstance(results, list):
            raise UpstreamProtocolError("prompt_filter_results is no array")
        for entry in results:
            if isinstance(entry, dict):
                self._filters(entry.get("content_filter_results"), events)

    def _filters(self, results: object, events: list[ModelEvent]) -> None:
        if not isinstance(results, dict):
            return
        for category, verdict in results.items():
            if not isinstance(verdict, dict) or verdict.get("filtered") is not True:
                continue
            if category not in self._reported:
                self._reported.add(category)
                severity = _text(verdict.get("severity"))
                events.append(ModerationReported(clean(category), True, severity))

    def _take_usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if type(prompt) is int and type(completion) is int and min(prompt, completion) >= 0:
                self._usage = Usage(prompt, completion)


def _text(value: object) -> str | None:
    return clean(value) if isinstance(value, str) else None
