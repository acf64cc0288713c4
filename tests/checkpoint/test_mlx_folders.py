"""MLX's own folders: forms of single layers, experts in one tensor, models inside others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from checkpoint import packers
from golden import prove_mlx_lm
from models.test_llama import logits, runner
from nanocupy import models, nn
from nanocupy.checkpoint import Checkpoint
from nanocupy.core.maths.quantized import quantize_rows
from parity import EXACT_LOGIT

FOLDER = Path(__file__).parent.parent / "golden" / "mlx_lm"
TOKENS = prove_mlx_lm.TOKENS
OWN_FORMS = {
    "qwen3_moe": ("model.layers.1.mlp.gate", (8, 64)),
    "mixtral": ("model.layers.1.block_sparse_moe.experts.3.up_proj", (4, 64)),
    "granite": ("model.layers.0.mlp.down_proj", (8, 64)),
}


def loaded(folder: Path) -> tuple[Any, Any]:
    with Checkpoint(folder) as checkpoint:
        return models.load(checkpoint), checkpoint.config


def quantize(made: Any, form_of: Callable[[str], tuple[int, int] | None]) -> None:
    """Quantise each layer of floats as (bits, group_size) of its path says."""

    def how(path: str, layer: nn.Module) -> bool | dict[str, int]:
        form = form_of(path) if isinstance(layer, nn.Linear | nn.Embedding) else None
        return dict(zip(("bits", "group_size"), form, strict=True)) if form else False

    nn.quantize(made, class_predicate=how)


def dense(made: Any, tokens: list[int] = TOKENS) -> np.ndarray:
    return np.asarray(made(mx.array(np.array([tokens], np.int32))).numpy()[0])


@pytest.mark.parametrize("case", OWN_FORMS)
def test_as_mlx_lm_has_it(case: str) -> None:
    """Folders that mlx-lm wrote: its logits, by NumPy and in the engine."""
    made, config = loaded(FOLDER / case)
    path, form = OWN_FORMS[case]
    layer = dict(made.named_modules())[path]
    assert (layer.bits, layer.group_size) == form
    with np.load(FOLDER / case / "golden.npz") as file:
        tokens, want = file["ids"].tolist(), file["logits"]
    for got in (dense(made, tokens), logits(runner(made, config), tokens, 7)):
        assert np.abs(got - want).max() <= EXACT_LOGIT * np.abs(want).max()
        assert (got.argmax(-1) == want.argmax(-1)).all()


def test_all_forms_in_one_model(tmp_path: Path) -> None:
    """Layers of 4 and 8 bits in groups of 32 and 64, and floats."""
    source = tmp_path / "source"
    prove_mlx_lm.draw(source, "llama")
    forms: dict[str, Any] = {
        "model.embed_tokens": (8, 32),
        "model.layers.0.self_attn.q_proj": (4, 32),
        "model.layers.0.self_attn.k_proj": None,
        "model.layers.1.mlp.down_proj": (8, 64),
        "model.layers.1.mlp.up_proj": (4, 32),
    }
    said = {p: {"bits": f[0], "group_size": f[1]} if f else False for p, f in forms.items()}
    said["model.layers.1.mlp.gate_proj"] = {"bits": 8}  # MLX's group is 64
    forms["model.layers.1.mlp.gate_proj"] = (8, 64)
    out = write_quantised(source, tmp_path / "out", forms, said)
    made, config = loaded(out)
    plain, _ = loaded(source)
    quantize(plain, lambda path: forms.get(path, (4, 64)))
    assert np.array_equal(dense(made), dense(plain))
    exact = dense(made)
    got = logits(runner(made, config), TOKENS, 10)
    np.testing.assert_allclose(got, exact, atol=2e-5 * np.abs(exact).max())


def write_quantised(source: Path, out: Path, forms: Any, said: Any, prefix: str = "") -> Path:
    """A folder of codes as config.json's `said` promises."""
    config = json.loads((source / "config.json").read_text())
    tensors: packers.Tensors = {}
    with Checkpoint(source) as checkpoint:
        for name in checkpoint.names():
            value, module = checkpoint.read(name), name.removesuffix(".weight")
            form = forms.get(module, (4, 64)) if value.ndim == 2 else None
            if not form:
                tensors[prefix + name] = value
                continue
            words, *numbers = quantize_rows(value, form[1], form[0])
            scales, biases = (x.astype(value.dtype) for x in numbers)
            parts = {"weight": words, "scales": scales, "biases": biases}
            tensors |= {f"{prefix}{module}.{leaf}": part for leaf, part in parts.items()}
    out.mkdir()
    packers.save(out / "model.safetensors", tensors)
    how = {"bits": 4, "group_size": 64, **said}
    if prefix:
        config = {"model_type": "gemma3", "text_config": config, "vision_config": {}}
    (out / "config.json").write_text(json.dumps({**config, "quantization": how}))
    return out


def test_forms_are_by_the_checkpoint_s_names(tmp_path: Path) -> None:
    """Inside a model that sees, where MLX calls modules otherwise than we do."""
    source = tmp_path / "source"
    prove_mlx_lm.draw(source, "gemma3")
    path, prefix = "model.layers.2.mlp.up_proj", "language_model."
    said = {prefix + path: {"bits": 8, "group_size": 32}}
    made, _ = loaded(write_quantised(source, tmp_path / "out", {path: (8, 32)}, said, prefix))
    layers = dict(made.named_modules())
    assert (layers[path].bits, layers[path].group_size) == (8, 32)
    plain, _ = loaded(source)
    quantize(plain, lambda p: (8, 32) if p == path else (4, 64))
    assert np.array_equal(dense(made), dense(plain))


def test_another_form_than_promised_is_named(tmp_path: Path) -> None:
    source, path = tmp_path / "source", "model.layers.1.mlp.up_proj"
    prove_mlx_lm.draw(source, "llama")
    out = write_quantised(source, tmp_path / "out", {path: (8, 64)}, {})
    with pytest.raises(ValueError, match=rf"misshapen {path}.weight: \(192, 64\), .*\(192, 32\)"):
        loaded(out)
    other = write_quantised(source, tmp_path / "other", {}, {path: False})
    with pytest.raises(ValueError, match=rf"unexpected {path}.scales"):
        loaded(other)


def test_experts_in_one_tensor_are_parts_of_it() -> None:
    with Checkpoint(FOLDER / "mixtral") as checkpoint:
        names = checkpoint.names()
        assert not any("switch_mlp" in name for name in names)
        whole = np.concatenate(
            [
                checkpoint.read(f"model.layers.0.block_sparse_moe.experts.{i}.up_proj.weight")
                for i in range(4)
            ]
        )
        info = checkpoint.info("model.layers.0.block_sparse_moe.experts.1.up_proj.weight")
        assert info.shape == (64, 8) and info.nbytes == 4 * 64 * 8
    raw = (FOLDER / "mixtral" / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    place = header["model.layers.0.block_sparse_moe.switch_mlp.up_proj.weight"]
    start = 8 + int.from_bytes(raw[:8], "little") + place["data_offsets"][0]
    assert raw[start : start + whole.nbytes] == whole.tobytes()


def test_too_few_experts_are_named(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((FOLDER / "mixtral" / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_local_experts": 5}))
    with pytest.raises(ValueError, match="says 5 experts, and there are tensors of 4"):
        loaded(tmp_path)


def test_experts_stay_together_for_somebody_else_s_model_file() -> None:
    with Checkpoint(FOLDER / "mixtral", custom_model=True) as checkpoint:
        name = "model.layers.0.block_sparse_moe.switch_mlp.up_proj.weight"
        assert checkpoint.info(name).shape == (4, 64, 8)
