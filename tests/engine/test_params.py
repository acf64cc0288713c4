"""SamplingParams and EngineOptions: strict types, ceilings, names that exist."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import SamplingParams

INTEGERS = {
    "top_k": (-1, 2**31 - 1),
    "seed": (-(2**63), 2**64 - 1),
    "n": (1, 16),
    "min_tokens": (0, 2**31 - 1),
    "max_tokens": (0, 2**31 - 1),
    "logprobs": (0, 20),
    "prompt_logprobs": (0, 20),
}
NUMBERS = {
    "temperature": (0, 100),
    "top_p": (1e-6, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 100),
}


def make(name: str, value: Any) -> SamplingParams:
    return SamplingParams(**{name: value})


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_have_a_floor_and_a_ceiling(name: str) -> None:
    low, high = INTEGERS[name]
    for value in (low, high, np.int64(low)):
        params = make(name, value)
        assert getattr(params, name) == value and type(getattr(params, name)) is int
    for value in (low - 1, high + 1, 10**30, True, False, "1", 1.0, math.nan, math.inf, [1], b"1"):
        with pytest.raises(ValueError, match=rf"\[SamplingParams\] {name} must"):
            make(name, value)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_finite_and_in_range(name: str) -> None:
    low, high = NUMBERS[name]
    for value in (low, high, np.float32(1), np.float64(1), 1, Fraction(1, 2)):
        assert getattr(make(name, value), name) == value
        assert type(getattr(make(name, value), name)) is float
    below, above = low - 1e-3, high + 1e-3
    wrong = (below, above, 10**400, True, "1", math.nan, math.inf, -math.inf, None, 1j, np.nan)
    for value in wrong:
        with pytest.raises(ValueError, match=rf"\[SamplingParams\] {name} must"):
            make(name, value)


def test_none_stands_for_the_default_only_where_it_means_something() -> None:
    params = SamplingParams(
        seed=None, max_tokens=None, logprobs=None, stop=None, stop_token_ids=None, logit_bias=None
    )
    assert params == SamplingParams()
    for name in ("temperature", "n", "top_k", "ignore_eos", "min_tokens"):
        with pytest.raises(ValueError, match=name):
            make(name, None)


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("stop", ["x", ("a", "b"), ["s" * 256] * 16, []], ["", [""], ["a"] * 17, ["s" * 257], 1]),
        ("stop", [], [[1], ["a", None], b"x", {"a": 1}]),
        ("stop_token_ids", [[1, 2], (np.int32(3),), [0] * 128], [[True], [-1], [1.0], 5, "12"]),
        ("stop_token_ids", [], [[0] * 129, [2**31], ["1"], {1: 2}]),
        ("logit_bias", [{1: 2}, {np.int64(5): -100.0}], [{1: 101}, {1: math.nan}, {"1": 2}, [1]]),
        ("logit_bias", [dict.fromkeys(range(1024), 0)], [dict.fromkeys(range(1025), 0), {True: 1}]),
        ("ignore_eos", [True, False], [1, 0, "yes", None]),
        ("cache_salt", ["tenant", ""], [1, "s" * 257, b"x"]),
    ],
)
def test_structured_values(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        make(name, value)
    for value in bad:
        with pytest.raises(ValueError, match=rf"\[SamplingParams\] {name}"):
            make(name, value)


def test_normal_forms() -> None:
    params = SamplingParams(stop="x", stop_token_ids=[np.int64(1)], logit_bias={2: 1})
    assert params.stop == ("x",) and params.stop_token_ids == (1,) and params.logit_bias == {2: 1.0}
    assert SamplingParams(temperature=1e-6).greedy and not SamplingParams(temperature=1e-3).greedy


def test_the_callers_containers_are_copied() -> None:
    bias, stop = {1: 1.0}, ["a"]
    params = SamplingParams(logit_bias=bias, stop=stop)
    bias[2], stop[0] = 5.0, "b"
    assert params.logit_bias == {1: 1.0} and params.stop == ("a",)


def test_fields_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="min_tokens must not exceed max_tokens, got 5 and 4"):
        SamplingParams(min_tokens=5, max_tokens=4)


@pytest.mark.parametrize("cls", [SamplingParams, EngineOptions])
def test_unknown_names_say_what_exists(cls: Any) -> None:
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(TypeError, match=f"has no '{name}x'. Did you mean '{name}'.*has: {name}"):
        cls(**{name + "x": 1})
    with pytest.raises(TypeError, match="has no 'zzzzzz'"):
        cls(zzzzzz=1)
    with pytest.raises(TypeError, match="keyword arguments only"):
        cls(0.5)


@pytest.mark.parametrize("cls", [SamplingParams, EngineOptions])
def test_they_are_values(cls: Any) -> None:
    one = cls()
    assert one == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == dataclasses.replace(one)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, dataclasses.fields(cls)[0].name, 1)
    assert all(field.metadata["help"] for field in dataclasses.fields(cls))


def test_replace_checks_again() -> None:
    with pytest.raises(ValueError, match="temperature"):
        dataclasses.replace(SamplingParams(), temperature=-1)


@pytest.mark.parametrize(
    "text, size",
    [("2GiB", 2 << 30), ("512M", 512 << 20), ("1.5 gb", 3 << 29), ("100", 100), (4096, 4096)],
)
def test_memory_sizes(text: Any, size: int) -> None:
    assert EngineOptions(kv_memory=text).kv_memory == size


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kv_memory": "2 potatoes"}, "kv_memory must be bytes or a size such as '2GiB'"),
        ({"kv_memory": True}, "kv_memory must be an integer"),
        ({"kv_memory": 0}, "kv_memory must be in"),
        ({"block_size": 8}, "block_size must be one of 16, 32, 64, got 8"),
        ({"block_size": True}, "block_size must be one of"),
        ({"quantize": 4.0}, "quantize must be one of 4, 8, got 4.0"),
        ({"dtype": "float13"}, "dtype must be one of 'auto', 'exact'"),
        ({"threads": 0}, "threads must be in"),
        ({"prefix_cache": 1}, "prefix_cache must be True or False"),
        ({"max_num_batched_tokens": 31}, "at least max_num_seqs .* got 31 and 32"),
        ({"num_kv_blocks": 9, "kv_memory": "1G"}, "num_kv_blocks or kv_memory, not both"),
    ],
)
def test_options_say_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineOptions(**options)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (SamplingParams, {"stop": 10**100_000}),
        (SamplingParams, {"stop": [b"x" * 10**6]}),
        (SamplingParams, {"seed": 10**100_000}),
        (SamplingParams, {"temperature": "x" * 10**6}),
        (SamplingParams, {"temperature": 10**100_000}),
        (SamplingParams, {"logit_bias": [0] * 10**6}),
        (SamplingParams, {"cache_salt": "x" * 10**6}),
        (SamplingParams, {"ignore_eos": ["x" * 10**6]}),
        (EngineOptions, {"device": "x" * 10**6}),
        (EngineOptions, {"kv_memory": "9" * 10**6}),
        (EngineOptions, {"kv_memory": "x" * 10**6}),
        (EngineOptions, {"model_file": "x" * 10**6}),
        (EngineOptions, {"max_model_len": [0] * 10**6}),
    ],
)
def test_errors_repeat_little_of_what_was_given(kind: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))) as caught:
        kind(**given)
    assert len(str(caught.value)) < 500
