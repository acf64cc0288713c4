"""The table of mutants: see `mutants`."""

from __future__ import annotations

import pytest

import mutants

TABLE = mutants.table()


def test_every_mutant_has_a_place_and_a_check() -> None:
    for mutant in TABLE:
        assert mutants.sown(mutant) and mutants.has_check(mutant), mutant


@pytest.mark.slow
def test_a_mutant_is_caught() -> None:
    """One that is quick; `python tests/mutants.py` runs them all."""
    mutant = next(m for m in TABLE if m.file.endswith("header.py"))
    assert mutants.caught(mutant) is None
    assert mutants.caught(mutant._replace(new=mutant.old + " ")) == "the check passed"
