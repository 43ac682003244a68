"""Whether the time of a refusal tells how near a guess came: `python -m tests.bench.guesses`.

Two thousand credentials of each kind, in a random order, against the code that judges them. The
medians should be within five per cent of that of a credential that is like no other.
"""

import gc
import platform
import random
import string
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns
from typing import Final

from gateway.access.admin_keys import AdminKeys, AdminTenant
from gateway.access.keys import KeyRecord, KeyRing, hash_key, new_key
from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.errors import Unauthorized
from gateway.ports.routes import Authenticator

_EACH: Final = 2000
_TENANTS: Final = 50
_NOW: Final = 1_800_000_000
_ALPHABET: Final = string.ascii_letters + string.digits + "-_"
_random: Final = random.Random(14)

Guess = Callable[[str], str]


def _first(secret: str) -> str:
    return _another(secret[0]) + secret[1:]


def _last(secret: str) -> str:
    # The last character of a signature of 32 bytes holds four bits only.
    return secret[:-2] + _another(secret[-2]) + secret[-1]


def _unknown(secret: str) -> str:
    return "".join(_random.choices(_ALPHABET, k=len(secret) - 1)) + secret[-1]


_KINDS: Final[dict[str, Guess]] = {
    "unknown": _unknown,
    "first byte wrong": _first,
    "last byte wrong": _last,
}


def _another(letter: str) -> str:
    return _random.choice(_ALPHABET.replace(letter, ""))


def _microseconds(judge: Authenticator, dialect: str, right: str, fixed: int) -> dict[str, float]:
    """The median of each kind of guess at a credential, whose first `fixed` characters stay."""
    judge.authenticate(right, dialect, now=_NOW)
    kept, secret = right[:fixed], right[fixed:]
    guesses = [(kind, kept + guess(secret)) for kind, guess in _KINDS.items() for _ in range(_EACH)]
    _random.shuffle(guesses)
    taken: dict[str, list[int]] = {kind: [] for kind in _KINDS}
    gc.disable()
    try:
        for kind, guess in guesses:
            began = perf_counter_ns()
            try:
                judge.authenticate(guess, dialect, now=_NOW)
            except Unauthorized:
                taken[kind].append(perf_counter_ns() - began)
    finally:
        gc.enable()
    assert all(len(times) == _EACH for times in taken.values()), "a guess was right"
    return {kind: median(times) / 1000 for kind, times in taken.items()}


def _cases() -> list[tuple[str, Authenticator, str, str, int]]:
    names = [f"tenant{number}" for number in range(_TENANTS)]
    keys = {name: new_key("widget") for name in names}
    ring = KeyRing(
        [KeyRecord(name, "k", hash_key(keys[name]), frozenset({"widget"})) for name in names],
        dict.fromkeys(names, "default"),
    )
    admins = AdminKeys({name: AdminTenant(keys[name], "default") for name in names})
    tokens = SessionTokens(
        {name: HelperTenant((f"{name:x>32}".encode(),), "default") for name in names}
    )
    token = tokens.mint(names[-1], now=_NOW, email="ada@example.com")
    return [
        ("key", ring, "widget", keys[names[-1]], 0),
        ("admin key", admins, "widget", keys[names[-1]], 0),
        ("session token's signature", tokens, "helper", token, token.rindex(".") + 1),
    ]


def main() -> None:
    """Prints the table."""
    print(f"Python {platform.python_version()}, {platform.machine()}; {_EACH} guesses of each kind")
    print(f"{'credential':<28}{'guess':<20}{'median us':>10}{'off':>9}")
    for name, judge, dialect, right, fixed in _cases():
        medians = _microseconds(judge, dialect, right, fixed)
        for kind, took in medians.items():
            off = took / medians["unknown"] - 1
            print(f"{name:<28}{kind:<20}{took:>10.2f}{off:>+9.1%}")


if __name__ == "__main__":
    main()
