import pytest
from prometheus_client import CollectorRegistry

from gateway.telemetry import catalogue
from gateway.telemetry.instruments import Gauge, Histogram
from gateway.telemetry.metrics import Metrics, ModelLabels
from gateway.telemetry.scoreboard import Scoreboard
from gateway.telemetry.totals import Totals
from gateway.turn.tally import Outcome, TurnTally

MODELS = (ModelLabels("main", "openai", "m"),)
Value = float | None


class Workers:
    """Workers that count, and what all of them come to."""

    def __init__(self) -> None:
        self.unreadable = 0
        self.totals = Totals(self._count)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self.totals)

    def _count(self) -> None:
        self.unreadable += 1

    def one(self, *dialects: str) -> Metrics:
        metrics = Metrics(dialects or ("widget",), MODELS)
        self.totals.add(metrics.board)
        return metrics

    def value(self, name: str, **labels: str) -> Value:
        return self._registry.get_sample_value(name, labels)

    def turns(self, outcome: str, http_version: str = "2") -> Value:
        labels = {"dialect": "widget", "outcome": outcome, "http_version": http_version}
        return self.value("chatgw_turns_total", **labels)

    @property
    def in_flight(self) -> Value:
        return self.value("chatgw_turns_in_flight", dialect="widget")


@pytest.fixture
def workers() -> Workers:
    return Workers()


def end(worker: Metrics, outcome: Outcome = "ok", http_version: str = "2") -> None:
    tally = TurnTally("widget", http_version, 10.0, outcome=outcome, ended=12.0)
    worker.turn_ended(tally)


def turn(worker: Metrics, outcome: Outcome = "ok", http_version: str = "2") -> None:
    worker.turn_began("widget", http_version)
    end(worker, outcome, http_version)


def test_counters_and_histograms_of_all_workers_are_summed(workers: Workers) -> None:
    one, other = workers.one(), workers.one()
    turn(one)
    turn(other)
    turn(other, "internal")
    assert workers.turns("ok") == 2
    assert workers.turns("internal") == 1
    name = "chatgw_turn_duration_seconds"
    assert workers.value(f"{name}_count", dialect="widget") == 3
    assert workers.value(f"{name}_sum", dialect="widget") == 6
    assert workers.value(f"{name}_bucket", dialect="widget", le="1.28") == 0
    assert workers.value(f"{name}_bucket", dialect="widget", le="2.56") == 3
    assert workers.value(f"{name}_bucket", dialect="widget", le="+Inf") == 3


def test_what_an_ended_worker_counted_is_kept(workers: Workers) -> None:
    for _ in range(20):
        worker = workers.one()
        turn(worker)
        assert workers.totals.end(worker.board) == 0
    assert workers.turns("ok") == 20
    assert workers.value("chatgw_turn_duration_seconds_count", dialect="widget") == 20


def test_the_open_turns_of_a_dead_worker_are_lost_and_no_longer_in_flight(workers: Workers) -> None:
    dead, alive = workers.one(), workers.one()
    for http_version in ("1.1", "2", "2"):
        dead.turn_began("widget", http_version)
    turn(dead)
    alive.turn_began("widget", "2")
    assert workers.in_flight == 4
    assert workers.totals.end(dead.board) == 3
    assert workers.in_flight == 1
    assert workers.turns("worker_lost", "1.1") == 1
    assert workers.turns("worker_lost", "2") == 2
    assert workers.turns("ok") == 1
    end(alive)
    assert workers.in_flight == 0
    admitted = workers.value("chatgw_turns_admitted_total", dialect="widget", http_version="2")
    assert admitted == 4


def test_a_gauge_ends_with_its_worker(workers: Workers) -> None:
    board = Scoreboard()
    Gauge(catalogue.DRAINING, board).set(5)
    workers.totals.add(board)
    assert workers.value("chatgw_draining") == 5
    workers.totals.end(board)
    assert workers.value("chatgw_draining") is None


def test_what_is_the_same_everywhere_is_not_summed(workers: Workers) -> None:
    workers.one()
    workers.one()
    page = [m for m in workers.totals.collect() if m.name == "chatgw_build_info"]
    assert [sample.value for sample in page[0].samples] == [1]


def test_workers_of_other_configurations_share_what_they_have_in_common(workers: Workers) -> None:
    turn(workers.one("widget"))
    turn(workers.one("helper", "widget"))
    assert workers.turns("ok") == 2
    assert workers.value("chatgw_tokens_total", dialect="helper", direction="input") == 0


def test_series_of_another_release_are_left_out(workers: Workers) -> None:
    worker = workers.one()
    worker.board.add("chatgw_of_tomorrow_total", ("x",), 3)
    worker.board.add("chatgw_turns_total", ("of", "four", "labels", "now"), 1)
    turn(worker)
    assert workers.turns("ok") == 1


def test_an_unreadable_scoreboard_counts_as_it_was_last_read(workers: Workers) -> None:
    sane, mad = workers.one(), workers.one()
    turn(sane)
    turn(mad)
    assert workers.turns("ok") == 2
    mad.board._valid[0] = 2**60
    turn(sane)
    assert workers.turns("ok") == 3
    assert workers.unreadable >= 1
    workers.totals.end(mad.board)
    assert workers.turns("ok") == 3


def test_more_series_than_there_is_room_for_count_nowhere_and_fail_nothing() -> None:
    board = Scoreboard()
    board.add("full", (), 131_072)
    histogram = Histogram(catalogue.TURN_DURATION, board)
    histogram.labels("widget").observe(1.0)
    assert board.series() == [(0, ("full", ()))]


def test_children_need_the_labels_of_their_family() -> None:
    with pytest.raises(ValueError, match="chatgw_turn_duration_seconds"):
        Histogram(catalogue.TURN_DURATION, Scoreboard()).labels("a", "b")
