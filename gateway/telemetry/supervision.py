"""What the supervisor counts itself: its workers, and the configurations that it was given."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.telemetry import catalogue, logs
from gateway.telemetry.instruments import Counter, Gauge
from gateway.telemetry.processes import resident_bytes
from gateway.telemetry.scoreboard import Scoreboard
from gateway.telemetry.totals import shown

WorkerState = Literal["starting", "listening", "leaving"]
Loss = Literal["exit", "signal", "wedged", "start"]
ReloadResult = Literal["good", "invalid", "failed"]

_STATES: Final[tuple[WorkerState, ...]] = ("starting", "listening", "leaving")
_LOSSES: Final[tuple[Loss, ...]] = ("exit", "signal", "wedged", "start")
_RESULTS: Final[tuple[ReloadResult, ...]] = ("good", "invalid", "failed")


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker now: its place, its process, and how long its event loop was held up lately."""

    slot: int
    state: WorkerState
    process: int
    lag_s: float


class SupervisorMetrics:
    """The supervisor's own numbers, on a scoreboard like a worker's."""

    def __init__(self) -> None:
        self.board: Final = Scoreboard()
        self._restarts = Counter(catalogue.WORKER_RESTARTS, self.board)
        self._restarts.create(_LOSSES)
        self._reloads = Counter(catalogue.CONFIG_RELOADS, self.board)
        self._reloads.create(_RESULTS)
        self._good = Gauge(catalogue.CONFIG_GOOD, self.board)
        self._time = Gauge(catalogue.CONFIG_TIME, self.board)
        self._configured = Gauge(catalogue.WORKERS_CONFIGURED, self.board)
        self._credentials = Gauge(catalogue.CREDENTIALS, self.board)
        self._draining = Gauge(catalogue.DRAINING, self.board)
        self._unreadable = Counter(catalogue.UNREADABLE, self.board)
        self._lines_dropped = Counter(catalogue.LOG_LINES_DROPPED, self.board)

    def worker_lost(self, how: Loss) -> None:
        """A worker ended that was not told to."""
        self._restarts.labels(how).inc()

    def in_force(self, workers: int, credentials: int, now: float) -> None:
        """A configuration is in force that has so many keys and session secrets; `now` in epoch
        seconds."""
        self._configured.set(workers)
        self._credentials.set(credentials)
        self._good.set(1)
        self._time.set(now)

    def reloaded(self, result: ReloadResult) -> None:
        """A changed configuration was tried."""
        self._reloads.labels(result).inc()
        self._good.set(result == "good")

    def unchanged(self) -> None:
        """The configuration that was read is the one in force."""
        self._good.set(1)

    def draining(self) -> None:
        """The gateway is stopping."""
        self._draining.set(1)

    def unreadable(self) -> None:
        """A worker's scoreboard could not be read."""
        self._unreadable.inc()

    def beat(self) -> None:
        """Reads what others keep; to be called now and then."""
        self._lines_dropped.labels().set(logs.dropped_lines())


class WorkerGauges(Collector):
    """The gauges of the workers that run."""

    def __init__(self, workers: Callable[[], Sequence[WorkerFacts]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Workers by state, and of each that listens its lag and its memory."""
        workers = self._workers()
        states = [worker.state for worker in workers]
        yield shown(
            catalogue.WORKERS, [((state,), [float(states.count(state))]) for state in _STATES]
        )
        serving = [worker for worker in workers if worker.state == "listening"]
        lags = [((str(worker.slot),), [worker.lag_s]) for worker in serving]
        yield shown(catalogue.WORKER_LAG, lags)
        held = [((str(worker.slot),), resident_bytes(worker.process)) for worker in serving]
        known = [(place, [size]) for place, size in held if size is not None]
        yield shown(catalogue.WORKER_MEMORY, known)
