"""Settings that every test shares, and which tests are heavy."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

# Two loaded cores make single examples slow without anything being wrong.
settings.register_profile("gateway", deadline=None, print_blob=True, max_examples=50)
settings.register_profile("long", settings.get_profile("gateway"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gateway"))


def _stay_at_home(event: str, arguments: Sequence[object]) -> None:
    """No test, and nothing that it runs in this process, may ask anybody but this machine."""
    if event == "socket.connect":
        address = arguments[1]
        host = str(address[0]) if isinstance(address, tuple) else "127.0.0.1"
        if not host.startswith("127.") and host not in {"::1", "localhost"}:
            raise AssertionError(f"a test connects to {address}")


sys.addaudithook(_stay_at_home)


# Processes that are killed, clocks that have to run out, catalogues over every dialect: `make
# heavy` runs these and single tests that are marked themselves, `make test` the rest.
HEAVY: Final = (
    "certify/test_faults.py",
    "certify/test_sockets.py",
    "cli/test_conversations.py",
    "e2e/test_described_routes.py",
    "e2e/test_keep_alive.py",
    "e2e/test_model.py",
    "e2e/test_outside_judge.py",
    "e2e/test_rotation.py",
    "e2e/test_shared_conversations.py",
    "e2e/test_shared_limits.py",
    "e2e/test_store_faults.py",
    "e2e/test_targets.py",
    "e2e/test_tenancy.py",
    "e2e/test_overload.py",
    "e2e/test_upstream_catalogue.py",
    "serving/test_http2_clocks.py",
    "serving/test_supervisor.py",
    "serving/test_supervisor_faults.py",
    "serving/test_tls.py",
    "stores/test_sharing.py",
    "stores/test_turns.py",
    "stores/test_valkey.py",
    "upstreams/test_embedded.py",
    "upstreams/test_model_server.py",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files whose tests are left out are not even imported."""
    return (config.option.markexpr == "not heavy" and _is_heavy(collection_path)) or None


def _is_heavy(path: Path) -> bool:
    return path.relative_to(Path(__file__).parent).as_posix() in HEAVY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What computes with the language model begins first, because it takes longest."""
    items.sort(key=lambda item: item.get_closest_marker("model") is None)
    for item in items:
        if _is_heavy(item.path):
            item.add_marker(pytest.mark.heavy)
