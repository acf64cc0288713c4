"""What tests of several layers share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# Examples share their machine with other tests: how long one takes says nothing.
settings.register_profile("nanocupy", deadline=None)
settings.load_profile("nanocupy")


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The folder of the default model, fetched on first use (93 MB, then cached)."""
    from nanocupy.checkpoint import resolve

    return resolve("smollm2-135m", progress=False)
