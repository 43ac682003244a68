"""Text without lone surrogates and without U+0000, whatever an upstream sent.

Two JSON escapes of one character may arrive in two deltas (RFC 8259 section 7): a `SurrogateJoiner`
keeps the first half back until the second is there. A half that stays alone becomes U+FFFD, for it
has no UTF-8 form (RFC 3629 section 3). So does U+0000, which stores and C strings cannot hold.
"""

_REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """The text with its surrogate pairs joined, lone halves and U+0000 replaced by U+FFFD."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", _REPLACEMENT)


class SurrogateJoiner:
    """Pieces of one text in, clean pieces out; `held` is a first half that waits for its second."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = ""

    def feed(self, piece: str) -> str:
        """The clean text that is complete with this piece, perhaps empty."""
        if not self.held and piece.isascii() and "\0" not in piece:
            return piece
        text = self.held + piece
        self.held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self.held = text[-1]
            text = text[:-1]
        return clean(text)

    def close(self) -> str:
        """U+FFFD if a first half was still waiting, else nothing."""
        lone = self.held
        self.held = ""
        return _REPLACEMENT if lone else ""
