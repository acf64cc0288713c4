"""KV blocks: how many there are, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nanocupy.device.cpu import host_memory
from nanocupy.engine import kv_cache
from nanocupy.engine.kv_cache import kv_cache_config
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.precision import Precision, precision

CONFIG = SimpleNamespace(
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=100,
    usual_length=100,
)
BLOCK = 16 * 2 * 2 * 2 * 16 * 2  # bytes: tokens, K and V, layers, heads, head_dim, float16


def planned(free: int = 2**30, **options: Any) -> kv_cache.KVCacheConfig:
    room = kv_cache.Room(int(kv_cache.SHARE * free), host_memory.total())
    return kv_cache_config(
        CONFIG, EngineOptions(**options), Precision("i16", "float32", "float16"), room
    )


def test_blocks_are_for_all_requests_or_for_the_memory_there_is() -> None:
    assert planned(max_num_seqs=3).num_blocks == 3 * 7 + 1
    assert planned(free=int(10 * BLOCK / kv_cache.SHARE)).num_blocks == 10 + 1
    assert planned(kv_memory=5 * BLOCK + 1).num_blocks == 5 + 1
    assert planned(num_kv_blocks=4).num_blocks == 4 + 1


def test_int8_is_for_cpus_and_16_bit_floats_for_gpus() -> None:
    config = SimpleNamespace(dtype="float32")
    assert precision(config, EngineOptions(dtype="int8"), False).matmul_inputs == "i8"
    for dtype, kind in (("int8", "cuda"), ("bfloat16", "cpu")):
        with pytest.raises(ValueError, match=f"dtype='{dtype}' is for .*use 'auto'"):
            precision(config, EngineOptions(dtype=dtype), kind == "cuda")
    assert precision(config, EngineOptions(kv_dtype="int8"), False).kv == "int8"
    with pytest.raises(ValueError, match="kv_dtype='int8' is for CPUs"):
        precision(config, EngineOptions(kv_dtype="int8"), True)


def test_the_longest_request_is_what_fits() -> None:
    assert planned().max_model_len == 100
    assert planned(num_kv_blocks=2).max_model_len == 32
    with pytest.raises(ValueError, match=r"needs 7 KV blocks.*room for 2"):
        planned(num_kv_blocks=2, max_model_len=100)
    with pytest.raises(ValueError, match="made for 100 positions"):
        planned(max_model_len=101)
    with pytest.raises(ValueError, match=f"no room for one KV block of {BLOCK:,} bytes"):
        planned(kv_memory=BLOCK - 1)


@pytest.mark.parametrize(
    "options", [{"num_kv_blocks": 11}, {"kv_memory": "1T", "max_num_seqs": 100}]
)
def test_more_than_the_machine_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(host_memory, "total", lambda: 10 * BLOCK)
    with pytest.raises(ValueError, match=rf"KV blocks take .* bytes, and there are {10 * BLOCK:,}"):
        planned(**options)
    assert planned(num_kv_blocks=10).num_blocks == 11


def test_memory_is_measured() -> None:
    assert 0 < host_memory.available() <= host_memory.total()
