"""Attacks a gateway on loopback, and judges how it takes it.

    python -m tests.attack [--all] [--stock [--write]] [CASE…]

Short cases run unless `--all` asks for the long ones too. A good client chats beside every case:
what does not complete for it is the case's failure, and so is what the gateway holds afterwards
above its base (turns, calls of the model, descriptors, tasks). `--stock` runs the cases against
the gateway and against stock Hypercorn with a plain application, and ends with 0 only if each
case that is known to break the latter breaks it, and none the gateway: so the cases bite.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.attack import early, floods, idle, leaving, odd, readers, starts, stops
from tests.attack.case import CASES, Case
from tests.attack.good import GoodClient, p99_ms, warmed
from tests.attack.site import Held, Kind, Site, open_site

MODULES = (early, leaving, readers, idle, floods, odd, stops, starts)
README: Final = Path(__file__).parents[2] / "README.md"
BEGIN: Final = "<!-- attacks -->"
END: Final = "<!-- end of attacks -->"
_CASE_S = 60.0
_LONG_CASE_S = 200.0
_TOGETHER = 3


@dataclass
class Result:
    """What a case came to on one kind of site; `p99_ms` is the good client's."""

    case: Case
    kind: Kind
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    p99_ms: float = 0.0
    turns: int = 0

    @property
    def good(self) -> bool:
        """Whether the site took it well."""
        return not self.wrong


class Arena:
    """One site for case after case; a new one after a case that it did not take well."""

    def __init__(self, kind: Kind, full: bool) -> None:
        self._kind: Kind = kind
        self._full = full
        self._stack = contextlib.AsyncExitStack()
        self._site: Site | None = None
        self._base = Held(0, 0)

    async def run(self, case: Case) -> Result:
        """One case, with all that is judged around it."""
        result = Result(case, self._kind)
        site = await self.open()
        good = GoodClient(site)
        began = time.monotonic()
        result.wrong += await self.attacked(case, site)
        result.seconds = time.monotonic() - began
        result.wrong += await good.stop()
        result.p99_ms, result.turns = p99_ms(good.seconds), len(good.seconds)
        result.wrong += await self._aftermath(case, site)
        if result.wrong:
            await self.close()
        return result

    async def run_alone(self, case: Case) -> Result:
        """A case that starts, judges and ends sites of its own."""
        result = Result(case, self._kind)
        began = time.monotonic()
        result.wrong += await self.attacked(case, await self.open())
        result.seconds = time.monotonic() - began
        return result

    async def close(self) -> None:
        """Ends the site."""
        self._site = None
        await self._stack.aclose()

    async def open(self) -> Site:
        """The site, which is started if there is none."""
        if self._site is None:
            self._site = await self._stack.enter_async_context(
                open_site(self._kind, tls=self._kind == "ours")
            )
            self._base = await warmed(self._site)
        return self._site

    async def attacked(self, case: Case, site: Site) -> list[str]:
        """What the case says is wrong; an attack that breaks off is itself a finding."""
        try:
            async with asyncio.timeout(_LONG_CASE_S if self._full else _CASE_S):
                return await case.run(site, self._full)
        except TimeoutError as error:
            return [f"it did not come to an end: {error!r}"]
        except Exception as error:
            return [f"it broke off: {error!r}"]

    async def _aftermath(self, case: Case, site: Site) -> list[str]:
        try:
            wrong = await site.leaks(self._base)
        except Exception as error:
            wrong = [f"nothing is left to be measured: {error!r}"]
        site.model.forget()
        faults = site.faults()
        return wrong if case.faults else wrong + faults[:2]


@contextlib.asynccontextmanager
async def _arena(kind: Kind, full: bool) -> AsyncIterator[Arena]:
    arena = Arena(kind, full)
    try:
        yield arena
    finally:
        await arena.close()


def _show(result: Result) -> None:
    mark = "ok  " if result.good else "FAIL"
    beside = f"p99 {result.p99_ms:4.0f} ms of {result.turns} turns" if result.turns else ""
    took = f"{result.seconds:5.1f} s"
    print(f"{mark} {result.case.name:<6} {result.case.what:<66} {took}  {beside}", flush=True)
    for wrong in result.wrong:
        print(f"     {wrong[:400]}", flush=True)


async def attack(cases: Sequence[Case], *, full: bool) -> int:
    """Runs the cases against the gateway; the exit status.

    One after the other, then those that mostly wait or start sites of their own, a few at a time.
    """
    results: list[Result] = []
    began = time.monotonic()
    together = asyncio.Semaphore(_TOGETHER)

    async def in_turn(arena: Arena, chosen: Sequence[Case]) -> None:
        for case in chosen:
            results.append(await arena.run(case))
            _show(results[-1])

    async def beside(arena: Arena, case: Case) -> None:
        async with together:
            results.append(await arena.run_alone(case))
            _show(results[-1])

    async with _arena("ours", full) as arena:
        await in_turn(arena, [case for case in cases if not (case.alone or case.waits)])
    async with _arena("ours", full) as arena:
        alone = [case for case in cases if case.alone]
        if alone:
            await arena.open()
        await asyncio.gather(
            in_turn(arena, [case for case in cases if case.waits]),
            *(beside(arena, case) for case in alone),
        )
    bad = sum(not result.good for result in results)
    seconds = time.monotonic() - began
    print(f"attack: {len(results) - bad} passed, {bad} failed, {seconds:.0f} s")
    return int(bad > 0)


async def compare(cases: Sequence[Case], *, full: bool, write: bool) -> int:
    """Runs the cases against both; the exit status. With `write` the README gets the table."""
    lines = [
        "| case | what is done | stock | ours | seconds, stock and ours |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    found: list[str] = []
    async with _arena("stock", full) as stock, _arena("ours", full) as ours:
        for case in cases:
            run = Arena.run_alone if case.alone else Arena.run
            theirs, own = await run(stock, case), await run(ours, case)
            took = f"{theirs.seconds:.0f}, {own.seconds:.0f}"
            judged = [("passes" if each.good else "fails") for each in (theirs, own)]
            lines.append(f"| {case.name} | {case.what} | {' | '.join(judged)} | {took} |")
            print(lines[-1], flush=True)
            if case.fails_on_stock and theirs.good:
                found.append(f"{case.name} does not bite: stock Hypercorn passes")
            found += [f"{case.name}: {wrong}" for wrong in own.wrong]
            for wrong in theirs.wrong:
                print(f"{case.name} stock: {wrong}", file=sys.stderr, flush=True)
    for each in found:
        print(each, flush=True)
    if write and not found:
        before, _, rest = README.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text("\n".join([before + BEGIN, "", *lines, "", END]) + after)
    return int(bool(found))


def main() -> int:
    """The exit status."""
    arguments = argparse.ArgumentParser(prog="python -m tests.attack")
    arguments.add_argument("--all", action="store_true", help="the long cases and clocks too")
    arguments.add_argument("--stock", action="store_true", help="stock Hypercorn beside it")
    arguments.add_argument("--write", action="store_true", help="with --stock: into the README")
    arguments.add_argument("cases", nargs="*", metavar="CASE", help="only these")
    chosen = arguments.parse_args()
    unknown = set(chosen.cases) - set(CASES)
    if unknown:
        arguments.error(f"no such case: {', '.join(sorted(unknown))}")
    if chosen.cases:
        cases = [CASES[name] for name in chosen.cases]
    elif chosen.stock:
        cases = [case for case in CASES.values() if case.fails_on_stock]
    else:
        cases = [c for c in CASES.values() if chosen.all or not c.long]
    cases.sort(key=lambda case: case.name)
    if chosen.stock:
        return asyncio.run(compare(cases, full=chosen.all, write=chosen.write))
    return asyncio.run(attack(cases, full=chosen.all))


if __name__ == "__main__":
    sys.exit(main())
