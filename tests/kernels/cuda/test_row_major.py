"""Weights on CUDA: how they lie, what is refused, float products and neighbours in one buffer."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nanocupy.device.protocols import Rows, fixed_rows
from nanocupy.kernels import launches_of, linear

CUDA = launches_of("cuda")

BF16 = ml_dtypes.bfloat16
DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": BF16}


def floats(n: int, k: int, dtype: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(dtype)


def affine(n: int, k: int, seed: int, group: int = 32, bits: int = 4, biases: Any = None) -> Any:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**32, (n, k * bits // 32), dtype=np.uint32)
    scales = (rng.random((n, k // group)) * 0.1).astype(np.float16)
    return codes, scales, floats(n, k // group, biases or np.float16, seed), bits


def on(cuda: Any, check: Any) -> None:
    """Run `check(device)` on every device; it launches nothing."""

    def build(device: Any) -> Any:
        check(device)
        return [], []

    cuda(build)


@pytest.mark.parametrize("meets", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_floats_are_rounded_to_what_they_meet(cuda: Any, meets: str, dtype: Any) -> None:
    weights = [floats(5, 12, dtype, 0), floats(3, 12, dtype, 1)]

    def check(device: Any) -> None:
        packed = CUDA.linear.pack(device, weights, meets)
        for weight, host in zip(packed, weights, strict=True):
            assert (weight.n, weight.k, weight.activations) == (*host.shape, meets)
            assert weight.format == linear.Format(meets)
            got = device.read(*weight.views)
            assert weight.nbytes == got.nbytes and got.dtype == DTYPES[meets]
            np.testing.assert_array_equal(got, host.astype(DTYPES[meets]))

    on(cuda, check)


def test_affine_weights_stay_as_they_are(cuda: Any) -> None:
    raws = [affine(5, 64, 0), affine(2, 64, 1)]

    def check(device: Any) -> None:
        packed = CUDA.linear.pack(device, raws, "bf16")
        for weight, raw in zip(packed, raws, strict=True):
            assert weight.format == linear.Format("f16", 4, 32) and weight.k == 64
            assert weight.nbytes == sum(array.nbytes for array in raw[:3])
            for view, array in zip(weight.views, raw, strict=False):
                assert device.read(view).tobytes() == array.tobytes()

    on(cuda, check)


def test_scales_and_biases_of_two_dtypes_become_f32(cuda: Any) -> None:
    raw = affine(5, 64, 0, biases=np.float32)

    def check(device: Any) -> None:
        (weight,) = CUDA.linear.pack(device, [raw], "f16")
        assert weight.format.kind == "f32"
        for view, array in zip(weight.views[1:], raw[1:], strict=False):
            np.testing.assert_array_equal(device.read(view), array.astype(np.float32))

    on(cuda, check)


def test_unknown_formats_are_refused(cuda: Any) -> None:
    def check(device: Any) -> None:
        with pytest.raises(ValueError, match="float64"):
            CUDA.linear.pack(device, [np.zeros((4, 4))], "bf16")
        for bits, group, told in ((4, 16, "groups of 16"), (2, 32, "2 bits"), (4, 96, "of 96")):
            with pytest.raises(ValueError, match=told):
                CUDA.linear.pack(device, [affine(8, 192, 0, group, bits)], "bf16")

    on(cuda, check)


@pytest.mark.parametrize("kind", ["floats", "affine"])
def test_neighbours_in_one_buffer_join(cuda: Any, kind: str) -> None:
    """The joined product is the three side by side, bias or not."""
    sizes, k = (10, 4, 7), 64
    raws = [affine(n, k, n) if kind == "affine" else floats(n, k, BF16, n) for n in sizes]
    x, bias = floats(3, k, BF16, 5), floats(1, 32, np.float32, 6)[0]

    def build(device: Any) -> Any:
        packed = CUDA.linear.pack(device, raws, "bf16")
        (other,) = CUDA.linear.pack(device, raws[:1], "bf16")
        a, b, c = packed
        assert b.follows(a) and c.follows(b)
        assert not (c.follows(a) or a.follows(b) or a.follows(a) or b.follows(other))
        rows, outs, launches = fixed_rows(device, 3), [], []
        biases = device.asarray(bias)
        for weight, start in ((a.joined(b).joined(c), 0), (a, 0), (b, 10), (c, 14)):
            for added in (None, biases[start:]):
                out = device.empty((3, weight.n), np.float32)
                place = {"x_stride": 2 * k, "out_stride": 4 * weight.n}
                launches += CUDA.linear.launch(
                    device, weight, device.asarray(x), out, rows, bias=added, **place
                )
                outs.append(out)
        return launches, outs

    whole, whole_biased, *parts = cuda(build)
    np.testing.assert_allclose(np.concatenate(parts[::2], axis=1), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(whole_biased, whole + bias[:21])
    plain = [linear.dequantize(*raw) if kind == "affine" else raw for raw in raws]
    want = x.astype(np.float64) @ np.concatenate(plain).astype(np.float64).T
    np.testing.assert_allclose(whole, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("meets", DTYPES)
def test_float_products(cuda: Any, meets: str) -> None:
    """All rows there can be are multiplied: those in use are right, and out's gaps stay."""
    host, x = floats(21, 40, np.float32, 0), floats(6, 40, DTYPES[meets], 1)

    def build(device: Any) -> Any:
        (weight,) = CUDA.linear.pack(device, [host], meets)
        rows = Rows(6, device.asarray(np.array([4])))
        out = device.asarray(np.full((6, 25), 7, np.float32))
        place = {"x_stride": 40 * x.itemsize, "out_stride": 100}
        return CUDA.linear.launch(device, weight, device.asarray(x), out, rows, **place), [out]

    (out,) = cuda(build)
    want = x.astype(np.float64) @ host.astype(x.dtype).astype(np.float64).T
    np.testing.assert_allclose(out[:4, :21], want[:4], rtol=1e-4, atol=1e-4)
    assert (out[:, 21:] == 7).all()


def test_float_rows_with_gaps_are_refused(cuda: Any) -> None:
    def check(device: Any) -> None:
        (weight,) = CUDA.linear.pack(device, [floats(4, 8, BF16, 0)], "bf16")
        x, out = device.empty((2, 10), BF16), device.empty((2, 4), np.float32)
        with pytest.raises(NotImplementedError, match="10 elements apart"):
            CUDA.linear.launch(
                device, weight, x, out, fixed_rows(device, 2), x_stride=20, out_stride=16
            )

    on(cuda, check)


@pytest.mark.parametrize("kind", ["floats", "affine"])
def test_an_embedding_may_be_second_in_its_buffer(cuda: Any, kind: str) -> None:
    raws = [affine(n, 64, n) if kind == "affine" else floats(n, 64, BF16, n) for n in (9, 6)]
    tokens = np.array([0, 5, 6], np.int32)

    def build(device: Any) -> Any:
        weight = CUDA.linear.pack(device, raws, "bf16")[1]
        out = device.empty((3, 64), np.float32)
        rows = fixed_rows(device, 3)
        return [CUDA.embedding.launch(device, weight, device.asarray(tokens), out, rows)], [out]

    (out,) = cuda(build)
    plain = linear.dequantize(*raws[1]) if kind == "affine" else raws[1].astype(np.float32)
    np.testing.assert_array_equal(out[:2], plain[[0, 5]])
    assert np.isnan(out[2]).all()
