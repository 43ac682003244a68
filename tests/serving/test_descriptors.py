import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.serving.descriptors import are_scarce, first_kept, provide


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("limit", "first"), [(4096, 3840), (96, 84)])
def test_a_part_of_the_descriptors_is_not_for_connections(limit: int, first: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    assert first_kept() == first


def test_they_are_scarce_when_only_that_part_is_left() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    with ExitStack() as stack:
        assert not are_scarce()
        while (opened := stack.enter_context(Path("/dev/null").open())).fileno() < first_kept() - 1:
            assert not are_scarce()
        assert opened.fileno() == first_kept() - 1
        assert are_scarce()
    assert not are_scarce()


def test_a_worker_has_what_its_turns_need_as_far_as_the_system_grants_it() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = 10**6 if hard == resource.RLIM_INFINITY else hard
    for turns, wanted in ((1, 16_384), (2049, 16_392)):
        provide(turns)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(granted, wanted), hard)
