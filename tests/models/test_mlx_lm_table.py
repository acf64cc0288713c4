"""docs/mlx_lm.md says what is true of mlx-lm's files in the engine."""

from __future__ import annotations

import pytest

from models.mlx_lm_table import PAGE, WORKS, table, verdict
from models.test_mlx_lm_files import folder
from models.test_mlx_lm_logits import FILES

TABLE = table(PAGE.read_text(encoding="utf-8"))


def test_every_file_that_gives_mlxs_logits_is_in_it() -> None:
    assert [*TABLE] == [*FILES]


def test_what_works_only_grows() -> None:
    works = sum(verdict.startswith(WORKS) for verdict in TABLE.values())
    assert works >= 68 and f"**{works} of {len(TABLE)} work.**" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLE)
def test_the_verdict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder()
    if home is None:
        pytest.skip("mlx-lm is not installed, and NANOCUPY_MLX_LM does not name a folder with it")
    monkeypatch.syspath_prepend(home.parent)
    assert verdict(name) == TABLE[name]
