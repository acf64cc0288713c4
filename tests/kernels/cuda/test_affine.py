"""Affine weights on CUDA: products and embeddings against NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from nanocupy.device.protocols import Rows, fixed_rows
from nanocupy.kernels import embedding, launches_of, linear

CUDA = launches_of("cuda")

DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
POISON = 7.0


class Weight(NamedTuple):
    raw: Any  # what `pack` takes
    plain: np.ndarray  # f32 [n, k]
    reach: np.ndarray  # [n, k]: how large the numbers are that a kernel makes a weight from


def make(bits: int, kind: str, n: int, k: int, group: int, seed: int) -> Weight:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**32, (n, k * bits // 32), dtype=np.uint32)
    scales = (rng.random((n, k // group)) * 0.1).astype(DTYPES[kind])
    biases = (rng.standard_normal((n, k // group)) * 0.5).astype(DTYPES[kind])
    reach = np.abs(biases.astype(float)) + 2 ** (bits + 1) * scales.astype(float)
    plain = linear.dequantize(codes, scales, biases, bits)
    return Weight((codes, scales, biases, bits), plain, np.repeat(reach, group, axis=1))


def activations(meets: str, rows: int, k: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, k)).astype(DTYPES[meets])


def product(
    device: Any, raw: Any, x: np.ndarray, count: int, gap: int = 0, meets: str = "bf16"
) -> Any:
    """(launches, out): x . weight for the first `count` rows; rows have `gap` elements more."""
    (weight,) = CUDA.linear.pack(device, [raw], meets)
    capacity, k = x.shape
    wide = np.full((capacity, k + 16), np.nan, x.dtype)
    wide[:count, :k] = x[:count]
    out = device.asarray(np.full((capacity, weight.n + gap), POISON, np.float32))
    rows = Rows(capacity, device.asarray(np.array([count])))
    strides = {"x_stride": (k + 16) * x.dtype.itemsize, "out_stride": 4 * (weight.n + gap)}
    return CUDA.linear.launch(device, weight, device.asarray(wide), out, rows, **strides), out


def multiply(cuda: Any, raw: Any, x: np.ndarray, count: int, gap: int, meets: str) -> np.ndarray:
    """The same, run: f32 [count, n]. Nothing else may change."""

    def build(device: Any) -> Any:
        launches, out = product(device, raw, x, count, gap, meets)
        return launches, [out]

    (out,) = cuda(build)
    n = len(raw[0])
    assert (out[count:] == POISON).all() and (out[:, n:] == POISON).all()
    return np.array(out[:count, :n])


def check(got: np.ndarray, x: np.ndarray, weight: Weight, rounded: float) -> None:
    """Within what f32 sums can be wrong by, and weights that are `rounded` (relatively)."""
    x = x[: len(got)].astype(np.float64)
    want = x @ weight.plain.astype(np.float64).T
    bound = np.abs(x) @ (weight.reach * 2.0**-19 + np.abs(weight.plain) * rounded).T
    assert (np.abs(got - want) <= bound).all()


shapes = {
    "n": st.integers(1, 80),
    "groups": st.integers(1, 5),
    "group": st.sampled_from([16, 32, 64, 128]),  # 16: only of 8 bits
    "used": st.floats(0, 1),
    "gap": st.integers(0, 5),
    "seed": st.integers(0, 2**32 - 1),
}
widest = example(n=77, groups=5, group=128, used=0.9, gap=3, seed=0)
some = examples(6)


@pytest.mark.parametrize(
    ("bits", "kind", "meets", "capacity"),
    [
        (4, "bf16", "bf16", 1),
        (4, "bf16", "bf16", 3),
        (8, "f16", "f16", 4),
        (8, "f32", "bf16", 2),
        (4, "f16", "f32", 19),  # more rows than a block takes
    ],
)
@given(**shapes)
@widest
@example(n=33, groups=10, group=16, used=1.0, gap=0, seed=1)
@some
def test_few_rows(
    cuda: Any, bits: int, kind: str, meets: str, capacity: int, n: int, groups: int, group: int,
    used: float, gap: int, seed: int,
) -> None:  # fmt: skip
    group = max(group, 128 // bits)
    weight = make(bits, kind, n, groups * group, group, seed)
    x = activations(meets, capacity, groups * group, seed)
    got = multiply(cuda, weight.raw, x, round(used * capacity), gap, meets)
    check(got, x, weight, 0)


@pytest.mark.parametrize(
    ("bits", "kind", "meets", "capacity", "rounded"),
    [
        (4, "bf16", "bf16", 9, 2.0**-8),  # half a unit in the last place: 8 and 11 bits
        (4, "f16", "f16", 32, 2.0**-11),
        (8, "f16", "f16", 70, 2.0**-11),
    ],
)
@given(**shapes)
@widest
@example(n=33, groups=10, group=16, used=1.0, gap=0, seed=1)
@example(n=20, groups=1, group=16, used=1.0, gap=0, seed=0)
@some
def test_many_rows(
    cuda: Any, bits: int, kind: str, meets: str, capacity: int, rounded: float, n: int,
    groups: int, group: int, used: float, gap: int, seed: int,
) -> None:  # fmt: skip
    group = max(group, 128 // bits)
    weight = make(bits, kind, n, groups * group, group, seed)
    x = activations(meets, capacity, groups * group, seed)
    got = multiply(cuda, weight.raw, x, round(used * capacity), gap, meets)
    check(got, x, weight, rounded)


def test_a_row_does_not_depend_on_its_company(cuda: Any) -> None:
    """Nor, up to four rows, on how many there can be."""
    weight = make(4, "bf16", 50, 320, 64, seed=1)
    x = activations("bf16", 4, 320, seed=2)
    x[2] = np.nan
    together = multiply(cuda, weight.raw, x, 4, 0, "bf16")
    assert np.isnan(together[2]).all() and np.isfinite(np.delete(together, 2, axis=0)).all()
    alone = [multiply(cuda, weight.raw, x[i : i + 1], 1, 0, "bf16") for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(alone), together)
    x = activations("bf16", 16, 320, seed=3)
    x[3] = np.nan
    many = multiply(cuda, weight.raw, x, 16, 0, "bf16")
    np.testing.assert_array_equal(multiply(cuda, weight.raw, x[2:12], 10, 0, "bf16"), many[2:12])


def test_codes_scales_and_biases_of_every_size(cuda: Any) -> None:
    """Every code, and biases that nearly cancel them."""
    codes = np.arange(256, dtype=np.uint8).reshape(2, 128)
    scales, biases = np.float32([[3e-3], [1e-8]]), np.float32([[-0.192], [65000]])
    raw = (codes.view(np.uint32), scales, biases, 8)
    x = np.eye(128, dtype=np.float32)
    got = multiply(cuda, raw, x, 128, 0, "f32")
    want = codes * scales.astype(float) + biases
    assert (np.abs(got.T - want) <= 2.0**-23 * (256 * scales + np.abs(biases))).all()


def test_rows_that_no_kernel_can_read_are_refused(cuda: Any) -> None:
    def build(device: Any) -> Any:
        (weight,) = CUDA.linear.pack(device, [make(4, "f16", 3, 32, 32, 0).raw], "f16")
        x, out = device.empty((2, 36), np.float16), device.empty((2, 3), np.float32)
        with pytest.raises(NotImplementedError, match="36 elements of float16"):
            CUDA.linear.launch(
                device, weight, x, out, fixed_rows(device, 2), x_stride=72, out_stride=12
            )
        return [], []

    cuda(build)


@pytest.mark.parametrize(
    ("bits", "kind", "group"), [(4, "bf16", 32), (8, "f32", 16), (8, "f32", 32), (4, "f16", 32)]
)
def test_embedding(cuda: Any, bits: int, kind: str, group: int) -> None:
    """To the bit; a token that does not exist makes its own row NaN."""
    weight = make(bits, kind, 70, 1056, group, seed=4)
    tokens = np.array([0, 69, 33, 70, -1, 5, 2**31 - 1, 1, 2], np.int32)

    def build(device: Any) -> Any:
        (packed,) = CUDA.linear.pack(device, [weight.raw], "bf16")
        rows = Rows(9, device.asarray(np.array([7])))
        out = device.asarray(np.full((9, 1056), POISON, np.float32))
        return [CUDA.embedding.launch(device, packed, device.asarray(tokens), out, rows)], [out]

    (out,) = cuda(build)
    good = [0, 1, 2, 5]
    np.testing.assert_array_equal(out[good], weight.plain[tokens[good]])
    assert np.isnan(out[[3, 4, 6]]).all() and (out[7:] == POISON).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_part_of_an_embedding(cuda: Any, bits: int) -> None:
    """Rows that another part has are zeros; a token that no part has is NaN."""
    weight = make(bits, "bf16", 70, 64, 32, seed=4)
    tokens = np.array([0, 69, 33, 32, 70, -1], np.int32)
    for first, stop in ((0, 33), (33, 34), (34, 70)):
        part = (*(a[first:stop] for a in weight.raw[:3]), bits)

        def build(device: Any, part: Any = part, first: int = first) -> Any:
            (packed,) = CUDA.linear.pack(device, [part], "bf16")
            rows, ids = fixed_rows(device, 6), device.asarray(tokens)
            out = device.asarray(np.full((6, 64), POISON, np.float32))
            table = {"first": first, "vocabulary": 70}
            return [CUDA.embedding.launch(device, packed, ids, out, rows, **table)], [out]

        (out,) = cuda(build)
        want = embedding.reference(tokens[:4], weight.plain[first:stop], first, 70)
        np.testing.assert_array_equal(out[:4], want)
        assert np.isnan(out[4:]).all()
