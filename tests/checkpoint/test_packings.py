"""Other programs' quantised layouts: the weights by the formats' own formulas, to the bit; whole
models beside the ones that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint import packers
from checkpoint.packers import KINDS
from models.test_llama import logits, runner
from nanocupy import LLM, SamplingParams, models
from nanocupy.checkpoint import Checkpoint
from nanocupy.nn.ordered import OrderedLinear

TOKENS = [int(t) for t in np.random.default_rng(5).integers(3, 263, 30)]
SMALL: dict[str, Any] = {"num_kv_blocks": 8, "max_num_batched_tokens": 32, "threads": 2}


def loaded(folder: Path) -> tuple[Any, Any]:
    with Checkpoint(folder) as checkpoint:
        return models.load(checkpoint), checkpoint.config


def weight(layer: Any) -> np.ndarray:
    """What a layer multiplies its inputs with."""
    dense = layer.dense().numpy()
    if not isinstance(layer, OrderedLinear):
        return dense
    out = np.empty_like(dense)
    out[:, layer.order.numpy()] = dense
    return out


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_the_one_that_it_stands_for(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    want = packers.write(folder, KINDS[name])
    made, config = loaded(folder)
    layers = dict(made.named_modules())
    for module, value in want.items():
        layer = layers[module.removesuffix(".weight")]
        np.testing.assert_array_equal(weight(layer), value.astype(np.float32))
        assert np.abs(value.astype(np.float64) - weight(layer)).max() == 0
    ordered = [isinstance(layer, OrderedLinear) for layer in layers.values()]
    assert any(ordered) == KINDS[name].ordered

    dense, plain = loaded(folder.with_name(folder.name + "-dense"))
    exact = logits(runner(dense, plain, **SMALL), TOKENS, 30)
    got = logits(runner(made, config, **SMALL), TOKENS, 30)
    np.testing.assert_allclose(got, exact, atol=1e-5 * np.abs(exact).max())
    assert (got.argmax(-1) == exact.argmax(-1)).all()
    if name.startswith("fp8"):  # the same floats
        np.testing.assert_array_equal(got, exact)


@pytest.mark.parametrize("name", ["awq", "gptq, act-order", "compressed-tensors", "fp8, channel"])
def test_generates(tmp_path: Path, name: str) -> None:
    """By default and exactly; batches and chunks change no token."""
    folder = tmp_path / "model"
    packers.write(folder, KINDS[name])
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    tokens = []
    for path in (folder, folder.with_name(folder.name + "-dense")):
        with LLM(path, dtype="exact", **SMALL) as llm:
            tokens.append(llm.generate(TOKENS, greedy)[0].outputs[0].token_ids)
    assert tokens[0] == tokens[1]
    with LLM(folder, chunk=7, **SMALL) as llm:
        alone = llm.generate(TOKENS, greedy)[0].outputs[0].token_ids
        both = llm.generate([TOKENS[:9], TOKENS], greedy)[1].outputs[0].token_ids
    assert alone == both
