import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from random import Random

from structlog.testing import capture_logs

from gateway.errors import Overloaded
from gateway.turn.pressure import FEW, LATE_S, TICK_S, Pressure

CAPACITY = 600.0
ROUNDS = 10  # how often a turn is at work before it ends


class Loop:
    """An event loop that ends up to `CAPACITY` turns a second and is late when more are running."""

    def __init__(self) -> None:
        self.running = 0
        self.pressure = Pressure(lambda: self.running)
        self.asked: Counter[str] = Counter()
        self.let_in: Counter[str] = Counter()
        self.ended = 0.0
        self.due: dict[str, float] = {}
        self._random = Random(1)

    def run(self, seconds: float, rates: Mapping[str, float]) -> "Loop":
        """So many turns a second of each tenant; what was counted before is forgotten."""
        self.asked.clear()
        self.let_in.clear()
        self.ended = 0.0
        while seconds > 0:
            late_s = self.running / CAPACITY / ROUNDS
            passed_s = TICK_S + late_s
            coming: list[str] = []
            for tenant, rate in rates.items():
                whole, self.due[tenant] = divmod(self.due.get(tenant, 0.0) + rate * passed_s, 1)
                coming += [tenant] * int(whole)
            self._random.shuffle(coming)
            for tenant in coming:
                self.ask(tenant)
            ended = min(int(self.running), round(CAPACITY * passed_s))
            self.running -= ended
            self.ended += ended
            for _ in range(ended):
                self.pressure.ended()
            self.pressure.tick(passed_s, late_s)
            seconds -= passed_s
        return self

    def ask(self, tenant: str) -> bool:
        """One request; whether it was let in."""
        self.asked[tenant] += 1
        if self.pressure.shedding:
            try:
                self.pressure.admit(tenant)
            except Overloaded:
                return False
        self.let_in[tenant] += 1
        self.pressure.began()
        self.running += 1
        return True


def test_everything_is_let_in_while_the_loop_keeps_up() -> None:
    loop = Loop().run(5, {"acme": 0.8 * CAPACITY})
    assert loop.let_in == loop.asked
    assert not loop.pressure.shedding


def test_three_times_what_can_be_done_leaves_the_loop_busy_and_hardly_late() -> None:
    loop = Loop()
    loop.run(3, {"acme": 3 * CAPACITY})
    loop.run(10, {"acme": 3 * CAPACITY})
    assert loop.ended > 0.85 * 10 * CAPACITY
    assert loop.running < 0.5 * CAPACITY


def test_a_flooding_tenant_is_refused_and_the_others_are_not() -> None:
    others = {f"tenant-{number}": 20.0 for number in range(9)}
    loop = Loop()
    loop.run(2, others)
    loop.run(10, others | {"flood": 2 * CAPACITY})
    assert all(loop.let_in[tenant] >= 0.99 * loop.asked[tenant] for tenant in others)
    assert loop.let_in["flood"] > 0.7 * 10 * (CAPACITY - 180)
    assert loop.let_in["flood"] < 0.5 * loop.asked["flood"]


def test_tenants_that_all_ask_too_much_get_the_same() -> None:
    tenants = {f"tenant-{number}": CAPACITY * (1 + number) for number in range(5)}
    loop = Loop()
    loop.run(3, tenants)
    loop.run(10, tenants)
    least, most = min(loop.let_in.values()), max(loop.let_in.values())
    assert most <= 1.5 * least


def test_a_tenant_that_only_now_comes_is_let_in_under_pressure() -> None:
    loop = Loop().run(3, {"flood": 3 * CAPACITY})
    assert loop.pressure.shedding
    assert loop.ask("newcomer")


def test_all_is_let_in_again_within_seconds_of_the_flood() -> None:
    loop = Loop().run(5, {"flood": 3 * CAPACITY})
    loop.run(4, {"acme": 0.5 * CAPACITY})
    assert not loop.pressure.shedding
    loop.run(1, {"acme": 0.8 * CAPACITY})
    assert loop.let_in == loop.asked


def test_a_loop_that_is_late_with_few_turns_refuses_nobody() -> None:
    pressure = Pressure(lambda: FEW - 1)
    for _ in range(20):
        pressure.tick(TICK_S + 10 * LATE_S, 10 * LATE_S)
        for _ in range(100):
            pressure.admit("acme")


def test_only_a_pressure_that_refuses_somebody_is_logged() -> None:
    with capture_logs() as told:
        turns = [FEW - 1]
        pressure = Pressure(lambda: turns[-1])
        for running, events in ((FEW - 1, []), (1000, ["shedding", "shedding_ended"])):
            turns.append(running)
            for _ in range(20):
                pressure.tick(TICK_S + 2 * LATE_S, 2 * LATE_S)
                for _ in range(100):
                    with suppress(Overloaded):
                        pressure.admit("acme")
            for _ in range(100):
                pressure.tick(TICK_S, 0.0)
            assert [line["event"] for line in told] == events


def test_one_late_moment_refuses_nobody() -> None:
    pressure = Pressure(lambda: 1000)
    pressure.tick(TICK_S + 100 * LATE_S, 100 * LATE_S)
    assert not pressure.shedding


def test_a_loop_in_which_no_turn_ever_ends_lets_a_few_in() -> None:
    pressure = Pressure(lambda: 1000)
    let_in = 0
    for _ in range(100):
        pressure.tick(TICK_S + 2 * LATE_S, 2 * LATE_S)
        for _ in range(20):
            try:
                pressure.admit("acme")
            except Overloaded:
                continue
            let_in += 1
    assert 5 <= let_in <= 200


async def test_a_loop_that_is_blocked_is_seen_to_be_late() -> None:
    lags: list[float] = []

    class Noting(Pressure):
        def tick(self, passed_s: float, late_s: float) -> None:
            lags.append(late_s)

    with Noting(lambda: 0).measuring():
        await asyncio.sleep(0)
        time.sleep(0.2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert max(lags) > 0.1


def test_many_tenants_that_ask_rarely_are_too_many_together() -> None:
    tenants = {f"tenant-{number}": 1.4 for number in range(1000)}
    loop = Loop()
    loop.due |= {tenant: number / 1000 for number, tenant in enumerate(tenants)}
    loop.run(5, tenants)
    loop.run(20, tenants)
    assert loop.running < CAPACITY
    assert loop.let_in.total() > 0.7 * 20 * CAPACITY


def test_a_burst_of_one_that_mostly_asks_nothing_is_no_way_in() -> None:
    loop = Loop().run(3, {"flood": 3 * CAPACITY})
    before = loop.let_in["burst"]
    for _ in range(2500):
        loop.ask("burst")
    assert loop.let_in["burst"] - before <= 0.2 * CAPACITY
    assert loop.let_in["burst"] >= FEW


def test_a_loop_that_stays_late_for_another_reason_goes_on_letting_turns_in() -> None:
    loop = Loop().run(5, {"acme": 0.8 * CAPACITY})
    let_in = 0
    for _ in range(1500):
        for _ in range(40):
            if loop.pressure.shedding:
                try:
                    loop.pressure.admit("acme")
                except Overloaded:
                    continue
            loop.pressure.began()
            loop.pressure.ended()
            let_in += 1
        loop.running = 200
        loop.pressure.tick(TICK_S + 2 * LATE_S, 2 * LATE_S)
    seconds = 1500 * (TICK_S + 2 * LATE_S)
    assert let_in / seconds > 0.08 * CAPACITY
