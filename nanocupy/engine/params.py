"""SamplingParams: how the tokens of one request are chosen, and when they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanocupy.engine.validation import Checked, checked, flag, integer, real, to_float, to_int
from nanocupy.quoting import quoted

MAX_N = 16
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_STOP_IDS = 128
MAX_BIASES = 1024
MAX_LOGPROBS = 20
MAX_COUNT = 2**31 - 1
GREEDY_BELOW = 1e-5  # a temperature under this is greedy: dividing by it says the same, with noise


def _salt(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_STOP_CHARS:
        raise ValueError(
            f"must be a string of at most {MAX_STOP_CHARS} characters, got {quoted(value)}"
        )
    return value


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) for s in stops):
        raise ValueError(f"must be a string or a list of strings, got {quoted(value)}")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"must have at most {MAX_STOPS} strings, got {len(stops)}")
    for stop in stops:
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise ValueError(f"strings must have 1 to {MAX_STOP_CHARS} characters, got {len(stop)}")
    return tuple(stops)


def _token_ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ValueError(f"must be a list of token ids, got {quoted(value)}")
    if len(value) > MAX_STOP_IDS:
        raise ValueError(f"must have at most {MAX_STOP_IDS} ids, got {len(value)}")
    return tuple(to_int(token, 0, MAX_COUNT) for token in value)


def _biases(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must map token ids to numbers, got {quoted(value)}")
    if len(value) > MAX_BIASES:
        raise ValueError(f"must have at most {MAX_BIASES} entries, got {len(value)}")
    return {to_int(k, 0, MAX_COUNT): to_float(v, -100, 100) for k, v in value.items()}


@dataclass(frozen=True, kw_only=True)
class SamplingParams(Checked):
    """How to choose tokens and when to stop; every field is checked and has a ceiling.

    The same request with the same seed gives the same tokens, whatever else the engine is doing (to
    the bit on a CPU; on a GPU up to roundings, which go with the size of a step).
    Without a seed each request gets its own. `max_tokens` is a ceiling, not a promise: a request
    also ends ("length") when the room of the engine (`max_model_len`, KV blocks) is used up.
    """

    temperature: float = real(1.0, 0, 100, "0 = greedy; higher is more random")
    top_k: int = integer(0, -1, MAX_COUNT, "keep the k most likely tokens; 0 or -1 = all")
    top_p: float = real(1.0, 1e-6, 1, "keep the most likely tokens that sum to p; 1 = all")
    min_p: float = real(0.0, 0, 1, "drop tokens less likely than p times the best; 0 = off")
    presence_penalty: float = real(0.0, -2, 2, "subtracted from tokens already generated")
    frequency_penalty: float = real(0.0, -2, 2, "subtracted once per time already generated")
    repetition_penalty: float = real(1.0, 0.01, 100, "divides tokens of prompt and output; 1 = off")
    logit_bias: dict[int, float] = checked(  # noqa: RUF009 (a field, like the others)
        None, _biases, "token id -> number in [-100, 100] added to its logit"
    )
    seed: int | None = integer(None, -(2**63), 2**64 - 1, "same seed, same tokens; None = random")
    n: int = integer(1, 1, MAX_N, "how many answers to the prompt")
    stop: tuple[str, ...] = checked((), _stops, "end before any of these strings", optional=True)
    stop_token_ids: tuple[int, ...] = checked(
        (), _token_ids, "end at any of these tokens", optional=True
    )
    min_tokens: int = integer(0, 0, MAX_COUNT, "no end of any kind but length before this many")
    max_tokens: int | None = integer(
        None, 0, MAX_COUNT, "at most this many; None = until the end or the room is used"
    )
    ignore_eos: bool = flag(False, "go on past the model's own end tokens")
    logprobs: int | None = integer(None, 0, MAX_LOGPROBS, "report the token and this many best")
    prompt_logprobs: int | None = integer(None, 0, MAX_LOGPROBS, "the same for the prompt")
    cache_salt: str | None = checked(None, _salt, "share cached prefixes with this salt only")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, empty in (("stop", ()), ("stop_token_ids", ()), ("logit_bias", {})):
            object.__setattr__(self, name, getattr(self, name) or empty)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"[SamplingParams] min_tokens must not exceed max_tokens, "
                f"got {self.min_tokens} and {self.max_tokens}"
            )

    @property
    def greedy(self) -> bool:
        """True where the most likely token is always taken."""
        return self.temperature < GREEDY_BELOW

    @property
    def edits_logits(self) -> bool:
        """True where logits are changed before a token is drawn: penalties, biases, min_tokens."""
        penalised = self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1
        return bool(penalised or self.logit_bias or self.min_tokens)
