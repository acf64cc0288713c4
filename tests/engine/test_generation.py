"""generation_config.json: obeyed where SamplingParams can say it, else told at load, or refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.fake import VOCAB
from engine.fake_text import loaded
from engine.test_llm import make
from nanocupy.checkpoint import load_generation_config
from nanocupy.cli import main
from nanocupy.engine.frontend import ModelWarning
from nanocupy.engine.llm import LLM
from nanocupy.engine.params import SamplingParams


def made(**said: Any) -> LLM:
    return make(parts={"generation_config": said})


@pytest.mark.parametrize(
    ("said", "want"),
    [
        ({"do_sample": False, "repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"do_sample": False, "temperature": 0.6, "top_k": 20, "top_p": 0.8, "min_p": 0.1}, {}),
        ({"do_sample": False, "min_new_tokens": 3}, {"min_tokens": 3}),
    ],
)
def test_greedy_answers_keep_what_is_no_drawing(said: dict[str, Any], want: dict[str, Any]) -> None:
    with made(**said) as llm:
        assert llm.default_params() == SamplingParams(temperature=0, **want)


def test_what_can_be_said_is_obeyed() -> None:
    said = {
        "temperature": 0.6,
        "presence_penalty": 1.5,
        "max_new_tokens": 7,
        "min_new_tokens": 2,
        "stop_strings": ["a", "bc"],
        "suppress_tokens": [3, 5],
        "bad_words_ids": [[4]],
        "sequence_bias": [[[6], 2.5], [[3], 1.0]],
    }
    with made(**said) as llm:
        want = {3: -99.0, 5: -100.0, 4: -100.0, 6: 2.5}
        assert llm.default_params() == SamplingParams(
            temperature=0.6,
            presence_penalty=1.5,
            max_tokens=7,
            min_tokens=2,
            stop=("a", "bc"),
            logit_bias=want,
        )
        other = llm.default_params(logit_bias={4: 1.0, 9: 2.0}, max_tokens=1, stop=())
        assert other.logit_bias == {**want, 4: 1.0, 9: 2.0}
        assert (other.max_tokens, other.min_tokens, other.stop) == (1, 1, ())


def test_a_suppressed_token_does_not_come() -> None:
    with make() as llm:
        greedy = llm.generate("abc", SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
        [first, *_] = greedy[0].outputs[0].token_ids
    with made(do_sample=False, max_new_tokens=8, suppress_tokens=[first]) as llm:
        [output] = llm.generate("abc")
        assert first not in output.outputs[0].token_ids


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"temperature": -1}, r"temperature must be in \[0, 100\], got -1"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"top_p": 0}, "top_p must be in"),
        ({"do_sample": "x"}, "do_sample must be true or false, got 'x'"),
        ({"top_k": -5}, "top_k must be in"),
        ({"repetition_penalty": 0}, "repetition_penalty must be in"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be an integer"),
        ({"stop_strings": [""]}, "stop_strings strings must have 1 to"),
        ({"suppress_tokens": [VOCAB]}, f"suppress_tokens: token {VOCAB} is not in"),
        ({"suppress_tokens": 5}, "suppress_tokens must be a list of token ids"),
        ({"bad_words_ids": [5]}, "bad_words_ids must be a list of lists"),
        ({"sequence_bias": [[[5], "x"]]}, "sequence_bias must be a list of"),
        ({"suppress_tokens": list(range(1025))}, r"suppress_tokens"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens must not exceed"),
    ],
)
def test_what_is_out_of_range_is_refused_at_load(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"generation_config\.json: .*{message}"):
        made(**said)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"no_repeat_ngram_size": 3, "num_beams": 4}, "no_repeat_ngram_size 3, num_beams 4"),
        ({"begin_suppress_tokens": [2]}, r"begin_suppress_tokens \[2\]"),
        ({"bad_words_ids": [[4], [5, 6]]}, r"bad_words_ids \[5, 6\]"),
        ({"typical_p": 0.5, "do_sample": True}, "typical_p 0.5"),
        ({"max_length": 21}, "max_length 21"),
        ({"guidance_scale": 1.5}, "guidance_scale 1.5"),
        ({"forced_eos_token_id": 2}, "forced_eos_token_id 2"),
    ],
)
def test_what_cannot_be_said_is_told_once(said: dict[str, Any], told: str) -> None:
    with pytest.warns(ModelWarning, match=told) as caught:
        llm = made(**said)
    assert len(caught) == 1 and caught[0].filename == __file__.replace("generation", "llm")
    with llm, warnings.catch_warnings():
        warnings.simplefilter("error")
        llm.generate("abc", SamplingParams(max_tokens=2))


@pytest.mark.parametrize(
    "said",
    [
        {"no_repeat_ngram_size": 0, "num_beams": 1, "max_length": 20, "guidance_scale": None},
        {"do_sample": False, "typical_p": 0.5},
        {"max_length": 10**9, "eos_token_id": [1], "use_cache": True, "length_penalty": 2.0},
        {"max_length": 30, "max_new_tokens": 5},
    ],
)
def test_what_changes_nothing_is_not_told(said: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(**said).close()


def test_generation_in_config_json(tmp_path: Path) -> None:
    """As transformers 5: some of it counts where there is no generation_config.json, the rest does
    not, which is told."""
    raw = '{"max_new_tokens": 5, "min_p": 0.1, "repetition_penalty": 1.3, "temperature": 0.5}'
    (tmp_path / "config.json").write_text(raw)
    assert load_generation_config(tmp_path) == {"max_new_tokens": 5, "min_p": 0.1}
    (tmp_path / "generation_config.json").write_text('{"top_k": 3}')
    assert load_generation_config(tmp_path) == {"top_k": 3}
    parts = loaded()
    parts.config = SimpleNamespace(eos_token_ids=(1,), raw={"repetition_penalty": 1.3, "top_k": 50})
    with pytest.warns(ModelWarning, match=r"config\.json says repetition_penalty: that counts in"):
        LLM._from_parts(parts).close()


def test_the_command_line_tells_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, where nobody looks on as well; and max_new_tokens beats the command's own."""
    said = {"do_sample": False, "no_repeat_ngram_size": 3, "max_new_tokens": 4}
    monkeypatch.setattr("nanocupy.LLM", lambda *_, **__: made(**said), raising=False)
    assert main(["generate", "--raw", "--json", "abc"]) == 0
    out, err = capsys.readouterr()
    assert "asks for no_repeat_ngram_size 3" in err and '"finish_reason": "length"' in out
