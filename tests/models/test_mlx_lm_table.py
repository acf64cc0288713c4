"""docs/mlx_lm.md says what is true of mlx-lm's files in the engine."""

from __future__ import annotations

import pytest

from device.needs import needs_compiler
from models.mlx_lm_table import EMULATED, PAGE, WORKS, table, verdict
from models.test_mlx_lm_files import folder
from models.test_mlx_lm_logits import FILES

TABLE = table(PAGE.read_text(encoding="utf-8"))


def test_every_file_that_gives_mlxs_logits_is_in_it() -> None:
    assert [*TABLE] == [*FILES]


def test_what_works_only_grows() -> None:
    works = sum(verdict.startswith(WORKS) for verdict in TABLE.values())
    assert works >= 71 and f"**{works} of {len(TABLE)} work.**" in PAGE.read_text(encoding="utf-8")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder()
    if home is None:
        pytest.skip("mlx-lm is not installed, and NANOCUPY_MLX_LM does not name a folder with it")
    monkeypatch.syspath_prepend(home.parent)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", TABLE)
def test_the_verdict(name: str) -> None:
    assert verdict(name) == TABLE[name]


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name].startswith(WORKS)])
def test_the_verdict_on_the_emulated_gpu(name: str) -> None:
    assert verdict(name, **EMULATED) == TABLE[name]
