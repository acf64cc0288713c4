"""mlx-lm's own model files, unchanged, give the same logits on nanocupy as on MLX.

The list only grows. It wants mlx-lm (see test_mlx_lm_files) and MLX, and is skipped without mlx-lm.
Models are tiny and random; both sides compute in float32, here by the operations' NumPy forms.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.test_mlx_lm_files import ALIASES, folder, mlx_as

# "files": what a file's configuration is told besides "sizes", which all get that have them, and
# "wanted", which those get that cannot do without.
LIST = json.loads(Path(__file__).with_name("mlx_lm_files.json").read_text(encoding="utf-8"))
FILES: dict[str, dict[str, Any]] = LIST["files"]
TOKENS = np.random.default_rng(1).integers(0, 120, (1, 24)).astype(np.int32)


def mlx() -> dict[str, Any]:
    """MLX's own modules by their names."""
    names = ("mlx", "mlx.core", "mlx.nn", "mlx.nn.layers", "mlx.nn.layers.distributed", "mlx.utils")
    return {name: importlib.import_module(name) for name in names}


def arguments(kind: Any, name: str) -> Any:
    """A configuration of the file's own class."""
    given = {"model_type": name} | FILES[name]
    for field in dataclasses.fields(kind):
        told = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        defaults = LIST["sizes"] if told else LIST["wanted"] | LIST["sizes"]
        if field.name in defaults:
            given.setdefault(field.name, defaults[field.name])
    return kind.from_dict(given)


def logits(aliases: dict[str, Any], name: str) -> np.ndarray:
    """What the file gives where these modules are MLX."""
    mx, tree = aliases["mlx.core"], aliases["mlx.utils"]
    with mlx_as(aliases):
        file = importlib.import_module(f"mlx_lm.models.{name}")
        model, rng = file.Model(arguments(file.ModelArgs, name)), np.random.default_rng(0)
        places = sorted(tree.tree_flatten(model.parameters()), key=lambda named: named[0])
        weights = [
            (key, mx.array((0.2 * rng.standard_normal(tuple(a.shape))).astype(np.float32)))
            for key, a in places
        ]
        model.load_weights(weights)
        return np.array(model(mx.array(TOKENS)).astype(mx.float32))


@pytest.mark.parametrize("name", FILES)
def test_files_give_mlxs_logits(name: str) -> None:
    if folder() is None:
        pytest.skip("mlx-lm is not installed, and NANOCUPY_MLX_LM does not name a folder with it")
    want, got = logits(mlx(), name), logits(ALIASES, name)
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_the_list_only_grows() -> None:
    assert len(FILES) >= 99
