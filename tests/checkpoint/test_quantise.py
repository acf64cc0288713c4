"""`convert` and `quantize=`: MLX's codes, every architecture, the same model either way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import nanocupy.core as ours
from checkpoint import packers
from golden import prove_mlx_lm
from nanocupy import LLM, SamplingParams, models
from nanocupy.checkpoint import Checkpoint
from nanocupy.core.maths.quantized import quantize_rows
from nanocupy.distributed import Group
from nanocupy.models.quantize_checkpoint import Converted, convert
from ranks import on_threads

CASES = prove_mlx_lm.CASES
TOKENS = prove_mlx_lm.TOKENS
SMALL: dict[str, Any] = {"num_kv_blocks": 8, "max_num_batched_tokens": 32, "threads": 2}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of small random models, made once."""
    root = tmp_path_factory.mktemp("drawn")

    def folder(case: str) -> Path:
        if not (root / case).exists():
            prove_mlx_lm.draw(root / case, case)
        return root / case

    return folder


def logits(folder: Path, quantize: Any = None) -> np.ndarray:
    with Checkpoint(folder) as checkpoint:
        made = models.load(checkpoint, quantize)
        return np.asarray(made(ours.array(np.array([TOKENS], np.int32))).numpy())


def converted(folder: Path, out: Path, **how: Any) -> Converted:
    return convert(folder, out, progress=False, **how)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    with Checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.names()}


@pytest.mark.parametrize("case", CASES)
def test_every_architecture(drawn: Any, tmp_path: Path, case: str) -> None:
    """What a folder holds is what `quantize` makes on loading; routers and norms stay."""
    source = drawn(case)
    for bits, group in ((4, 64), (8, 32), (4, 128)):
        out = tmp_path / f"{bits}-{group}"
        made = converted(source, out, bits=bits, group_size=group)
        assert np.array_equal(logits(out), logits(source, (bits, group)))
        held = tensors(out)
        assert {t.dtype.name for t in held.values()} == {"uint32", "bfloat16"}
        assert not any(n.endswith((".gate.scales", "norm.scales")) for n in held)
        assert made.quantized == sum(n.endswith(".scales") for n in held) and made.kept
        assert made.exact_error <= made.error < 0.2


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_are_mlx_s(dtype: str, bits: int) -> None:
    """To the bit, with groups that are constant, tiny, one-sided, and of ties."""
    mx = pytest.importorskip("mlx.core", reason="MLX: pip install '.[test]'")
    rng = np.random.default_rng(0)
    w = rng.standard_normal((40, 256)) * rng.choice([1e-9, 1e-3, 1, 30], (40, 1))
    w[0], w[1], w[2], w[3, :32], w[4], w[5] = 0, 3, -2, 1e-8, np.abs(w[4]), -np.abs(w[5])
    w[6] = np.round(w[6] * 4) / 4
    theirs = mx.array(w.astype(np.float32)).astype(getattr(mx, dtype))
    mine = ours.array(w.astype(np.float32)).astype(getattr(ours, dtype))
    for group in (32, 64, 128):
        for a, b in zip(
            ours.quantize(mine, group, bits), mx.quantize(theirs, group, bits), strict=True
        ):
            wide = np.array(b if b.dtype == mx.uint32 else b.astype(mx.float32))
            np.testing.assert_array_equal(a.numpy().astype(wide.dtype), wide)


def test_rows_are_quantised_alone() -> None:
    """However many are taken at a time."""
    w = np.random.default_rng(1).standard_normal((2000, 256)).astype(np.float32)
    whole = quantize_rows(w, 64, 4)
    parts = [quantize_rows(w[i : i + 333], 64, 4) for i in range(0, 2000, 333)]
    for one, many in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(many))


@pytest.mark.parametrize("case", ["llama", "mixtral"])
def test_shards(drawn: Any, tmp_path: Path, case: str) -> None:
    converted(drawn(case), tmp_path / "one")
    converted(drawn(case), tmp_path / "many", shard_bytes=60_000)
    one, many = tensors(tmp_path / "one"), tensors(tmp_path / "many")
    assert [*one] == [*many] and all(np.array_equal(one[n], many[n]) for n in one)
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 3 and f"model-00001-of-{len(files):05}.safetensors" == files[0].name
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    total = 0
    for file in files:
        with safe_open(file, "numpy") as opened:
            names = [*opened.keys()]
            assert all(index["weight_map"][name] == file.name for name in names)
        sizes = [tensors_bytes(file, name) for name in names]
        assert sum(sizes) <= 60_000 or len(sizes) == 1
        total += sum(sizes)
    assert index["metadata"]["total_size"] == total


def tensors_bytes(file: Path, name: str) -> int:
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    begin, end = header[name]["data_offsets"]
    return int(end - begin)


def test_what_is_no_weight_is_copied_and_nothing_else(drawn: Any, tmp_path: Path) -> None:
    source = packers.folder(tmp_path / "source")
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((drawn("llama") / name).read_bytes())
    (source / "modeling.py").write_text("raise SystemExit")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    converted(source, tmp_path / "out")
    named = "additional_chat_templates/tool_use.jinja"
    (source / named).parent.mkdir()
    (source / named).write_text("{{ tools }}")
    converted(source, tmp_path / "named")
    assert (tmp_path / "named" / named).read_text() == "{{ tools }}"
    shutil.rmtree(source / "additional_chat_templates")
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert kept == {path.name for path in source.iterdir()} - {"modeling.py", "pytorch_model.bin"}
    for name in kept - {"config.json", "model.safetensors"}:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert config["quantization_config"] == config["quantization"]


def test_an_engine_has_the_same_tokens(tmp_path: Path) -> None:
    """quantize=4 and the converted folder, to the bit."""
    packers.write(tmp_path / "fp8", packers.KINDS["fp8, channel"])
    source = tmp_path / "fp8-dense"
    greedy = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=3)
    for bits in (4, 8):
        converted(source, tmp_path / str(bits), bits=bits)
        outs = []
        for folder, given in ((source, {"quantize": bits}), (tmp_path / str(bits), {})):
            with LLM(folder, **given, **SMALL) as llm:
                outs.append(llm.generate([TOKENS, TOKENS[:3]], greedy))
        for a, b in zip(*outs, strict=True):
            assert a.outputs[0].token_ids == b.outputs[0].token_ids
            assert a.outputs[0].logprobs == b.outputs[0].logprobs


def test_ranks_share_out_what_is_quantised_on_loading(drawn: Any) -> None:
    whole = logits(drawn("qwen3"), (4, 32))

    def work(group: Group) -> np.ndarray:
        with Checkpoint(drawn("qwen3")) as checkpoint:
            made = models.load(checkpoint, (4, 32))
        made.shard(group)
        return np.asarray(made(ours.array(np.array([TOKENS], np.int32))).numpy())

    for got in on_threads(2, work):
        np.testing.assert_allclose(got, whole, atol=1e-5 * np.abs(whole).max())


def test_eight_bit_floats_convert_as_what_they_stand_for(tmp_path: Path) -> None:
    packers.write(tmp_path / "fp8", packers.KINDS["fp8 of transformers"])
    for name in ("fp8", "fp8-dense"):
        converted(tmp_path / name, tmp_path / f"{name}-4")
    mine, dense = tensors(tmp_path / "fp8-4"), tensors(tmp_path / "fp8-dense-4")
    assert [*mine] == [*dense] and all(np.array_equal(mine[n], dense[n]) for n in mine)


def test_refused(drawn: Any, tmp_path: Path) -> None:
    converted(drawn("llama"), tmp_path / "four")
    wrong = [
        (tmp_path / "four", {}, "is quantised already .model.embed_tokens"),
        (drawn("llama"), {"bits": 3}, r"bits must be one of \(4, 8\)"),
        (drawn("llama"), {"group_size": 16}, r"group_size of \(32, 64, 128\)"),
        (drawn("llama"), {"bits": 4.0}, "got 4.0 and 64"),
        (tmp_path / "nowhere", {}, "source must be a model folder, got .*nowhere"),
    ]
    for source, how, said in wrong:
        with pytest.raises(ValueError, match=said):
            converted(source, tmp_path / "out", **how)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="exists already"):
        converted(drawn("llama"), tmp_path / "four")
    with pytest.raises(ValueError, match="is quantised already"):
        logits(tmp_path / "four", (4, 64))
    narrow = Path(prove_mlx_lm.ARCHITECTURES) / "llama"
    with pytest.raises(ValueError, match="has no layer whose inputs divide into groups of 64"):
        converted(narrow, tmp_path / "out")
    assert [*tmp_path.iterdir()] == [tmp_path / "four"]
