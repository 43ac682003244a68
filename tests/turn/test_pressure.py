import asyncio
import time

from gateway.errors import Overloaded
from gateway.turn.pressure import LATE_S, Pressure

LATE = LATE_S * 2


def admitted(pressure: Pressure, tenant: str, tries: int) -> int:
    good = 0
    for _ in range(tries):
        try:
            pressure.admit(tenant)
        except Overloaded:
            continue
        good += 1
    return good


def test_everything_is_let_in_while_the_loop_keeps_up() -> None:
    pressure = Pressure()
    for _ in range(5):
        assert admitted(pressure, "acme", 1000) == 1000
        pressure.tick(0.0, 1.0)


def test_less_is_let_in_tick_by_tick_while_the_loop_is_late() -> None:
    pressure = Pressure()
    served = []
    for _ in range(12):
        served.append(admitted(pressure, "acme", 100))
        pressure.tick(LATE, 1.0)
    assert served == sorted(served, reverse=True)
    assert served[0] == 100
    assert served[-1] < 50


def test_a_flooding_tenant_is_refused_and_the_others_are_not() -> None:
    pressure = Pressure()
    flood = others = 0
    for _ in range(100):  # a loop that serves 150 a tick in time, and is asked for 290
        now_flood = admitted(pressure, "flood", 200)
        now_others = sum(admitted(pressure, f"tenant-{number}", 10) for number in range(9))
        pressure.tick(LATE if now_flood + now_others > 150 else 0.0, 1.0)
        flood, others = flood + now_flood, others + now_others
    assert others >= 0.97 * 100 * 90
    assert 0.5 * 100 * 60 < flood < 1.2 * 100 * 60


def test_a_newcomer_is_let_in_under_pressure() -> None:
    pressure = Pressure()
    for _ in range(20):
        admitted(pressure, "flood", 200)
        pressure.tick(LATE, 1.0)
    assert admitted(pressure, "newcomer", 1) == 1


def test_all_is_let_in_again_once_the_loop_is_on_time() -> None:
    pressure = Pressure()
    for _ in range(10):
        admitted(pressure, "acme", 100)
        pressure.tick(LATE, 1.0)
    for _ in range(40):
        admitted(pressure, "acme", 100)
        pressure.tick(0.0, 1.0)
    assert admitted(pressure, "acme", 1000) == 1000


def test_a_loop_that_another_process_holds_up_refuses_nobody() -> None:
    pressure = Pressure()
    for _ in range(20):
        assert admitted(pressure, "acme", 100) == 100
        pressure.tick(LATE, 0.2)


def test_one_late_moment_refuses_nobody() -> None:
    pressure = Pressure()
    pressure.tick(LATE * 10, 1.0)
    assert admitted(pressure, "acme", 100) == 100


async def test_a_loop_that_is_blocked_is_seen_to_be_late() -> None:
    pressure = Pressure()
    with pressure.measuring():
        await asyncio.sleep(0)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
        await asyncio.sleep(0.01)
        assert pressure.lag_s > LATE_S
