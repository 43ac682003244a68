"""Every dialect in every framing that its clients can ask for, each with a strict reader of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.dialects import Helper, Hyperleap, Hyponema, Widget
from gateway.messages import DialectOptions
from gateway.ports.codecs import Dialect
from gateway.readers import Reader, helper, hyperleap, hyponema, widget

_PLAIN: Final = DialectOptions()
_TOOLS: Final = DialectOptions(tool_results=True)


@dataclass(frozen=True, slots=True)
class Wire:
    """A dialect in one framing, with the tenant's choices.

    `refusal` reads the body of an answer that failed before its stream began. `states_usage` says
    that the records have the tokens, `trims` that the last one has the text without the white
    space around it, or something in place of an empty one.
    """

    dialect: Dialect
    framing: str
    reader: Callable[[], Reader]
    refusal: Callable[[bytes], str]
    options: DialectOptions = _PLAIN
    states_usage: bool = True
    trims: bool = False

    @property
    def name(self) -> str:
        """What the wire is called in tables."""
        return f"{self.dialect.name} {self.framing}{' +tools' * self.options.tool_results}"


def _hyperleap(framing: str, options: DialectOptions = _PLAIN) -> Wire:
    return Wire(Hyperleap(), framing, hyperleap.READERS[framing], hyperleap.refusal, options)


def _widget(framing: str) -> Wire:
    reader = widget.READERS[framing]
    return Wire(Widget(), framing, reader, widget.refusal, states_usage=False, trims=True)


def _helper(framing: str, options: DialectOptions = _PLAIN) -> Wire:
    return Wire(Helper(), framing, helper.READERS[framing], helper.refusal, options)


WIRES: Final = (
    Wire(Hyponema(), "sse", hyponema.Reader, hyponema.refusal),
    _hyperleap("array"),
    _hyperleap("array", _TOOLS),
    _hyperleap("sse"),
    _hyperleap("ndjson"),
    _hyperleap("one-shot"),
    _widget("ndjson"),
    _widget("one-shot"),
    _helper("data-stream"),
    _helper("data-stream", _TOOLS),
    _helper("data-stream-early"),
    _helper("ui-message-stream"),
)
