"""Readers: small clients, each written from a vendor's document and not from the encoder.

`tests/readers/<dialect>.py` has one class `Reader`, or one per framing in a dict
`READERS: dict[str, type[Reader]]` from the word of the framing to the class.
"""

from typing import Protocol


class Reader(Protocol):
    """A response body in, what a user of the vendor's client would see out.

    `text` is the whole text shown, `terminals` has "ok" or "error" for every terminal record,
    `records` what was parsed, in order. Any split of the body gives the same.
    """

    text: str
    terminals: list[str]
    records: list[object]

    def feed(self, chunk: bytes) -> None: ...

    def close(self) -> None: ...
