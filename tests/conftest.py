"""What tests of several layers share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from slow import PLACES

# Examples share their machine with other tests: how long one takes says nothing.
settings.register_profile("nanocupy", deadline=None)
settings.load_profile("nanocupy")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `slow` lists."""
    places = [Path(__file__).parent / place for place in PLACES]
    for item in items:
        if any(place == item.path or place in item.path.parents for place in places):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The folder of the default model, fetched on first use (93 MB, then cached)."""
    from nanocupy.checkpoint import resolve

    return resolve("smollm2-135m", progress=False)
