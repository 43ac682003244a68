import random
import threading
import time
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway.errors import ERROR_KINDS, ErrorKind
from gateway.events import FinishReason
from gateway.messages import Price, Usage
from gateway.telemetry import catalogue
from gateway.telemetry.catalogue import CATALOGUE, ERROR_TYPES, HTTP_VERSIONS
from gateway.telemetry.metrics import Metrics, ModelLabels
from gateway.telemetry.pages import Pages
from gateway.telemetry.totals import Totals
from gateway.telemetry.upstreams import TargetLabels
from gateway.turn.tally import OUTCOMES, Outcome, RoundTally, TurnTally

DIALECTS = ("hyponema", "hyperleap", "widget", "helper")
MODELS = (
    ModelLabels("main", "openai", "big-model"),
    ModelLabels("spare", "anthropic", "small-model"),
)
TARGETS = (
    TargetLabels("main", "10.0.0.1:9001/v1"),
    TargetLabels("main", "10.0.0.2:9001/v1"),
    TargetLabels("spare", "api.example"),
)
BIG = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "big-model",
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(DIALECTS, MODELS, TARGETS, dropped_lines=lambda: 7)


def registry(metrics: Metrics) -> CollectorRegistry:
    totals = Totals()
    totals.add(metrics.board)
    return Pages(totals).registry


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return registry(metrics).get_sample_value(name, labels)


def total(metrics: Metrics, name: str) -> float:
    return sum(
        sample.value
        for family in registry(metrics).collect()
        for sample in family.samples
        if sample.name == name
    )


def series(metrics: Metrics) -> set[str]:
    own = ("chatgw_", "gen_ai_")
    lines = generate_latest(registry(metrics)).decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if line.startswith(own)}


def call(
    *,
    began: float = 10.0,
    first_event: float | None = 10.05,
    ended: float | None = 12.0,
    usage: Usage | None = None,
    error: ErrorKind | None = None,
    model: ModelLabels = MODELS[0],
    price: Price | None = None,
) -> RoundTally:
    return RoundTally(*model, began, first_event, ended, usage, error, price=price)


def turn(
    *rounds: RoundTally,
    outcome: Outcome = "ok",
    first_generated: float | None = None,
    first_delivered: float | None = None,
    reason: FinishReason | None = "stop",
    http_version: str = "2",
    deltas: int = 0,
    delivered: int = 0,
    fallbacks: Sequence[str] = (),
) -> TurnTally:
    return TurnTally(
        "widget",
        http_version,
        10.0,
        outcome=outcome,
        ended=12.0,
        first_generated=first_generated,
        first_delivered=first_delivered,
        reason=reason,
        deltas=deltas,
        delivered=delivered,
        rounds=list(rounds),
        fallbacks=list(fallbacks),
    )


def end(metrics: Metrics, tally: TurnTally) -> None:
    metrics.turn_began(tally.dialect, tally.http_version)
    metrics.turn_ended(tally)


def test_histograms_have_the_buckets_of_the_catalogue(metrics: Metrics) -> None:
    for family in CATALOGUE:
        if family.type == "histogram":
            shown = next(f for f in registry(metrics).collect() if f.name == family.name)
            bounds = {float(s.labels["le"]) for s in shown.samples if s.name.endswith("_bucket")}
            assert bounds == {*family.buckets, float("inf")}


def test_the_duration_buckets_are_those_of_the_convention() -> None:
    assert catalogue.CLIENT_DURATION.buckets[:3] == (0.01, 0.02, 0.04)
    assert catalogue.CLIENT_DURATION.buckets[-1] == 81.92
    assert len(catalogue.CLIENT_DURATION.buckets) == 14
    assert catalogue.TURN_DURATION.buckets[-1] == 327.68
    assert catalogue.CLIENT_TOKENS.buckets[-1] == 67108864


def test_every_child_of_a_closed_label_set_is_exported_as_zero_at_start(metrics: Metrics) -> None:
    for dialect in DIALECTS:
        for outcome in OUTCOMES:
            for version in HTTP_VERSIONS:
                labels = {"dialect": dialect, "outcome": outcome, "http_version": version}
                assert value(metrics, "chatgw_turns_total", **labels) == 0
        for kind in ERROR_KINDS:
            assert value(metrics, "chatgw_refused_total", dialect=dialect, kind=kind) == 0
        for direction in ("input", "output"):
            labels = {"dialect": dialect, "direction": direction}
            assert value(metrics, "chatgw_tokens_total", **labels) == 0
        assert value(metrics, "chatgw_turns_in_flight", dialect=dialect) == 0
    for error_type in ERROR_TYPES:
        name = "gen_ai_client_operation_duration_seconds_count"
        assert value(metrics, name, **BIG, error_type=error_type) == 0
    assert value(metrics, "chatgw_turns_without_usage_total", upstream="spare") == 0
    assert value(metrics, "chatgw_label_overflow_total", label="model") == 0


def test_the_build_is_exported(metrics: Metrics) -> None:
    page = generate_latest(registry(metrics)).decode()
    assert 'chatgw_build_info{hypercorn="0.18.0",python="3.' in page


def test_a_sign_of_life_tells_the_lines_that_the_log_lost(metrics: Metrics) -> None:
    assert metrics.board.beat == 0
    metrics.beat()
    assert metrics.board.beat == pytest.approx(time.monotonic(), abs=5)
    assert value(metrics, "chatgw_log_lines_dropped_total") == 7


def test_a_turn_is_in_flight_from_its_admission_to_its_end(metrics: Metrics) -> None:
    metrics.turn_began("widget", "2")
    assert value(metrics, "chatgw_turns_in_flight", dialect="widget") == 1
    metrics.turn_ended(turn())
    assert value(metrics, "chatgw_turns_in_flight", dialect="widget") == 0
    labels = {"dialect": "widget", "outcome": "ok", "http_version": "2"}
    assert value(metrics, "chatgw_turns_total", **labels) == 1


def test_a_total_is_of_every_child_that_has_the_labels(metrics: Metrics) -> None:
    for outcome in ("ok", "internal"):
        end(metrics, turn(outcome=outcome))
    assert metrics.total("chatgw_turns_total") == 2
    assert metrics.total("chatgw_turns_total", "widget", "ok") == 1
    assert metrics.total("chatgw_turns_total", "helper") == 0


def test_the_three_first_token_readings_differ_as_the_stream_does(metrics: Metrics) -> None:
    tally = turn(call(first_event=10.05), first_generated=10.2, first_delivered=10.9)
    end(metrics, tally)
    chunk = "gen_ai_client_operation_time_to_first_chunk_seconds_sum"
    assert value(metrics, chunk, **BIG) == pytest.approx(0.05)
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", **BIG) == pytest.approx(
        0.2
    )
    shown = value(metrics, "chatgw_time_to_first_token_seconds_sum", dialect="widget")
    assert shown == pytest.approx(0.9)


def test_a_turn_with_tool_calls_only_has_a_first_token_but_no_visible_one(metrics: Metrics) -> None:
    end(metrics, turn(call(), first_generated=10.4, reason="tool_calls"))
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count", **BIG) == 1
    assert value(metrics, "chatgw_time_to_first_token_seconds_count", dialect="widget") == 0


def test_time_per_output_token_counts_the_tokens_after_the_first(metrics: Metrics) -> None:
    end(metrics, turn(call(usage=Usage(5, 11)), first_generated=11.0))
    name = "gen_ai_server_time_per_output_token_seconds"
    assert value(metrics, f"{name}_sum", **BIG) == pytest.approx(0.1)
    end(metrics, turn(call(usage=Usage(5, 1)), first_generated=11.0))
    assert value(metrics, f"{name}_count", **BIG) == 1


def test_tokens_come_from_usage_and_are_summed_over_the_rounds(metrics: Metrics) -> None:
    end(metrics, turn(call(usage=Usage(100, 7)), call(usage=Usage(120, 30))))
    assert value(metrics, "chatgw_tokens_total", dialect="widget", direction="input") == 220
    assert value(metrics, "chatgw_tokens_total", dialect="widget", direction="output") == 37
    usage = "gen_ai_client_token_usage"
    assert value(metrics, f"{usage}_sum", **BIG, gen_ai_token_type="input") == 220
    assert value(metrics, f"{usage}_count", **BIG, gen_ai_token_type="output") == 2
    assert value(metrics, "chatgw_turns_without_usage_total", upstream="main") == 0


def test_cost_is_what_was_billed_at_the_models_price_and_nothing_is_made_up(
    metrics: Metrics,
) -> None:
    dear, cheap = Price(10, 30), Price(0.1, 0.2)
    priced = call(usage=Usage(1000, 100), price=dear)
    spare = call(model=MODELS[1], usage=Usage(10, 10), price=cheap)
    silent = call(price=dear)
    unpriced = call(usage=Usage(5, 5))
    end(metrics, turn(priced, spare, silent, unpriced))
    name = "chatgw_cost_total"
    main = {"dialect": "widget", "upstream": "main", "model": "big-model"}
    assert value(metrics, name, **main) == pytest.approx(0.013)
    other = {"dialect": "widget", "upstream": "spare", "model": "small-model"}
    assert value(metrics, name, **other) == pytest.approx(0.000003)
    assert turn(priced, spare).cost == pytest.approx(0.013003)
    for unknown in ((), (priced, silent), (priced, unpriced)):
        assert turn(*unknown).cost is None
    failed = call(first_event=None, error="upstream_unavailable", price=dear)
    assert turn(failed, priced).cost == pytest.approx(0.013)


def test_what_nobody_was_given_is_counted(metrics: Metrics) -> None:
    end(metrics, turn(call(), deltas=9, delivered=4, outcome="client_disconnect"))
    assert value(metrics, "chatgw_undelivered_deltas_total", dialect="widget") == 5


def test_giving_an_upstream_up_is_counted(metrics: Metrics) -> None:
    end(metrics, turn(call(), fallbacks=["main"]))
    assert value(metrics, "chatgw_upstream_fallbacks_total", upstream="main") == 1
    assert value(metrics, "chatgw_upstream_fallbacks_total", upstream="spare") == 0


def test_a_turn_without_usage_is_counted_and_never_taken_for_zero_tokens(metrics: Metrics) -> None:
    end(metrics, turn(call(), call()))
    assert value(metrics, "chatgw_turns_without_usage_total", upstream="main") == 1
    labels = {**BIG, "gen_ai_token_type": "output"}
    assert value(metrics, "gen_ai_client_token_usage_count", **labels) == 0


def test_an_explicit_zero_is_a_usage(metrics: Metrics) -> None:
    end(metrics, turn(call(usage=Usage(0, 0))))
    assert value(metrics, "chatgw_turns_without_usage_total", upstream="main") == 0
    labels = {**BIG, "gen_ai_token_type": "output"}
    assert value(metrics, "gen_ai_client_token_usage_count", **labels) == 1


def test_a_call_that_never_answered_does_not_miss_its_usage(metrics: Metrics) -> None:
    refused = call(first_event=None, error="upstream_unavailable")
    end(metrics, turn(refused, call(model=MODELS[1], usage=Usage(1, 2))))
    assert total(metrics, "chatgw_turns_without_usage_total") == 0
    name = "gen_ai_client_operation_duration_seconds_count"
    assert value(metrics, name, **BIG, error_type="upstream_5xx") == 1


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (None, ""),
        ("upstream_timeout", "timeout"),
        ("deadline", "timeout"),
        ("upstream_rate_limited", "rate_limit"),
        ("upstream_error", "upstream_5xx"),
        ("truncated", "malformed_stream"),
        ("cancelled", "cancelled"),
        ("internal", "_OTHER"),
    ],
)
def test_a_model_call_says_what_kind_of_error_ended_it(
    metrics: Metrics, error: ErrorKind | None, error_type: str
) -> None:
    end(metrics, turn(call(error=error)))
    name = "gen_ai_client_operation_duration_seconds_count"
    assert value(metrics, name, **BIG, error_type=error_type) == 1


def test_every_outcome_has_a_place_in_the_error_types(metrics: Metrics) -> None:
    for outcome in (*OUTCOMES,):
        end(metrics, turn(call(), outcome=outcome))  # type: ignore[arg-type]  # all of them
    name = "gen_ai_server_request_duration_seconds_count"
    counts = {e: value(metrics, name, **BIG, error_type=e) for e in ERROR_TYPES}
    assert sum(count or 0 for count in counts.values()) == len(OUTCOMES)
    assert counts[""] == 2
    assert counts["cancelled"] == 2


def test_a_turn_without_a_model_call_is_a_server_sample_without_a_model(metrics: Metrics) -> None:
    end(metrics, turn(outcome="store_unavailable"))
    name = "gen_ai_server_request_duration_seconds_count"
    names = dict.fromkeys(("gen_ai_provider_name", "gen_ai_request_model"), "")
    labels = {"gen_ai_operation_name": "chat", **names, "error_type": "_OTHER"}
    assert value(metrics, name, **labels) == 1
    assert total(metrics, name) == total(metrics, "chatgw_turns_total")


def test_a_refusal_of_no_dialect_is_no_overflow(metrics: Metrics) -> None:
    metrics.refused("other", "not_found")
    assert value(metrics, "chatgw_refused_total", dialect="other", kind="not_found") == 1
    assert total(metrics, "chatgw_label_overflow_total") == 0


def test_an_old_http_version_is_other_and_no_overflow(metrics: Metrics) -> None:
    end(metrics, turn(http_version="1.0"))
    labels = {"dialect": "widget", "outcome": "ok", "http_version": "other"}
    assert value(metrics, "chatgw_turns_total", **labels) == 1
    assert total(metrics, "chatgw_label_overflow_total") == 0


def test_values_that_clients_could_make_up_never_make_a_series(metrics: Metrics) -> None:
    end(metrics, turn(call(model=ModelLabels("?", "?", "?"), usage=Usage(1, 2))))
    metrics.refused("?", "?")
    before = series(metrics)
    dice = random.Random(15)
    for _ in range(2000):
        odd = f'{dice.random()}\n\x1b"'
        tally = turn(call(model=ModelLabels(odd, odd, odd), usage=Usage(1, 2)), http_version=odd)
        end(metrics, tally)
        metrics.refused(odd, odd)
    assert series(metrics) == before
    labels = {**BIG, "gen_ai_provider_name": "other", "gen_ai_request_model": "other"}
    name = "gen_ai_client_operation_duration_seconds_count"
    assert value(metrics, name, **labels, error_type="") == 2001
    assert value(metrics, "chatgw_label_overflow_total", label="kind") == 2001


def test_turns_that_end_in_many_threads_are_counted_exactly(metrics: Metrics) -> None:
    def run() -> None:
        for _ in range(500):
            end(metrics, turn(call(usage=Usage(1, 1))))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(metrics, "chatgw_turns_total") == 2000
    assert total(metrics, "chatgw_tokens_total") == 4000
    assert total(metrics, "chatgw_turns_in_flight") == 0


def test_the_number_of_series_is_known_for_a_typical_configuration(metrics: Metrics) -> None:
    assert len(series(metrics)) < 1700
