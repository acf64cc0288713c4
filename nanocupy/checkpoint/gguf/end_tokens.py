"""The tokens of a GGUF vocabulary that end an answer by what they are called.

GGUF has ids for some of them; llama.cpp takes more by name, whatever their type, and so does this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

CONTROL, USER_DEFINED = 3, 4  # llama.cpp's types of tokens

_ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>"),
    *("<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"),
    *("< EOT >", "_< EOT >", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>"),
    *("<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
)
"""llama.cpp's, with two of its older versions: "< EOT >"."""
_FIM_ENDS = (
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|file_sep|>"),
    *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>"),
)
"""Where code that is filled in ends. llama.cpp has <reponame>, too; SmolLM2, whose own files do
not, begins files with it."""
_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Of gpt-oss: they stand between the parts of an answer."""


def named_ends(tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    """The ids of the tokens that end an answer by name."""
    no_end = _no_ends(dict(zip(tokens, types, strict=True)))
    ends = {*_ENDS, *_FIM_ENDS} - no_end
    return [i for i, token in enumerate(tokens) if token in ends]


def corrected_types(
    tokens: Sequence[str], types: Sequence[int], ends: Collection[int]
) -> list[int]:
    """The tokens' types, where what ends an answer is never shown, and what gpt-oss puts between
    its parts is."""
    shown = {*_SHOWN, *(_no_ends(dict(zip(tokens, types, strict=True))) & {"<|end|>"})}
    corrected = list(types)
    for i, token in enumerate(tokens):
        if i in ends:
            corrected[i] = CONTROL
        elif token in shown:
            corrected[i] = USER_DEFINED
    return corrected


def _no_ends(kinds: Mapping[str, int]) -> set[str]:
    """Tokens that are no end where others are there: <|end|> ends a part of an answer of gpt-oss
    and Solar, </s> is of Gemma 4's answers to tools, or strikes out text in its older HTML."""
    found = set()
    if {"<|return|>", "<|call|>"} <= kinds.keys() or (
        "<|flush|>" in kinds and not kinds.keys().isdisjoint(("<|call|>", "<|calls|>"))
    ):
        found.add("<|end|>")
    html = kinds.get("</s>") == kinds.get("</table>") == USER_DEFINED
    if html or "<|tool_response>" in kinds:
        found.add("</s>")
    return found
