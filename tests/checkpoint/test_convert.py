from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes  # noqa: F401  (tells NumPy about bfloat16)
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

from checkpoint import tiny
from checkpoint.gguf_folder import llama3_factors, permute
from nanocupy.checkpoint import convert_gguf, resolve
from nanocupy.checkpoint.gguf import blocks
from nanocupy.checkpoint.gguf.architectures import ARCHITECTURES
from nanocupy.checkpoint.gguf.blocks import BLOCK_FORMATS, to_affine
from nanocupy.checkpoint.gguf.file import KINDS as KINDS_BY_NUMBER
from nanocupy.checkpoint.gguf.model import unpermute
from nanocupy.kernels import linear
from nanocupy.kernels.linear import affine
from nanocupy.text import load_chat_template


def matrix(folder: Path, module: str) -> NDArray[np.float32]:
    """A converted matrix as float32, whatever its format."""
    held = load_file(folder / "model.safetensors")
    if f"{module}.scales" not in held:
        return held[f"{module}.weight"].astype(np.float32)
    config = json.loads((folder / "config.json").read_text())["quantization"]
    bits = config.get(module, config)["bits"]
    parts = (held[f"{module}.{leaf}"] for leaf in ("weight", "scales", "biases"))
    return linear.dequantize(*parts, bits)


def test_pack_puts_element_0_in_the_lowest_bits() -> None:
    q = np.arange(16, dtype=np.uint8).reshape(2, 8)
    assert affine.pack(q, 4)[0, 0] == 0x76543210
    assert affine.pack(q, 8)[0, 0] == 0x03020100
    words = affine.pack(np.arange(32, dtype=np.uint8) % 8, 3)
    assert words.tolist() == [0x88FAC688, 0xC688FAC6, 0xFAC688FA]
    for bits in (2, 3, 4, 5, 6, 8):
        codes = np.random.default_rng(bits).integers(1 << bits, size=(2, 3, 64)).astype(np.uint8)
        words = affine.pack(codes, bits)
        assert words.shape == (2, 3, 2 * bits)
        np.testing.assert_array_equal(affine.unpack(words, bits), codes)
        np.testing.assert_array_equal(affine.unpack(words.view(np.int32), bits), codes)


KINDS = {kind: gguf.GGMLQuantizationType[kind] for kind in BLOCK_FORMATS}
HALVES = {  # where the f16 numbers of a block are
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    **{"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)},
}


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("size", [1.0, 1e-7, 1e4])
def test_blocks_become_affine_bit_for_bit(kind: str, size: float) -> None:
    w = np.random.default_rng(1).standard_normal((7, 96), dtype=np.float32) * np.float32(size)
    raw = gguf.quants.quantize(w, KINDS[kind])
    expected = gguf.quants.dequantize(raw, KINDS[kind])
    got = linear.dequantize(*to_affine(kind, raw), BLOCK_FORMATS[kind].bits)
    np.testing.assert_array_equal(got, expected)  # -0.0 == 0.0: the sign of zero is not kept


@pytest.mark.parametrize("kind", KINDS)
def test_any_block_of_bytes_keeps_its_value(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every type that is taken, as the gguf library has it; also in pieces of a few rows."""
    block = BLOCK_FORMATS[kind]
    assert (block.elements, block.nbytes) == gguf.GGML_QUANT_SIZES[KINDS[kind]]
    raw = np.random.default_rng(2).integers(0, 256, (64, 4, block.nbytes), dtype=np.uint8)
    for at in HALVES[kind]:
        raw[..., at + 1] &= 0xFB  # finite
    raw = raw.reshape(64, -1)
    parts = to_affine(kind, raw)
    expected = gguf.quants.dequantize(raw, KINDS[kind])
    np.testing.assert_array_equal(linear.dequantize(*parts, block.bits), expected)
    monkeypatch.setattr(blocks, "CHUNK", 5 * expected.shape[1])
    for part, again in zip(parts, to_affine(kind, raw), strict=True):
        assert part.dtype == again.dtype and np.array_equal(part, again)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_that_is_not_finite_is_refused(kind: str) -> None:
    raw = np.zeros((2, BLOCK_FORMATS[kind].nbytes), np.uint8)
    for at in HALVES[kind]:
        raw[1, at : at + 2] = np.array([np.inf], "<f2").view(np.uint8)
    with pytest.raises(ValueError, match="not finite"):
        to_affine(kind, raw)


def test_the_sizes_of_blocks_are_the_gguf_librarys() -> None:
    theirs = {t.value: (t.name, *gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGML_QUANT_SIZES}
    assert KINDS_BY_NUMBER.items() <= theirs.items()


def test_a_bias_that_f16_cannot_hold_is_float32() -> None:
    block = np.zeros((1, 34), np.uint8)
    block[:, :2] = np.array([1000.0], "<f2").view(np.uint8)
    assert to_affine("Q8_0", block).biases == np.array([[-128000.0]], np.float32)
    block[:, :2] = np.array([6e-8], "<f2").view(np.uint8)  # a subnormal scale
    assert to_affine("Q8_0", block).biases.dtype == np.float16


def test_unpermute_undoes_llama_cpp() -> None:
    w = np.random.default_rng(3).standard_normal((48, 5), dtype=np.float32)
    np.testing.assert_array_equal(unpermute(permute(w, 4), 4), w)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_convert_keeps_every_number(tmp_path: Path, kind: str) -> None:
    held = tiny.write_gguf(tmp_path / "m.gguf", kind)
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    for name, w in held.items():
        heads = {"attn_q": tiny.HEADS, "attn_k": tiny.KV_HEADS}.get(name.split(".")[-2])
        expected = unpermute(w, heads) if heads else w
        module = ARCHITECTURES["llama"].module(name)
        assert module is not None
        np.testing.assert_array_equal(matrix(folder, module), expected, err_msg=name)
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] and config["rms_norm_eps"] == 1e-5
    assert ("quantization" in config) == (kind in BLOCK_FORMATS)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_mixed_formats_are_named_in_the_config(tmp_path: Path) -> None:
    source = tmp_path / "m.gguf"
    writer_kind = gguf.GGMLQuantizationType
    tensors = tiny.weights(np.random.default_rng(0))
    original = tiny._add

    def mixed(writer: gguf.GGUFWriter, name: str, array: NDArray[np.float32], kind: str) -> object:
        return original(writer, name, array, "Q8_0" if name.startswith("token_embd") else kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "_add", mixed)
        tiny.write_gguf(source, "Q4_1", tensors=tensors)
    assert writer_kind.Q8_0.name == "Q8_0"
    folder = convert_gguf(source, tmp_path / "out", progress=False)
    quantization = json.loads((folder / "config.json").read_text())["quantization"]
    assert quantization == {
        "group_size": 32,
        "bits": 4,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
    }


def test_llama3_rope_factors_are_recognised(tmp_path: Path) -> None:
    rule = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    tensors = tiny.weights(np.random.default_rng(0))
    head_dim = tiny.HIDDEN // tiny.HEADS
    factors = llama3_factors(10000.0, head_dim, rule)
    tensors["rope_freqs.weight"] = factors
    tiny.write_gguf(tmp_path / "m.gguf", tensors=tensors)
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    assert json.loads((folder / "config.json").read_text())["rope_scaling"] == rule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "MXFP4"}, "type MXFP4; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0"),
        ({"arch": "mamba"}, "architecture 'mamba' is not supported; supported: llama, qwen2"),
        ({"pre": "poro-chat"}, "tokenizer.ggml.pre is 'poro-chat'.*Known: dbrx, deepseek-r1-qwen"),
        ({"tokenizer": "bert"}, "tokenizer.ggml.model is 'bert'; byte-level BPE"),
        ({"extra": [("llama.expert_count", 8)]}, "not tensors of a 'llama': blk.0.ffn_gate.weight"),
        ({"extra": [("llama.rope.scaling.type", "yarn")]}, "rope scaling 'yarn'"),
        ({"extra": [("split.count", 3)]}, "file 1 of 3: give the first, named NAME-00001-of-00003"),
        ({"extra": [("llama.rope.dimension_count", 8)]}, "8 rotated dimensions"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def split(path: Path, out: Path, parts: int) -> Path:
    """The same model in several files, as llama.cpp's llama-gguf-split writes them; the first."""
    reader = gguf.GGUFReader(path)
    for part in range(parts):
        writer = gguf.GGUFWriter(out / f"m-{part + 1:05}-of-{parts:05}.gguf", "llama")
        if part == 0:
            for name, value in reader.fields.items():
                if not name.startswith("GGUF.") and name != "general.architecture":
                    sub = value.types[-1] if value.types[0] == gguf.GGUFValueType.ARRAY else None
                    writer.add_key_value(name, value.contents(), value.types[0], sub)
        writer.add_key_value("split.no", part, gguf.GGUFValueType.UINT16)
        writer.add_key_value("split.count", parts, gguf.GGUFValueType.UINT16)
        for tensor in list(reader.tensors)[part::parts]:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return out / f"m-00001-of-{parts:05}.gguf"


def test_a_model_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path / "cache"))
    tiny.write_gguf(tmp_path / "m.gguf")
    whole = convert_gguf(tmp_path / "m.gguf", tmp_path / "whole", progress=False)
    (tmp_path / "parts").mkdir()
    first = split(tmp_path / "m.gguf", tmp_path / "parts", 3)
    joined = convert_gguf(first, tmp_path / "joined", progress=False)
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (joined / name).read_bytes() == (whole / name).read_bytes()
    want, got = (load_file(folder / "model.safetensors") for folder in (whole, joined))
    assert want.keys() == got.keys()
    assert all(np.array_equal(got[name], array) for name, array in want.items())
    assert resolve(first.parent) == resolve(first)
    second, third = (first.with_name(f"m-0000{i}-of-00003.gguf") for i in (2, 3))
    with pytest.raises(ValueError, match="file 2 of 3: give the first"):
        convert_gguf(second, tmp_path / "out", progress=False)
    second.write_bytes(third.read_bytes())
    with pytest.raises(ValueError, match=r"m-00002.* is not file 2 of"):
        convert_gguf(first, tmp_path / "out", progress=False)
    second.unlink()
    with pytest.raises(ValueError, match=r"m-00002.* does not exist"):
        convert_gguf(first, tmp_path / "out", progress=False)


def test_files_that_are_not_gguf_are_refused(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf")
    whole = (tmp_path / "m.gguf").read_bytes()
    for i, data in enumerate([b"", b"GGUF", b"PK\x03\x04", whole[: len(whole) // 2], whole[:5000]]):
        bad = tmp_path / f"bad{i}.gguf"
        bad.write_bytes(data)
        with pytest.raises(ValueError, match=bad.name):
            convert_gguf(bad, tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf")
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "m.gguf", out, progress=False)  # empty: fine
    with pytest.raises(ValueError, match="exists already"):
        convert_gguf(tmp_path / "m.gguf", out, progress=False)


def test_the_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf")
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    with safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "mlx"}
        assert "model.layers.1.self_attn.q_proj.scales" in file.keys()  # noqa: SIM118


def test_named_chat_templates_go_into_the_folder(tmp_path: Path) -> None:
    key, source = "tokenizer.chat_template.tool_use", "{{ tools | tojson }}"
    tiny.write_gguf(tmp_path / "m.gguf", extra=[(key, source)])
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert (folder / "chat_template.jinja").read_text() == tiny.TEMPLATE
    assert (folder / "additional_chat_templates" / "tool_use.jinja").read_text() == source
    message = [{"role": "user", "content": "Hi"}]
    assert load_chat_template(folder).render(message, tools=[{"name": "x"}]) == '[{"name": "x"}]'
    tiny.write_gguf(tmp_path / "odd.gguf", extra=[("tokenizer.chat_template.../x", source)])
    with pytest.raises(ValueError, match="no name for a chat template"):
        convert_gguf(tmp_path / "odd.gguf", tmp_path / "odd")


YARN: list[tuple[str, object]] = [
    ("llama.rope.scaling.type", "yarn"),
    ("llama.rope.scaling.factor", 4.0),
    ("llama.rope.scaling.original_context_length", 64),
]


@pytest.mark.parametrize(
    ("extra", "freqs", "message"),
    [
        (YARN, True, "rope scaling 'yarn' beside factors by frequency"),
        ([("llama.rope.scaling.factor", 4.0)], True, "rope scaling 'linear' beside factors"),
        (
            [("llama.rope.scaling.factor", 4.0), ("llama.rope.scale_linear", 2.0)],
            False,
            r"rope\.scaling\.factor 4, and rope\.scale_linear 2",
        ),
        ([("llama.rope.scaling.type", "longrope")], False, "'longrope' without its factors"),
        (
            [("llama.vocab_size", 300)],
            False,
            r"vocab_size 300, and token_embd",
        ),
    ],
)
def test_metadata_at_odds_is_refused(
    tmp_path: Path, extra: list[tuple[str, object]], freqs: bool, message: str
) -> None:
    tensors = tiny.weights(np.random.default_rng(0), len(tiny.vocabulary()[0]))
    if freqs:
        tensors["rope_freqs.weight"] = np.full(8, 2.0, np.float32)
    tiny.write_gguf(tmp_path / "m.gguf", extra=extra, tensors=tensors)
    with pytest.raises(ValueError, match=message):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    "options",
    [
        {"arch": "x" * 400},
        {"extra": [("llama.rope.scaling.type", "x" * 10**6)]},
        {"extra": [("llama.attention.odd", "x" * 10**6)]},
    ],
)
def test_errors_are_short(tmp_path: Path, options: dict[str, Any]) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", **options)
    with pytest.raises(ValueError, match="not supported") as caught:
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    assert len(str(caught.value)) < 1000


def test_a_key_of_a_megabyte_is_not_repeated(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", extra=[("llama.rope.x" + "y" * 10**6, 2)])
    with pytest.raises(ValueError, match="the length of a key is 1000012") as caught:
        convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    assert len(str(caught.value)) < 1000
