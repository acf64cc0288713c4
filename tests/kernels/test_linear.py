"""Linear layers: every format against NumPy, and GEMV row = GEMM row to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nanocupy.device.cpu import target
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import fixed_rows
from nanocupy.kernels import embedding, launches_of, linear, quantize

CPU = launches_of("cpu")

FORMATS = [
    "f32",
    "f16",
    "bf16",
    *(
        f"q{bits}_{group}_{kind}"
        for bits in (4, 8)
        for group in (32, 64)
        for kind in ("f16", "bf16")
    ),
    "q4_128_f32",
    "s4_32_f16",
    "s8_64_bf16",
    "s8_16_f32",
    "q8_16_f32",
]
KINDS = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def make(form: str, n: int, k: int, seed: int = 0) -> tuple[Any, np.ndarray]:
    """(what `pack` takes, the same weight as f32)."""
    rng = np.random.default_rng(seed)
    if form[0] not in "qs":
        weight = rng.standard_normal((n, k)).astype(KINDS[form])
        return weight, weight.astype(np.float32)
    bits, group, kind = form[1:].split("_")
    codes = rng.integers(0, 2**32, (n, k * int(bits) // 32), dtype=np.uint32)
    scales = (rng.random((n, k // int(group))) * 0.1).astype(KINDS[kind])
    biases = (rng.standard_normal((n, k // int(group))) * 0.5).astype(KINDS[kind])
    if form[0] == "s":
        biases = (scales.astype(np.float32) * -(2.0 ** (int(bits) - 1))).astype(KINDS[kind])
    return (codes, scales, biases, int(bits)), linear.dequantize(codes, scales, biases, int(bits))


def apply(
    device: CpuDevice, weight: linear.PackedWeight, x: np.ndarray, meets: str, bias: Any = None
) -> np.ndarray:
    rows = fixed_rows(device, len(x))
    source, stride, launches = device.asarray(x), 4 * weight.k, []
    weight = replace(weight, activations=meets)
    if codes := weight.codes:
        stride = codes.row_bytes(weight.k)
        record = device.empty((len(x), stride), np.uint8)
        launches.append(
            CPU.quantize.launch(device, record, source, rows, weight.k, codes, x_stride=weight.k)
        )
        source = record
    elif meets == "bf16":
        stride = 2 * weight.k
        record = device.empty((len(x), weight.k), ml_dtypes.bfloat16)
        launches.append(CPU.cast.launch(device, record, source, rows, weight.k))
        source = record
    out = device.empty((len(x), weight.n), np.float32)
    launches += CPU.linear.launch(
        device,
        weight,
        source,
        out,
        rows,
        x_stride=stride,
        out_stride=4 * weight.n,
        bias=bias,
    )
    device.capture(launches).run()
    return out


def expected(x: np.ndarray, weight: np.ndarray, group: int, meets: str) -> np.ndarray:
    if meets == "bf16":
        x = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    elif meets != "f32":
        codes, scales = quantize.reference(x, quantize.Codes(meets, group))
        x = codes.astype(np.float64) * np.repeat(scales, group, axis=1)
    return linear.reference(x, weight)


def met(form: str) -> tuple[str, ...]:
    """The activations that a format meets on this CPU."""
    if form[0] not in "qs":
        return ("f32", "bf16") if form == "bf16" and target.dots_bf16() else ("f32",)
    return ("f32", "i16", "i8") if target.dots_bytes(int(form[1])) else ("f32", "i16")


CASES = [(form, meets) for form in FORMATS for meets in met(form)]


@pytest.mark.parametrize(("form", "meets"), CASES)
@pytest.mark.parametrize(("n", "k"), [(192, 256), (90, 128)])
def test_agrees_with_numpy(form: str, meets: str, n: int, k: int) -> None:
    device = CpuDevice(threads=2)
    raw, plain = make(form, n, k)
    (weight,) = CPU.linear.pack(device, [raw])
    x = np.random.default_rng(1).standard_normal((19, k)).astype(np.float32)
    want = expected(x, plain, weight.format.group, meets)
    np.testing.assert_allclose(
        apply(device, weight, x, meets), want, atol=2e-4 * np.abs(want).max()
    )


@pytest.mark.parametrize(("form", "meets"), CASES)
def test_a_row_does_not_depend_on_its_company(form: str, meets: str) -> None:
    """GEMV row = GEMM row to the bit, for M = 1...40 and any number of threads."""
    raw, _ = make(form, 224, 256)
    x = np.random.default_rng(2).standard_normal((40, 256)).astype(np.float32)
    x[7] = 0
    device = CpuDevice(threads=1)
    (weight,) = CPU.linear.pack(device, [raw])
    alone = np.concatenate([apply(device, weight, x[m : m + 1], meets) for m in range(40)])
    for threads in (1, 2, 3):
        device = CpuDevice(threads=threads)
        for m in range(1, 41) if threads == 2 else (1, 5, 40):
            assert np.array_equal(apply(device, weight, x[:m], meets), alone[:m]), (threads, m)


def test_neighbours_in_one_buffer_join() -> None:
    device = CpuDevice(threads=2)
    pieces = [make("q4_32_f16", n, 128, seed=n) for n in (128, 64, 70)]
    a, b, c = CPU.linear.pack(device, [raw for raw, _ in pieces])
    assert b.follows(a) and c.follows(b) and not c.follows(a) and not a.follows(b)
    x = np.random.default_rng(3).standard_normal((3, 128)).astype(np.float32)
    apart = np.concatenate([apply(device, w, x, "i16") for w in (a, b, c)], axis=1)
    assert np.array_equal(apply(device, a.joined(b).joined(c), x, "i16"), apart)


@pytest.mark.parametrize("form", FORMATS)
def test_a_weight_packed_in_pieces_is_the_same(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make(form, 200, 128)[0]
    (whole,) = CPU.linear.pack(CpuDevice(threads=1), [raw])
    monkeypatch.setattr(CPU.linear, "CHUNK", 1)  # 64 outputs at a time
    (pieces,) = CPU.linear.pack(CpuDevice(threads=1), [raw])
    assert np.array_equal(pieces.data, whole.data)


@pytest.mark.parametrize("form", ["s4_32_f16", "s8_64_bf16"])
def test_biases_that_follow_from_scales_are_not_stored(form: str) -> None:
    """Beside a weight that has others, the same biases are stored, and say the same."""
    device = CpuDevice(threads=2)
    raw, _ = make(form, 128, 256)
    other, _ = make(form.replace("s", "q"), 64, 256)
    (alone,), (beside, _) = CPU.linear.pack(device, [raw]), CPU.linear.pack(device, [raw, other])
    assert alone.format.symmetric and not beside.format.symmetric
    assert alone.nbytes < beside.nbytes
    x = np.random.default_rng(7).standard_normal((5, 256)).astype(np.float32)
    for meets in met(form):
        got, want = (apply(device, weight, x, meets) for weight in (alone, beside))
        np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())


def test_bias_is_added_last() -> None:
    device = CpuDevice(threads=2)
    (weight,) = CPU.linear.pack(device, [make("bf16", 80, 64)[0]])
    x = np.random.default_rng(4).standard_normal((5, 64)).astype(np.float32)
    bias = device.empty((96,), np.float32)
    bias[:80] = np.random.default_rng(5).standard_normal(80)
    for rows in (x, x[:1]):
        plain = apply(device, weight, rows, "f32")
        assert np.array_equal(apply(device, weight, rows, "f32", bias), plain + bias[:80])


@pytest.mark.parametrize("form", FORMATS)
def test_embedding_reads_the_packed_weight(form: str) -> None:
    device = CpuDevice(threads=2)
    raw, plain = make(form, 150, 128)
    (weight,) = CPU.linear.pack(device, [raw])
    tokens = np.array([0, 149, 63, 64, 77], np.int32)
    out = device.empty((5, 128), np.float32)
    rows = fixed_rows(device, 5)
    device.capture([CPU.embedding.launch(device, weight, device.asarray(tokens), out, rows)]).run()
    assert np.array_equal(out, embedding.reference(tokens, plain))


def test_embedding_refuses_a_token_that_does_not_exist() -> None:
    device = CpuDevice(threads=1)
    (weight,) = CPU.linear.pack(device, [make("f32", 10, 16)[0]])
    tokens, rows = device.asarray(np.array([10], np.int32)), fixed_rows(device, 1)
    graph = device.capture(
        [CPU.embedding.launch(device, weight, tokens, device.empty((1, 16), np.float32), rows)]
    )
    with pytest.raises(RuntimeError, match="embedding"):
        graph.run()


def parts_of(raw: Any, ends: list[int]) -> list[Any]:
    """The rows of a weight in pieces."""
    arrays = raw[:3] if isinstance(raw, tuple) else (raw,)
    pieces = [
        [a[i:j] for a in arrays] for i, j in zip([0, *ends], [*ends, len(arrays[0])], strict=True)
    ]
    return [(*p, raw[3]) if isinstance(raw, tuple) else p[0] for p in pieces]


@pytest.mark.parametrize("form", FORMATS)
def test_parts_of_an_embedding_add_up(form: str) -> None:
    """Rows that another part has are zeros; one part has a single row."""
    device, ends = CpuDevice(threads=2), [64, 65]
    raw, plain = make(form, 150, 128)
    tokens = np.array([0, 149, 63, 64, 65, 77], np.int32)
    rows, total = fixed_rows(device, 6), np.zeros((6, 128), np.float32)
    for first, part in zip([0, *ends], parts_of(raw, ends), strict=True):
        (weight,) = CPU.linear.pack(device, [part])
        out = device.asarray(np.full((6, 128), 7, np.float32))
        ids = device.asarray(tokens)
        table = {"first": first, "vocabulary": 150}
        device.capture([CPU.embedding.launch(device, weight, ids, out, rows, **table)]).run()
        own = plain[first : first + weight.n]
        assert np.array_equal(out, embedding.reference(tokens, own, first, 150))
        total += out
    assert np.array_equal(total, plain[tokens])


@pytest.mark.parametrize("bad", [-1, 30, 1 << 30, -(1 << 31)])
def test_a_part_refuses_a_token_that_no_part_has(bad: int) -> None:
    device = CpuDevice(threads=1)
    raw, plain = make("f32", 10, 16)
    (weight,) = CPU.linear.pack(device, [raw])
    tokens = device.asarray(np.array([bad], np.int32))
    out, rows = device.empty((1, 16), np.float32), fixed_rows(device, 1)
    table = {"first": 10, "vocabulary": 30}
    graph = device.capture([CPU.embedding.launch(device, weight, tokens, out, rows, **table)])
    with pytest.raises(RuntimeError, match=r"embedding.*code 1"):
        graph.run()
    with pytest.raises(IndexError, match="of a vocabulary of 30"):
        embedding.reference(tokens, plain, 10, 30)


@pytest.mark.parametrize("form", FORMATS)
def test_a_part_of_the_inputs_packs_as_its_copy(form: str) -> None:
    """A view of some columns, as ranks have it, is what a contiguous copy is."""
    device = CpuDevice(threads=1)
    raw, _ = make(form, 70, 512)
    whole = raw if isinstance(raw, tuple) else (raw,)
    views = [a[:, a.shape[1] // 4 : a.shape[1] // 2] for a in whole[:3]]
    copies = [np.ascontiguousarray(a) for a in views]
    assert not views[0].flags.c_contiguous
    weights = [(*a, *whole[3:]) if isinstance(raw, tuple) else a[0] for a in (views, copies)]
    (got,), (want,) = (CPU.linear.pack(device, [weight]) for weight in weights)
    assert (got.n, got.k) == (70, 128) and got.data.tobytes() == want.data.tobytes()


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        CPU.linear.pack(CpuDevice(threads=1), [np.zeros((4, 4))])
    with pytest.raises(ValueError, match="groups of 16"):
        codes = np.zeros((64, 4), np.uint32)
        scales = np.zeros((64, 2), np.float16)
        CPU.linear.pack(CpuDevice(threads=1), [(codes, scales, scales, 4)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("meets", ["f32", "i16"])
def test_what_is_not_finite_stays_so(bad: float, meets: str) -> None:
    """And only in its row."""
    device = CpuDevice(threads=2)
    (weight,) = CPU.linear.pack(device, [make("q4_32_f16", 96, 128)[0]])
    x = np.random.default_rng(6).standard_normal((3, 128)).astype(np.float32)
    clean = apply(device, weight, x, meets)
    x[1, 77] = bad
    got = apply(device, weight, x, meets)
    assert not np.isfinite(got[1]).any()
    assert np.array_equal(got[[0, 2]], clean[[0, 2]])


def test_values_too_small_to_scale_count_as_zeros() -> None:
    device = CpuDevice(threads=1)
    (weight,) = CPU.linear.pack(device, [make("q4_32_f16", 64, 64)[0]])
    x = np.full((2, 64), 1e-39, np.float32)
    x[1, 32:] = 1.0
    got = apply(device, weight, x, "i16")
    assert not got[0].any() and np.isfinite(got[1]).all() and got[1].any()
