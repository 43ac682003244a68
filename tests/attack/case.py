"""What a case is, and the register that the modules of cases write themselves into."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.attack.site import Site

Run = Callable[[Site, bool], Awaitable[list[str]]]

CASES: Final[dict[str, "Case"]] = {}


@dataclass(frozen=True, slots=True)
class Case:
    """One attack: `run(site, full)` gives what went wrong, in words; nothing if all is well.

    `fails_on_stock` says that the plain application on stock Hypercorn does not survive it.
    `long` ones run only when asked for. Those with `alone` start sites of their own, so that the
    good client of the common one has nothing to judge. One that mostly `waits` runs beside those.
    `faults` may be logged during it.
    """

    name: str
    what: str
    run: Run
    fails_on_stock: bool = False
    long: bool = False
    alone: bool = False
    waits: bool = False
    faults: bool = False


def case(
    name: str,
    what: str,
    *,
    fails_on_stock: bool = False,
    long: bool = False,
    alone: bool = False,
    waits: bool = False,
    faults: bool = False,
) -> Callable[[Run], Run]:
    """Registers a case under its name."""

    def register(run: Run) -> Run:
        assert name not in CASES
        CASES[name] = Case(name, what, run, fails_on_stock, long, alone, waits, faults)
        return run

    return register


def expect(wrong: list[str], good: bool, what: str) -> bool:
    """Notes what is wrong unless it is good."""
    if not good:
        wrong.append(what)
    return good
