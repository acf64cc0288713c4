"""embedding on CUDA, of float weights; affine ones are in test_affine."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nanocupy.device.protocols import Rows
from nanocupy.kernels import launches_of

CUDA = launches_of("cuda")

POISON = 7.0


def embed(cuda: Any, weight: np.ndarray, tokens: list[int], meets: str, **table: int) -> np.ndarray:
    count = len(tokens)

    def build(device: Any) -> Any:
        (packed,) = CUDA.linear.pack(device, [weight], meets)
        out = device.asarray(np.full((count + 1, weight.shape[1]), POISON, np.float32))
        ids = device.asarray(np.array([*tokens, 0], np.int32))
        rows = Rows(count + 1, device.asarray(np.array([count])))
        return [CUDA.embedding.launch(device, packed, ids, out, rows, **table)], [out]

    (out,) = cuda(build)
    assert (out[count:] == POISON).all()
    return np.asarray(out[:count])


@pytest.mark.parametrize(("dtype", "meets"), [(np.float32, "f32"), (ml_dtypes.bfloat16, "bf16")])
@pytest.mark.parametrize("width", [37, 64, 1100])
def test_a_row_for_each_token(cuda: Any, dtype: Any, meets: str, width: int) -> None:
    weight = np.random.default_rng(0).standard_normal((50, width)).astype(dtype)
    got = embed(cuda, weight, [0, 49, 7, 7], meets)
    assert got.tobytes() == weight[[0, 49, 7, 7]].astype(np.float32).tobytes()


@pytest.mark.parametrize("bad", [-1, 50, 1 << 30, -(1 << 31)])
def test_a_token_outside_the_vocabulary_ends_its_row_alone(cuda: Any, bad: int) -> None:
    weight = np.random.default_rng(0).standard_normal((50, 18)).astype(np.float32)
    got = embed(cuda, weight, [3, bad, 4], "f32")
    assert np.isnan(got[1]).all() and got[[0, 2]].tobytes() == weight[[3, 4]].tobytes()


@pytest.mark.parametrize(("dtype", "meets"), [(np.float32, "f32"), (ml_dtypes.bfloat16, "bf16")])
def test_a_part_of_the_table_gives_zeros_for_other_rows(cuda: Any, dtype: Any, meets: str) -> None:
    """Parts add up; a token that no part has is NaN in all of them."""
    whole = np.random.default_rng(0).standard_normal((50, 37)).astype(dtype)
    tokens = [0, 20, 49, 19, 21, 50, -1]
    for first, stop in ((0, 20), (20, 21), (21, 50)):
        got = embed(cuda, whole[first:stop], tokens, meets, first=first, vocabulary=50)
        own = [first <= token < stop for token in tokens[:5]]
        want = whole[tokens[:5]].astype(np.float32) * np.array(own)[:, None]
        np.testing.assert_array_equal(got[:5], want)
        assert np.isnan(got[5:]).all()
