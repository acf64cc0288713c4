"""Every engine test runs with the invariants checked after every step."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def check_invariants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCUPY_CHECK", "1")
