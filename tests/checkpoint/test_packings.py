"""Other programs' quantised layouts: the weights by the formats' own formulas, to the bit; whole
models beside the ones that they stand for."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nanocupy.core as mx
from checkpoint import packers
from checkpoint.packers import KINDS
from device.needs import needs_compiler
from models.test_llama import logits, runner
from nanocupy import LLM, SamplingParams, models
from nanocupy.checkpoint import Checkpoint, load_config
from nanocupy.checkpoint.affine_layout import as_affine
from nanocupy.checkpoint.header import TensorInfo
from nanocupy.checkpoint.quantization import read_quantization
from nanocupy.distributed import Group
from nanocupy.kernels import linear
from nanocupy.nn.act_order import ActOrderLinear
from ranks import Place, on_threads

TOKENS = [int(t) for t in np.random.default_rng(5).integers(3, 263, 30)]
SMALL: dict[str, Any] = {"num_kv_blocks": 8, "max_num_batched_tokens": 32, "threads": 2}


def loaded(folder: Path) -> tuple[Any, Any]:
    with Checkpoint(folder) as checkpoint:
        return models.load(checkpoint), checkpoint.config


def weight(layer: Any) -> np.ndarray:
    """What a layer multiplies its inputs with."""
    dense = layer.dense().numpy()
    if not isinstance(layer, ActOrderLinear):
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
    ordered = [isinstance(layer, ActOrderLinear) for layer in layers.values()]
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


def test_eight_bit_floats_are_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("fp8, tensor", "awq"):
        packers.write(tmp_path / name[:3], KINDS[name])
        with LLM(tmp_path / name[:3], progress=True, **SMALL):
            said = capfd.readouterr().err
        assert ("8-bit floats are read as bfloat16" in said) == (name == "fp8, tensor")


AWQ, GPTQ = KINDS["awq"].config, KINDS["gptq"].config
PACKED, FLOAT = KINDS["compressed-tensors"].config, KINDS["fp8, channel"].config
FP8 = KINDS["fp8 of transformers"].config


def scheme(config: dict[str, Any], outer: dict[str, Any] | None = None, **weights: Any) -> Any:
    """A compressed-tensors config with other weights."""
    group = config["config_groups"]["group_0"]
    changed = {**group, "weights": {**group["weights"], **weights}}
    return {**config, "config_groups": {"group_0": changed}, **(outer or {})}


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({**AWQ, "bits": 8}, "awq with 8 bits, version 'gemm'"),
        ({**AWQ, "version": "gemv"}, "awq with 4 bits, version 'gemv'"),
        ({**AWQ, "version": "gemv_fast"}, "version 'gemv_fast'"),
        ({**AWQ, "zero_point": False}, "awq without zero points"),
        ({**GPTQ, "bits": 3}, "gptq with 3 bits"),
        ({**GPTQ, "bits": 2}, "gptq with 2 bits"),
        ({**GPTQ, "checkpoint_format": "marlin"}, "gptq in checkpoint_format 'marlin'"),
        ({**GPTQ, "is_marlin_format": True}, "gptq in checkpoint_format 'marlin'"),
        ({**GPTQ, "pack_dtype": "int8"}, "gptq packed in 'int8'"),
        (
            {**GPTQ, "dynamic": {"-:head": {}, "+:mlp": {"bits": 8}}},
            r"for \['\+:mlp'\] \(dynamic\)",
        ),
        (scheme(PACKED, num_bits=3), "'pack-quantized' with int weights of 3 bits"),
        (
            scheme(PACKED, {"format": "int-quantized"}, num_bits=8),
            "'int-quantized' with int weights",
        ),
        (scheme(PACKED, {"format": "marlin-24"}), "format 'marlin-24'"),
        (scheme(FLOAT, {"format": "nvfp4-pack-quantized"}, num_bits=4), "'nvfp4-pack-quantized'"),
        (scheme(FLOAT, {"format": "mxfp4-pack-quantized"}, num_bits=4), "'mxfp4-pack-quantized'"),
        ({**PACKED, "sparsity_config": {"format": "sparse-24-bitmask"}}, "with sparsity_config"),
        ({**PACKED, "transform_config": {"config_groups": {"u": {}}}}, "with transform_config"),
        ({**PACKED, "config_groups": {}}, "config_groups must be an object"),
        ({**PACKED, "config_groups": {"a": 3}}, "with a scheme 3"),
        (
            {**PACKED, "config_groups": {**PACKED["config_groups"], **FLOAT["config_groups"]}},
            "'pack-quantized' with float weights of 8 bits and quantised activations",
        ),
        ({**FP8, "weight_block_size": 128}, "8-bit floats in blocks of 128"),
        ({**FP8, "weight_block_size": [0, 128]}, r"blocks of \[0, 128\]"),
        ({**FP8, "fmt": "e5m2"}, "fp8 in 'e5m2'"),
        *(
            ({"quant_method": name}, f"quantization method '{name}'")
            for name in (
                "bitsandbytes",
                "mxfp4",
                "modelopt",
                "quanto",
                "hqq",
                "torchao",
                "fbgemm_fp8",
            )
        ),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, said: Any, named: str) -> None:
    """Before any weight is looked at; the error lists what is."""
    (tmp_path / "config.json").write_text(json.dumps(packers.config(quantization_config=said)))
    with pytest.raises(ValueError, match=named) as error:
        load_config(tmp_path)
    if "must be an object" not in named:
        assert "supported: MLX's affine with 4 or 8 bits, awq (4 bits, version gemm)" in str(
            error.value
        )


def broken(folder: Path, name: str, change: Any) -> None:
    """A model of a kind in which one module's tensors are changed."""
    kind = KINDS[name]

    def make(n: int, k: int, rng: np.random.Generator) -> Any:
        tensors, weight = kind.make(n, k, rng)
        change(tensors)
        return tensors, weight

    packers.write(folder, kind._replace(make=make))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("awq", lambda t: t.pop("qzeros"), "q_proj.qzeros' is missing"),
        (
            "awq",
            lambda t: t.update(qzeros=t["qzeros"][:, :-1].copy()),
            r"expected I32 and \(6, 24\)",
        ),
        ("awq", lambda t: t.update(scales=t["scales"][:, :-8].copy()), "scales' is F16"),
        ("awq", lambda t: t.update(qweight=t["qweight"].view(np.float32)), "qweight' is F32"),
        ("gptq", lambda t: t.update(scales=t["scales"][:3].copy()), "qzeros' is I32"),
        (
            "gptq, act-order",
            lambda t: t["g_idx"].__setitem__(0, 7),
            "192 inputs into 6 equal groups",
        ),
        ("gptq, act-order", lambda t: t["g_idx"].fill(0), "192 inputs into 6 equal groups"),
        ("gptq, act-order", lambda t: t["g_idx"].fill(-1), "192 inputs into 6 equal groups"),
        ("gptq", lambda t: t["bias"].fill(1), "unexpected .*q_proj.bias"),
        (
            "compressed-tensors",
            lambda t: t.update(weight_shape=np.array([192, 120])),
            r"weight_packed' is I32 \(192, 24\)|120 inputs of 4 bits",
        ),
        (
            "compressed-tensors",
            lambda t: t.update(weight_shape=np.array([-1, 0])),
            "weight_packed' is I32",
        ),
        ("compressed-tensors", lambda t: t.pop("weight_scale"), "weight_scale' is missing"),
        (
            "compressed-tensors",
            lambda t: t.update(weight_scale=np.repeat(t["weight_scale"], 2, 1)),
            "192 inputs of 4 bits in 12 groups; supported are",
        ),
        (
            "fp8, channel",
            lambda t: t.update(weight_scale=t["weight_scale"][:7].copy()),
            r"\(7, 1\)",
        ),
        (
            "fp8 of transformers",
            lambda t: t.update(weight_scale_inv=t["weight_scale_inv"][:, :1].copy()),
            "weight_scale_inv' is F32",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, name: str, change: Any, said: str
) -> None:
    broken(tmp_path / "model", name, change)
    with pytest.raises(ValueError, match=said):
        loaded(tmp_path / "model")


def test_scales_of_keys_and_values_are_let_be(tmp_path: Path) -> None:
    broken(tmp_path / "model", "fp8, channel", lambda t: t.update(k_scale=np.ones(1, np.float32)))
    loaded(tmp_path / "model")
    broken(tmp_path / "other", "fp8, channel", lambda t: t.update(z_scale=np.ones(1, np.float32)))
    with pytest.raises(ValueError, match=r"unexpected .*q_proj.z_scale"):
        loaded(tmp_path / "other")


def test_scales_too_large_for_their_dtype_are_refused(tmp_path: Path) -> None:
    """Eight times as large they would be infinite in float16."""
    broken(tmp_path / "model", "gptq, sym", lambda t: t["scales"].fill(60000))
    made, _ = loaded(tmp_path / "model")
    with pytest.raises(ValueError, match="have biases beyond float16"):
        dict(made.named_modules())["model.layers.0.mlp.up_proj"].dense()


def test_one_weight_in_two_layouts_is_refused(tmp_path: Path) -> None:
    broken(tmp_path / "model", "awq", lambda t: t.update(weight=np.zeros((2, 2), np.float32)))
    with pytest.raises(ValueError, match=r"q_proj.weight.* in two layouts"):
        loaded(tmp_path / "model")


def test_modules_that_are_left_out_stay_floats(tmp_path: Path) -> None:
    kind = KINDS["awq"]

    def make(n: int, k: int, rng: np.random.Generator) -> Any:
        if n != packers.MLP:
            return kind.make(n, k, rng)
        weight = rng.standard_normal((n, k)).astype(np.float16)
        return {"weight": weight}, weight.astype(np.float64)

    want = packers.write(tmp_path / "model", kind._replace(make=make))
    made, _ = loaded(tmp_path / "model")
    kinds = {type(layer).__name__ for layer in made.modules()}
    assert {"Linear", "QuantizedLinear"} <= kinds
    for module, value in want.items():
        layer = dict(made.named_modules())[module.removesuffix(".weight")]
        np.testing.assert_array_equal(weight(layer), value.astype(np.float32))


def test_ranks_share_out_what_is_in_order(tmp_path: Path) -> None:
    """Codes that are made on loading divide as others do; sorted inputs do not."""
    for name in ("awq", "gptq, act-order"):
        packers.write(tmp_path / name[:4], KINDS[name])
    whole = dense(loaded(tmp_path / "awq")[0])

    def work(group: Group) -> np.ndarray:
        made, _ = loaded(tmp_path / "awq")
        made.shard(group)
        return dense(made)

    for got in on_threads(2, work):
        np.testing.assert_allclose(got, whole, atol=1e-5 * np.abs(whole).max())
    with pytest.raises(ValueError, match=r"act-order.* cannot be divided over 2 ranks"):
        loaded(tmp_path / "gptq")[0].shard(Place(0, 2))


def dense(made: Any) -> np.ndarray:
    return np.asarray(made(mx.array(np.array([TOKENS], np.int32))).numpy()[0])


def test_rows_are_sorted_once_for_all_that_read_them_so(tmp_path: Path) -> None:
    """Of seven layers q, k and v have one order, gate and up another."""
    packers.write(tmp_path / "model", KINDS["gptq, act-order"])
    run = runner(*loaded(tmp_path / "model"), **SMALL)
    names = [launch.kernel.name for launch in run.program.launches()]
    assert names.count("move_columns") == 4 * packers.LAYERS


@needs_compiler
@pytest.mark.parametrize("name", ["awq", "gptq, act-order"])
def test_the_emulated_gpu_agrees(tmp_path: Path, name: str) -> None:
    """Biases of float32 beside scales of float16; sorted inputs."""
    packers.write(tmp_path / "model", KINDS[name])
    made, config = loaded(tmp_path / "model")
    want = dense(loaded(tmp_path / "model")[0])
    got = logits(runner(made, config, device="emulated", dtype="exact", **SMALL), TOKENS, 30)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_sorted_experts_are_refused(tmp_path: Path) -> None:
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    rng, tensors = np.random.default_rng(0), packers.others(np.random.default_rng(0))
    kinds = {n: KINDS[k] for n, k in (("attention", "gptq"), ("experts", "gptq, act-order"))}
    for module, (n, k) in packers.shapes().items():
        role = names.get(module.rpartition(".")[2])
        path, part = module, kinds["attention"]
        if role:
            path = module.replace(
                f"mlp.{module.rpartition('.')[2]}", f"block_sparse_moe.experts.0.{role}"
            )
            part = kinds["experts"]
        tensors |= {f"{path}.{leaf}": t for leaf, t in part.make(n, k, rng)[0].items()}
    for i in range(packers.LAYERS):
        gate = np.zeros((1, packers.HIDDEN), np.float32)
        tensors[f"model.layers.{i}.block_sparse_moe.gate.weight"] = gate
    packers.save(tmp_path / "model.safetensors", tensors)
    mixture = {"model_type": "mixtral", "num_local_experts": 1, "num_experts_per_tok": 1}
    said = packers.config(quantization_config=GPTQ, sliding_window=None, **mixture)
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"act-order .* is not supported for experts"):
        loaded(tmp_path)


GOLDEN = Path(__file__).parent.parent / "golden" / "packings.npz"
SAID = {
    "awq": "awq",
    "gptq, 4 bits": "gptq",
    "gptq, 8 bits": "gptq, 8 bits",
    "gptq_v2, 4 bits": "gptq_v2",
    "pack-quantized, 4 bits": "compressed-tensors",
    "pack-quantized, 4 bits, asymmetric": "compressed-tensors, asymmetric",
    "pack-quantized, 8 bits, channel": "compressed-tensors, 8 bits, channel",
    "pack-quantized, 4 bits, actorder": "compressed-tensors, actorder",
    "float-quantized, tensor": "fp8, tensor",
    "float-quantized, channel": "fp8, channel",
}


@pytest.mark.parametrize("name", SAID)
def test_as_other_programs_pack(tmp_path: Path, name: str) -> None:
    """Modules that compressed-tensors and vLLM packed: what they say that they stand for."""
    kinds = {np.dtype(np.uint16): packers.BF16, np.dtype(np.uint8): packers.F8}
    with np.load(GOLDEN) as file:
        found = {n.rpartition("/")[2]: file[n] for n in file if n.rpartition("/")[0] == name}
    want = found.pop("dense")
    tensors = {f"m.{n}": t.view(kinds.get(t.dtype, t.dtype)) for n, t in found.items()}
    packers.save(tmp_path / packers.WEIGHTS, tensors)
    config = packers.config(quantization_config=KINDS[SAID[name]].config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with Checkpoint(tmp_path) as checkpoint:
        parts = {n.removeprefix("m."): checkpoint.read(n) for n in checkpoint.names()}
        form = checkpoint.config.quantization.for_module("m")
        for n in checkpoint.names():
            info = checkpoint.info(n)
            assert info.shape == checkpoint.read(n).shape
            assert info.nbytes == checkpoint.read(n).nbytes
    if form is None:
        np.testing.assert_array_equal(parts["weight"], want.astype(packers.BF16))
        return
    got = linear.dequantize(parts["weight"], parts["scales"], parts["biases"], form[0])
    order = parts.get("order", np.arange(want.shape[1]))
    assert ("order" in parts) == ("actorder" in name)
    np.testing.assert_array_equal(got, want[:, order])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 200) | st.sampled_from(["", "int", "gptq"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_config_is_read_or_refused(data: st.DataObject) -> None:
    """One field is something else, at any depth."""
    config = json.loads(json.dumps(KINDS[data.draw(st.sampled_from([*KINDS]))].config))
    place = config
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not (isinstance(place[key], dict) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(ANYTHING)
    with contextlib.suppress(ValueError):
        found = read_quantization({"quantization_config": config})
        assert found is None or found.bits in (4, 8)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_tensors_are_read_or_refused(data: st.DataObject) -> None:
    """One tensor has another shape, dtype or values, or is not there."""
    kind = KINDS[data.draw(st.sampled_from([*KINDS]))]
    tensors, _ = kind.make(32, 64, np.random.default_rng(0))
    leaf = data.draw(st.sampled_from(sorted(tensors)))
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 4, 8, 32, 64]), max_size=3)))
    dtype = data.draw(st.sampled_from([t.dtype for t in tensors.values()]))
    bits = data.draw(st.sampled_from([0, 1, 0x7F, 0xFF]))
    values = np.full(shape, bits, np.uint8)
    tensors[leaf] = np.repeat(values[..., None], dtype.itemsize, -1).view(dtype)[..., 0]
    if data.draw(st.booleans()) and len(tensors) > 1:
        del tensors[data.draw(st.sampled_from(sorted(tensors)))]
    named = {f"m.{n}": t for n, t in tensors.items()}
    infos = {
        n: TensorInfo(n, packers.NAMES[t.dtype], t.shape, t.nbytes, Path("x"), 0)
        for n, t in named.items()
    }
    with contextlib.suppress(ValueError), np.errstate(all="ignore"):
        found = as_affine(
            read_quantization({"quantization_config": kind.config}), infos, named.__getitem__
        )
        for made in found.derived.values():
            value = made.make(*(named[source] for source in made.sources))
            assert value.shape == made.info.shape and value.nbytes == made.info.nbytes


@pytest.mark.parametrize("name", ["awq", "gptq, act-order", "fp8 of transformers"])
def test_somebody_else_s_model_file_has_them_too(tmp_path: Path, name: str) -> None:
    packers.write(tmp_path / "model", KINDS[name])
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    tokens = []
    for file in (None, "checkpoint.llama_file"):
        with LLM(tmp_path / "model", model_file=file, dtype="exact", **SMALL) as llm:
            tokens.append(llm.generate(TOKENS, greedy)[0].outputs[0].token_ids)
    assert tokens[0] == tokens[1]
