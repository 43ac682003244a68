"""The values of Hyperleap's schemas: choices, citations, moderation results, usage.

Member names and types are those of the vendor's OpenAPI file; all members are there, null where
there is nothing to say. What comes from outside is cut to fit an item of less than 16 KiB.
"""

from collections.abc import Sequence
from typing import Final

from gateway.events import CitationFound, GuardFired, ModerationReported
from gateway.framing.asciijson import PIECE_BYTES, clip, dumps, quote
from gateway.messages import Usage

# Upper bounds inside an item, in bytes of JSON; together with its frame they stay under 16 KiB.
_NAME_BYTES: Final = 512
_TITLE_BYTES: Final = 1024
_LINK_BYTES: Final = 2048
_CITED_BYTES: Final = 4096


def choice_value(
    message: dict[str, object], reason: str | None, moderation: list[object] | None
) -> dict[str, object]:
    """A `GenAiChatChoice`; `message` has the members that are not blank."""
    blank = {"role": "assistant", "content": "", "toolCallId": None, "name": None}
    return {
        "finish_reason": reason,
        "index": 0,
        "message": blank | message,
        "moderation_results": None if moderation is None else {"categoryResults": moderation},
    }


def tool_message(role: str, call_id: str, name: str) -> dict[str, object]:
    """The members of a message that belongs to a tool call."""
    call_id, name = clip(call_id, _NAME_BYTES), clip(name, _NAME_BYTES)
    return {"role": role, "toolCallId": call_id, "name": name}


def usage_value(usage: Usage | None) -> dict[str, int] | None:
    """A `GenAiUsage`, null if the upstream sent none."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def guard_text(event: GuardFired, refusal: str) -> str:
    """What a person reads in place of what the guard kept back; "" if it kept back nothing."""
    if event.action == "escalate":
        return ""
    return (event.replacement or refusal) if event.action == "redirect" else refusal


def guard_value(event: GuardFired) -> dict[str, object]:
    """A `GenAiContentModerationCategoryResult`: the guard's kind, and whether it acted."""
    return _category(event.kind, event.action != "escalate", None)


def moderation_value(event: ModerationReported) -> dict[str, object]:
    """A `GenAiContentModerationCategoryResult`."""
    return _category(event.category, event.filtered, event.severity)


def _category(category: str, filtered: bool, severity: str | None) -> dict[str, object]:
    return {
        "category": clip(category, _NAME_BYTES),
        "filtered": filtered,
        "severity": None if severity is None else clip(severity, _NAME_BYTES),
    }


def citation_value(found: CitationFound) -> dict[str, object]:
    """A `Citation`; only a cited text makes a partition."""
    link, name, cited = found.link, found.source_name, found.cited_text
    if link is not None and len(quote(link)) > _LINK_BYTES:
        link = None  # half an address leads nowhere
    partition = {
        "text": None if cited is None else clip(cited, _CITED_BYTES),
        "relevance": None,
        "partitionNumber": None,
        "sectionNumber": None,
        "lastUpdate": None,
        "tags": None,
    }
    return {
        "link": link,
        "index": found.index,
        "documentId": None,
        "fileId": None,
        "sourceContentType": None,
        "sourceName": None if name is None else clip(name, _TITLE_BYTES),
        "sourceUrl": link,
        "partitions": [] if cited is None else [partition],
    }


def citation_groups(citations: Sequence[CitationFound]) -> list[list[object]]:
    """The citations in order, as many to a group as fit one item; at least one group."""
    groups: list[list[object]] = [[]]
    size = 0
    for found in citations:
        citation = citation_value(found)
        length = len(dumps(citation)) + 1
        if size + length > PIECE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(citation)
        size += length
    return groups
