"""Words planted in every secret and, where a test wants it, in what people and models say.

None of them may come out where operators or strangers read: in a log line, a scrape, or the
answer to a request that failed. `GatewayProcess` and `whole` look at all of those, in every test.
"""

from typing import Final

CANARY: Final = "c4n4ry"
"""Part of every key, session secret, upstream key and system prompt of the tests."""
UPSTREAM_WORDS: Final = "upstream says"
"""Part of every error that a scripted model answers with."""

_tokens: set[str] = set()


def plant_token(token: str) -> str:
    """Remembers a session token, whose encoding hides every word in it."""
    _tokens.add(token.rpartition(".")[2])
    return token


def found_in(text: str) -> list[str]:
    """What was planted and is in the text."""
    words = [word for word in (CANARY, UPSTREAM_WORDS) if word in text]
    return words + [token for token in _tokens if token in text]
