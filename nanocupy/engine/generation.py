"""A model's generation_config.json as SamplingParams.

Fields that SamplingParams has become defaults. Fields that change answers and are not supported
cause one warning when the model is loaded (`unmet`). Values out of range are refused then
(`check`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanocupy.engine.params import MAX_COUNT, SamplingParams
from nanocupy.engine.validation import to_float, to_int
from nanocupy.quoting import listed, quoted

FILE = "generation_config.json"
SAMPLED = ("temperature", "top_k", "top_p", "min_p")  # of no use where nothing is drawn
OURS = {
    **{name: name for name in SAMPLED},
    **{f"{name}_penalty": f"{name}_penalty" for name in ("repetition", "presence", "frequency")},
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "stop_strings": "stop",
}
"""SamplingParams' fields by the file's names."""
BIASES = ("suppress_tokens", "bad_words_ids", "sequence_bias")
NAMES = (*OURS, *BIASES)
NEVER = -100.0  # added to the logit of a token that must not come: as good as -inf
UNMET: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), (0,)),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "min_length", "diversity_penalty"), (0,)),
    **dict.fromkeys(("typical_p", "encoder_repetition_penalty", "guidance_scale"), (1,)),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), (1,)),
    **dict.fromkeys(("top_h", "penalty_alpha", "dola_layers", "max_time", "token_healing"), (0,)),
    **dict.fromkeys(("begin_suppress_tokens", "forced_decoder_ids"), ([],)),
    **dict.fromkeys(("constraints", "force_words_ids", "watermarking_config"), ([],)),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id"), ()),
    "exponential_decay_length_penalty": (),
    "max_length": (20,),  # what transformers has where nobody says
}
"""Unsupported fields that change answers, with the values that switch them off, besides null."""
_DRAWN = ("typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")


def own_params(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of SamplingParams that the file sets."""
    found = {ours: said[name] for name, ours in OURS.items() if said.get(name) is not None}
    if said.get("do_sample") is False:
        found = {name: value for name, value in found.items() if name not in SAMPLED}
        found["temperature"] = 0.0
    if bias := _biases(said)[0]:
        found["logit_bias"] = bias
    return found


def params(said: Mapping[str, Any], given: Mapping[str, Any]) -> SamplingParams:
    """Return SamplingParams with the file's defaults; `given` wins, logit_bias token by token."""
    own = own_params(said)
    if isinstance(bias := given.get("logit_bias"), Mapping):
        given = {**given, "logit_bias": own.get("logit_bias", {}) | bias}
    most = given.get("max_tokens")
    if isinstance(most, int) and "min_tokens" in own:  # a shorter answer is what the caller wants
        own["min_tokens"] = min(own["min_tokens"], most)
    return SamplingParams(**{**own, **given})


def check(said: Mapping[str, Any], vocab_size: int) -> None:
    """Check the fields that become SamplingParams.

    Raises:
        ValueError: it names the file's field, and what is allowed.
    """
    own, sampling = own_params(said), said.get("do_sample")
    if sampling is not None and not isinstance(sampling, bool):
        raise ValueError(f"{FILE}: do_sample must be true or false, got {quoted(sampling)}")
    for name, ours in OURS.items():
        if ours in own and name in said:
            _refusing(name, ours, {ours: own[ours]})
    for name in BIASES:
        bias = _biases({name: said.get(name)})[0]
        if wrong := [token for token in bias if token >= vocab_size]:
            raise ValueError(f"{FILE}: {name}: token {wrong[0]} is not in [0, {vocab_size})")
        _refusing(name, "logit_bias", {"logit_bias": bias})
    _refusing("min_new_tokens", "min_tokens", own)


def unmet(said: Mapping[str, Any], longest: int) -> list[str]:
    """Return the unsupported fields that the file sets, as text.

    Args:
        longest: tokens of the longest sequence: a limit beyond that is kept.
    """
    greedy = said.get("do_sample") is False
    found = {
        name: value
        for name, off in UNMET.items()
        if (value := said.get(name)) is not None and value not in off
    }
    if "max_new_tokens" in said or _at_least(found.get("max_length"), longest):
        found.pop("max_length", None)
    if greedy:
        found = {name: value for name, value in found.items() if name not in _DRAWN}
    texts = [f"{name} {quoted(value)}" for name, value in found.items()]
    return texts + _biases(said)[1]


def notes(said: Mapping[str, Any], config: Mapping[str, Any], longest: int) -> list[str]:
    """Return the warnings about the two files.

    Args:
        config: of config.json, in which transformers 5 reads no generation.
    """
    found = []
    if texts := unmet(said, longest):
        found.append(
            f"{FILE} asks for {listed(texts)}: there is no such thing here, and answers are made "
            "without"
        )
    if elsewhere := [name for name in _IN_CONFIG if _counts(name, config.get(name))]:
        found.append(f"config.json says {', '.join(elsewhere)}: that counts in {FILE} only")
    return found


_IN_CONFIG = {
    **{"do_sample": False, "temperature": 1, "top_k": 50, "top_p": 1, "typical_p": 1},
    **{"repetition_penalty": 1, "no_repeat_ngram_size": 0, "num_beams": 1, "max_length": 20},
    **dict.fromkeys(("bad_words_ids", "suppress_tokens", "begin_suppress_tokens"), None),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id"), None),
}
"""Fields that transformers 4 read in config.json, and 5 does not, with their defaults."""


def _counts(name: str, value: Any) -> bool:
    return value is not None and value != _IN_CONFIG[name]


def _at_least(value: Any, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _refusing(name: str, ours: str, fields: Mapping[str, Any]) -> None:
    try:
        SamplingParams(**fields)
    except ValueError as error:
        why = str(error).removeprefix("[SamplingParams] ").removeprefix(f"{ours} ")
        raise ValueError(f"{FILE}: {name} {why}") from None


def _biases(said: Mapping[str, Any]) -> tuple[dict[int, float], list[str]]:
    """Return (bias of single tokens, sequences of several tokens as text)."""
    bias: dict[int, float] = {}
    several: list[str] = []
    for name in BIASES:
        try:
            for ids, value in _sequences(name, said.get(name)):
                if len(ids) == 1:
                    bias[ids[0]] = bias.get(ids[0], 0.0) + value
                else:
                    several.append(f"{name} {quoted(ids)}")
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{FILE}: {name} {_shape(name, error)}") from None
    return {token: max(value, NEVER) for token, value in bias.items()}, several


def _sequences(name: str, value: Any) -> list[tuple[list[int], float]]:
    """Return (tokens, bias): the bias is added to the last token's logit after the others."""
    if value is None:
        return []
    if name == "suppress_tokens":
        return [([to_int(token, 0, MAX_COUNT)], NEVER) for token in value]
    if name == "bad_words_ids":
        return [([to_int(token, 0, MAX_COUNT) for token in ids], NEVER) for ids in value]
    return [
        ([to_int(token, 0, MAX_COUNT) for token in ids], to_float(each, -100, 100))
        for ids, each in value
    ]


def _shape(name: str, error: Exception) -> str:
    what = {
        "suppress_tokens": "must be a list of token ids",
        "bad_words_ids": "must be a list of lists of token ids",
        "sequence_bias": "must be a list of [token ids, number in [-100, 100]]",
    }[name]
    return f"{what}: {error}"
