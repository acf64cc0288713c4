"""Rounded activations: codes and bf16, alone and by what makes the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import Launch, fixed_rows
from nanocupy.kernels import launches_of, quantize
from nanocupy.kernels.quantize import Codes

BF16 = np.dtype(ml_dtypes.bfloat16)
CPU = launches_of("cpu")
FORMS = [Codes("i16", 32), Codes("i16", 128, 8), Codes("i8", 64), Codes("i8", 32, 128), BF16]
Make = Callable[..., Launch]


def values(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def rounded(run: Any, form: Any, rows: int, width: int, make: Make) -> np.ndarray:
    """What make(device, out, rows, codes) writes: uint8 [rows, bytes]."""
    codes = form if isinstance(form, Codes) else None

    def build(device: CpuDevice) -> Any:
        shape = (rows + 1, codes.row_bytes(width) if codes else width)
        out = device.empty(shape, np.uint8 if codes else BF16)
        return [make(device, out, fixed_rows(device, rows), codes)], [out]

    out = run(build)[0].view(np.uint8)
    assert not out[-1].any()  # the row past the end is left alone
    return np.asarray(out[:-1])


def alone(run: Any, form: Any, x: np.ndarray) -> np.ndarray:
    """x rounded by the kernel that does nothing else."""

    def make(device: CpuDevice, out: Any, rows: Any, codes: Codes | None) -> Launch:
        source, width = device.asarray(x), x.shape[1]
        if codes:
            return CPU.quantize.launch(device, out, source, rows, width, codes, x_stride=width)
        return CPU.cast.launch(device, out, source, rows, width)

    return rounded(run, form, *x.shape, make)


@pytest.mark.parametrize("codes", FORMS[:4], ids=str)
def test_codes_agree_with_numpy(run: Any, codes: Codes) -> None:
    x = values(5, 256)
    x[2, :128] = 0
    got = alone(run, codes, x)
    want, scales = quantize.reference(x, codes)
    end = 256 * (2 if codes.kind == "i16" else 1)
    stored = got[:, :end].view(np.int16 if codes.kind == "i16" else np.int8).astype(np.int32)
    if codes.kind == "i16":
        stored = stored.reshape(5, 64, 4)[:, :, [0, 2, 1, 3]].reshape(5, 256)
    assert np.array_equal(stored, want)
    meta = got[:, end : end + 8 * 256 // codes.group].view(np.float32).reshape(5, -1, 2)
    assert np.array_equal(meta[..., 0], scales)
    sums, stored_sums = want.reshape(5, -1, codes.group).sum(-1), meta[..., 1]
    if codes.zero:
        assert np.array_equal(stored_sums.view(np.int32), -codes.zero * sums)
    else:
        assert np.array_equal(stored_sums, scales * sums.astype(np.float32))


@pytest.mark.parametrize("width", [64, 50, 2])
def test_bf16_agrees_with_ml_dtypes(run: Any, width: int) -> None:
    x = values(7, width)
    edges = [0, -0.0, 1e-45, 1.00390625, 1.01171875, 3.4e38, -np.inf, np.nan]
    x.reshape(-1)[: len(edges)] = edges
    got = alone(run, BF16, x).view(BF16)
    assert np.array_equal(got.view(np.uint16), x.astype(BF16).view(np.uint16))


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("added", [False, True])
def test_a_norm_rounds_as_if_alone(run: Any, form: Any, added: bool) -> None:
    x, residual, weight = values(5, 384), values(5, 384, 1), values(1, 384, 2)[0]

    def norm(device: CpuDevice, out: Any, rows: Any, codes: Codes | None) -> Launch:
        arrays = [device.asarray(a) for a in (x, residual, weight)]
        if added:
            h = device.empty(x.shape, np.float32)
            return CPU.rms_norm.launch_add(device, h, out, *arrays, 1e-5, rows, codes=codes)
        source, _, gain = arrays
        return CPU.rms_norm.launch(device, out, source, gain, 1e-5, rows, codes=codes)

    def plain(device: CpuDevice) -> Any:
        out = device.empty(x.shape, np.float32)
        return [norm(device, out, fixed_rows(device, 5), None)], [out]

    want = alone(run, form, run(plain)[0])
    assert np.array_equal(rounded(run, form, 5, 384, norm), want)


@pytest.mark.parametrize(("form", "width"), [*((f, 384) for f in FORMS), (BF16, 50)], ids=str)
def test_rows_taken_round_as_if_alone(run: Any, form: Any, width: int) -> None:
    x, index = values(7, width), np.array([6, 0, 3, 3], np.int32)

    def take(device: CpuDevice, out: Any, rows: Any, codes: Codes | None) -> Launch:
        source, where = device.asarray(x), device.asarray(index)
        return CPU.take_rows.launch(device, out, source, where, rows, codes=codes)

    assert np.array_equal(rounded(run, form, 4, width, take), alone(run, form, x[index]))


@pytest.mark.parametrize(("form", "width"), [*((f, 384) for f in FORMS), (BF16, 50)], ids=str)
def test_silu_mul_rounds_as_if_alone(run: Any, form: Any, width: int) -> None:
    both = values(5, 2 * width)

    def multiply(device: CpuDevice, out: Any, rows: Any, codes: Codes | None) -> Launch:
        x = device.asarray(both)
        place = {"gate_stride": 2 * width, "up_stride": 2 * width, "codes": codes}
        return CPU.silu_mul.launch(device, out, x, x.reshape(-1)[width:], rows, width, **place)

    def plain(device: CpuDevice) -> Any:
        out = device.empty((5, width), np.float32)
        return [multiply(device, out, fixed_rows(device, 5), None)], [out]

    want = alone(run, form, run(plain)[0])
    assert np.array_equal(rounded(run, form, 5, width, multiply), want)
