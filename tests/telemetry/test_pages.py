import asyncio
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import PlatformCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from gateway.telemetry import catalogue
from gateway.telemetry.catalogue import CATALOGUE
from gateway.telemetry.metrics import Metrics, ModelLabels
from gateway.telemetry.pages import FRESH_S, Pages
from gateway.telemetry.processes import Processes
from gateway.telemetry.supervision import SupervisorMetrics, WorkerFacts, WorkerGauges
from gateway.telemetry.totals import Totals
from gateway.telemetry.upstreams import TargetLabels
from gateway.turn.tally import TurnTally

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
# What Prometheus 2.42 sends.
PROMETHEUS = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


class Gateway:
    """One worker's metrics and the page of all."""

    def __init__(self) -> None:
        self.now = 1000.0
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        self.worker = Metrics(
            ("widget",), (ModelLabels("main", "openai", "m"),), (TargetLabels("main", "a/v1"),)
        )
        supervisor = SupervisorMetrics()
        totals = Totals()
        totals.add(self.worker.board)
        totals.add(supervisor.board)
        self.pages = Pages(
            totals,
            WorkerGauges(lambda: [WorkerFacts(0, "listening", 1, 0.5)]),
            Processes(list),
            PlatformCollector(registry=None),
            clock=lambda: self.now,
        )

    def turn(self) -> None:
        self.worker.turn_began("widget", "2")
        self.worker.turn_ended(TurnTally("widget", "2", 10.0, outcome="ok", ended=12.0))


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.pages.close()


async def test_every_family_of_the_catalogue_is_exported_with_its_type_help_and_labels(
    gateway: Gateway,
) -> None:
    page = (await gateway.pages.scrape(""))[1].decode()
    found = {family.name: family for family in parse_text(page)}
    for family in CATALOGUE:
        shown = found[family.name.removesuffix("_total")]
        assert (shown.type, shown.documentation) == (family.type, family.help)
        assert shown.samples, family.name
        for sample in shown.samples:
            assert set(sample.labels) - {"le"} == set(family.labels)


def test_no_family_is_in_the_catalogue_twice() -> None:
    assert len(catalogue.BY_NAME) == len(CATALOGUE)


async def test_no_series_tells_when_it_was_created(gateway: Gateway) -> None:
    assert "_created" not in (await gateway.pages.scrape(OPENMETRICS))[1].decode()


async def test_the_processes_and_the_platform_are_exported(gateway: Gateway) -> None:
    page = (await gateway.pages.scrape(""))[1].decode()
    assert "\nprocess_resident_memory_bytes " in page
    assert "\npython_info{" in page


def test_workers_are_counted_by_their_state(gateway: Gateway) -> None:
    registry = gateway.pages.registry
    for state, count in (("starting", 0), ("listening", 1), ("leaving", 0)):
        assert registry.get_sample_value("chatgw_workers", {"state": state}) == count
    assert registry.get_sample_value("chatgw_worker_lag_seconds", {"worker": "0"}) == 0.5


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
async def test_the_format_follows_accept(gateway: Gateway, accept: str, content_type: str) -> None:
    found, body = await gateway.pages.scrape(accept)
    assert found.startswith(content_type)
    parser = parse_openmetrics if "openmetrics" in found else parse_text
    names = {family.name for family in parser(body.decode())}
    assert {"chatgw_turns", "gen_ai_client_token_usage", "process_cpu_seconds"} <= names


async def test_a_scrape_is_rendered_off_the_loop_and_kept_for_a_moment(gateway: Gateway) -> None:
    threads: set[str] = set()
    gateway.pages.registry.register(_Witness(threads))
    pages = await asyncio.gather(*(gateway.pages.scrape("") for _ in range(20)))
    assert len(set(pages)) == 1
    assert all(name.startswith("metrics") for name in threads)
    gateway.turn()
    gateway.now += FRESH_S
    assert await gateway.pages.scrape("") == pages[0]
    assert (await gateway.pages.scrape(OPENMETRICS))[0] != pages[0][0]


async def test_a_scrape_is_never_older_than_a_quarter_of_a_second(gateway: Gateway) -> None:
    before = await gateway.pages.scrape("")
    gateway.turn()
    gateway.now += FRESH_S + 0.01
    _, body = await gateway.pages.scrape("")
    assert body != before[1]
    assert b'chatgw_turns_total{dialect="widget",http_version="2",outcome="ok"} 1.0\n' in body


async def test_made_up_versions_in_accept_do_not_fill_the_memory(gateway: Gateway) -> None:
    for number in range(20):
        await gateway.pages.scrape(f"application/openmetrics-text;version={number + 1}.0.0")
    assert len(gateway.pages._pages) <= 4


class _Witness(Collector):
    def __init__(self, threads: set[str]) -> None:
        self._threads = threads

    def collect(self) -> list[Metric]:
        self._threads.add(threading.current_thread().name)
        return [CounterMetricFamily("witness", "", value=len(self._threads))]
