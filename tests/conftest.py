"""Settings that every test shares, and who runs beside whom."""

import os

import pytest
from hypothesis import settings

# Two loaded cores make single examples slow without anything being wrong.
settings.register_profile("gateway", deadline=None, print_blob=True)
settings.register_profile("long", settings.get_profile("gateway"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gateway"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker for a file's tests, and one for all that compute with the language model.

    The model needs every core that it is given, so two of them at once would make both late; they
    begin first because they take longest.
    """
    items.sort(key=lambda item: item.get_closest_marker("model") is None)
    for item in items:
        model = item.get_closest_marker("model") is not None
        item.add_marker(pytest.mark.xdist_group("model" if model else item.path.as_posix()))
