"""The tokens of a GGUF vocabulary that end an answer by their names, as in llama.cpp.

GGUF has ids for some end tokens only.
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
"""Tokens that end code that is filled in. llama.cpp also has <reponame>, which begins files in
SmolLM2 and is no end token in its own files."""
_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Gpt-oss has them between the parts of an answer."""


def named_ends(tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    """The ids of the tokens that end an answer by name."""
    not_ends = _not_ends(dict(zip(tokens, types, strict=True)))
    ends = {*_ENDS, *_FIM_ENDS} - not_ends
    return [i for i, token in enumerate(tokens) if token in ends]


def corrected_types(
    tokens: Sequence[str], types: Sequence[int], ends: Collection[int]
) -> list[int]:
    """The tokens' types, with end tokens hidden, and the separators of gpt-oss shown."""
    shown = {*_SHOWN, *(_not_ends(dict(zip(tokens, types, strict=True))) & {"<|end|>"})}
    corrected = list(types)
    for i, token in enumerate(tokens):
        if i in ends:
            corrected[i] = CONTROL
        elif token in shown:
            corrected[i] = USER_DEFINED
    return corrected


def _not_ends(kinds: Mapping[str, int]) -> set[str]:
    """Names that end no answer in this vocabulary: <|end|> ends a part of an answer in gpt-oss and
    Solar; </s> ends a tool's answer in Gemma 4, and is an HTML tag in older Gemmas."""
    found = set()
    if {"<|return|>", "<|call|>"} <= kinds.keys() or (
        "<|flush|>" in kinds and not kinds.keys().isdisjoint(("<|call|>", "<|calls|>"))
    ):
        found.add("<|end|>")
    html = kinds.get("</s>") == kinds.get("</table>") == USER_DEFINED
    if html or "<|tool_response>" in kinds:
        found.add("</s>")
    return found
