import json
from collections.abc import Iterator

import pytest

from gateway.messages import Reply
from gateway.telemetry.metrics import Metrics, ModelLabels
from gateway.telemetry.pages import Pages
from gateway.telemetry.totals import Totals
from gateway.web.operators import Operators


@pytest.fixture
def metrics() -> Iterator[Pages]:
    totals = Totals()
    totals.add(Metrics(("widget",), (ModelLabels("main", "openai", "m"),)).board)
    made = Pages(totals)
    yield made
    made.close()


@pytest.fixture
def checks() -> dict[str, bool]:
    return {"config": True, "store": True, "not_draining": True}


@pytest.fixture
def admin(metrics: Pages, checks: dict[str, bool]) -> Operators:
    return Operators(metrics, lambda: checks)


async def ask(operators: Operators, path: str, query: str = "", method: str = "GET") -> Reply:
    reply = await operators.answer(method, path, query, "")
    assert reply is not None
    return reply


def header(reply: Reply, name: str) -> str:
    (found,) = [value for key, value in reply.headers if key == name]
    return found


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
async def test_a_running_loop_is_live_whatever_the_checks_say(
    admin: Operators, checks: dict[str, bool], path: str
) -> None:
    checks["store"] = False
    reply = await ask(admin, path)
    assert (reply.status, reply.body) == (200, b"ok\n")


async def test_ready_is_200_while_every_check_holds(
    admin: Operators, checks: dict[str, bool]
) -> None:
    reply = await ask(admin, "/readyz")
    assert (reply.status, reply.body) == (200, b"ok\n")
    checks["not_draining"] = False
    reply = await ask(admin, "/readyz")
    assert (reply.status, reply.body) == (503, b"not ready\n")
    assert header(reply, "retry-after") == "1"


@pytest.mark.parametrize("query", ["verbose", "verbose=", "verbose=1", "a=b&verbose"])
async def test_verbose_lists_the_checks(
    admin: Operators, checks: dict[str, bool], query: str
) -> None:
    reply = await ask(admin, "/readyz", query)
    assert reply.body == b"[+]config ok\n[+]store ok\n[+]not_draining ok\nok\n"
    checks["store"] = False
    reply = await ask(admin, "/readyz", query)
    assert reply.status == 503
    assert reply.body == b"[+]config ok\n[-]store failed\n[+]not_draining ok\nnot ready\n"


async def test_verbose_tells_the_details_too() -> None:
    operators = Operators(None, lambda: {"workers": True}, lambda: ["worker 0: listening"])
    reply = await ask(operators, "/readyz", "verbose")
    assert reply.body == b"[+]workers ok\n    worker 0: listening\nok\n"
    for query in ("", "verbosely", "a=verbose"):
        assert (await ask(operators, "/readyz", query)).body == b"ok\n"


async def test_version_names_what_runs(admin: Operators) -> None:
    reply = await ask(admin, "/version")
    assert header(reply, "content-type").startswith("application/json")
    versions = json.loads(reply.body)
    assert set(versions) == {"version", "python", "hypercorn", "sqlite"}
    assert versions["hypercorn"] == "0.18.0"
    # The first SQLite whose write-ahead log cannot corrupt a database after a reset.
    assert tuple(map(int, versions["sqlite"].split("."))) >= (3, 51, 3)


async def test_metrics_are_on_the_admin_listener_only(
    metrics: Pages, admin: Operators, checks: dict[str, bool]
) -> None:
    reply = await ask(admin, "/metrics")
    assert header(reply, "content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nchatgw_turns_total{" in reply.body
    public = Operators(None, lambda: checks)
    assert await public.answer("GET", "/metrics", "", "") is None
    assert "/metrics" not in public.paths


async def test_the_format_of_metrics_follows_accept(admin: Operators) -> None:
    reply = await admin.answer("GET", "/metrics", "", "application/openmetrics-text;version=1.0.0")
    assert reply is not None
    assert header(reply, "content-type").startswith("application/openmetrics-text; version=1.0.0")
    assert reply.body.endswith(b"# EOF\n")


async def test_the_document_is_on_the_public_listener_only(
    admin: Operators, checks: dict[str, bool]
) -> None:
    public = Operators(None, lambda: checks, description=b'{"openapi":"3.1.0"}')
    reply = await ask(public, "/openapi.json")
    assert (reply.status, reply.body) == (200, b'{"openapi":"3.1.0"}')
    assert header(reply, "content-type") == "application/json; charset=utf-8"
    assert header(reply, "x-content-type-options") == "nosniff"
    assert await ask(public, "/openapi.json", method="HEAD") == reply
    refused = await ask(public, "/openapi.json", method="POST")
    assert (refused.status, header(refused, "allow")) == (405, "GET, HEAD")
    assert await admin.answer("GET", "/openapi.json", "", "") is None


PATHS = ["/livez", "/healthz", "/readyz", "/version", "/metrics"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
async def test_other_methods_are_answered_with_the_allowed_ones(
    admin: Operators, path: str, method: str
) -> None:
    reply = await ask(admin, path, method=method)
    assert (reply.status, header(reply, "allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_answered_like_get(admin: Operators, path: str) -> None:
    assert await ask(admin, path, method="HEAD") == await ask(admin, path)


@pytest.mark.parametrize("path", PATHS)
async def test_no_answer_may_be_stored_or_sniffed(admin: Operators, path: str) -> None:
    for method in ("GET", "POST"):
        reply = await ask(admin, path, method=method)
        assert header(reply, "cache-control") == "no-store"
        assert header(reply, "x-content-type-options") == "nosniff"


@pytest.mark.parametrize("path", ["/", "", "/livez/", "/Livez", "/livez%20", "/readyz/store"])
async def test_other_paths_are_not_the_operators(admin: Operators, path: str) -> None:
    assert await admin.answer("GET", path, "", "") is None


async def test_public_and_admin_probes_answer_alike(
    admin: Operators, checks: dict[str, bool]
) -> None:
    public = Operators(None, lambda: checks)
    for path in PATHS[:-1]:
        assert await ask(public, path) == await ask(admin, path)
