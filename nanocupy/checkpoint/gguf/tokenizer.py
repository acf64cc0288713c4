"""The tokenizer and chat template in a GGUF file, as the files of a Hugging Face folder."""

from __future__ import annotations

import re

from nanocupy.checkpoint.gguf.end_tokens import corrected_types, named_ends
from nanocupy.checkpoint.gguf.file import GgufFile
from nanocupy.checkpoint.gguf.pre_tokenizers import Json, PreTokenizer, bpe_model, pre_tokenizer
from nanocupy.checkpoint.gguf.sentencepiece import spm_parts

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6  # llama.cpp's token types
_KEEP_SPACES = ("<unk>", "<s>", "<|endoftext|>")  # control tokens of Phi-3 that strip no spaces
_TEMPLATE = "tokenizer.chat_template"


def _chat_templates(gguf: GgufFile) -> dict[str, str]:
    """The chat templates by name; "default" is the one without a name."""
    found = {"default": gguf.get(_TEMPLATE, str, "")}
    for key in gguf.metadata:
        if key.startswith(f"{_TEMPLATE}."):
            found[key.removeprefix(f"{_TEMPLATE}.")] = gguf.get(key, str)
    if odd := [name for name in found if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)]:
        raise ValueError(f"{gguf.path}: {odd[0]!r:.100} is no name for a chat template")
    return {name: source for name, source in found.items() if source}


class GgufTokenizer:
    """A tokenizer read from GGUF metadata: byte-level BPE ("gpt2") or SentencePiece ("llama").

    Raises:
        ValueError: it is of another kind, or inconsistent.
    """

    def __init__(self, gguf: GgufFile) -> None:
        model = gguf.get("tokenizer.ggml.model", str)
        if model not in ("gpt2", "llama"):
            raise ValueError(
                f"{gguf.path}: tokenizer.ggml.model is '{model}'; byte-level BPE ('gpt2') and "
                f"SentencePiece ('llama') are supported. Use the model's Hugging Face folder."
            )
        self._gguf = gguf
        self.pre: PreTokenizer | None = None
        if model == "gpt2":
            self.pre = pre_tokenizer(gguf.get("tokenizer.ggml.pre", str))
        self.tokens: list[str] = gguf.get("tokenizer.ggml.tokens", list)
        self.types: list[int] = gguf.get("tokenizer.ggml.token_type", list)
        self.chat_templates = _chat_templates(gguf)
        self._check()
        spm = self.pre is None
        self.bos, self.eos = self._id("bos", 1 if spm else -1), self._id("eos", 2 if spm else -1)
        self.unk, self.pad = self._id("unknown"), self._id("padding")
        self.end_ids = self._end_ids()
        self.types = corrected_types(self.tokens, self.types, self.end_ids)

    def _end_ids(self) -> list[int]:
        """The tokens that end an answer: end of sequence, turn or message, by id or by name."""
        roles = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
        named = named_ends(self.tokens, self.types)
        ids = [self.eos, *(self._id(role) for role in roles), *named]
        return list(dict.fromkeys(i for i in ids if i is not None))

    def _check(self) -> None:
        path = self._gguf.path
        if not all(isinstance(t, str) for t in self.tokens):
            raise ValueError(f"{path}: tokenizer.ggml.tokens holds what is not text")
        if len(self.types) != len(self.tokens):
            raise ValueError(f"{path}: {len(self.tokens)} tokens but {len(self.types)} token types")
        if len(set(self.tokens)) != len(self.tokens):
            raise ValueError(f"{path}: the vocabulary holds a token twice")
        if self.pre and _BYTE in self.types:
            raise ValueError(f"{path}: byte tokens do not belong in a byte-level BPE")

    def _id(self, role: str, default: int = -1) -> int | None:
        token = self._gguf.get(f"tokenizer.ggml.{role}_token_id", int, default)
        if token == 0xFFFFFFFF:  # llama.cpp's "none"
            return None
        if token >= len(self.tokens):
            raise ValueError(f"{self._gguf.path}: {role} token {token} is not in the vocabulary")
        return token if token >= 0 else None

    def tokenizer_json(self) -> Json:
        """The contents of tokenizer.json."""
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self._added_tokens(),
            "post_processor": self._post_processor(),
            **(self._bpe(self.pre) if self.pre else self._spm()),
        }

    def _spm(self) -> Json:
        prefix = self._gguf.get("tokenizer.ggml.add_space_prefix", bool, True)
        scores = self._gguf.get("tokenizer.ggml.scores", list)
        try:
            return spm_parts(self.tokens, self.types, scores, space_prefix=prefix)
        except ValueError as error:
            raise ValueError(f"{self._gguf.path}: {error}") from error

    def _bpe(self, pre: PreTokenizer) -> Json:
        return {
            "normalizer": pre.normalizer,
            "pre_tokenizer": pre.rule,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": bpe_model(self._vocab(), self._merges(), ignore_merges=pre.ignore_merges),
        }

    def tokenizer_config(self) -> Json:
        """The contents of tokenizer_config.json, chat template apart."""
        config: Json = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "added_tokens_decoder": {str(t.pop("id")): t for t in self._added_tokens()},
        }
        roles = {"bos": self.bos, "eos": self.eos, "unk": self.unk, "pad": self.pad}
        config |= {f"{role}_token": self.tokens[i] for role, i in roles.items() if i is not None}
        return config

    def _vocab(self) -> dict[str, int]:
        # Unused entries only pad the embedding ("[PAD151937]"): they are not text.
        kinds = enumerate(zip(self.tokens, self.types, strict=True))
        return {token: i for i, (token, kind) in kinds if kind != _UNUSED}

    def _merges(self) -> list[str]:
        merges: list[str] = self._gguf.get("tokenizer.ggml.merges", list)
        pairs = (merge.split(" ") if isinstance(merge, str) else () for merge in merges)
        if any(len(pair) != 2 or not all(pair) for pair in pairs):
            raise ValueError(f"{self._gguf.path}: tokenizer.ggml.merges holds what is not a pair")
        return merges

    def _added_tokens(self) -> list[Json]:
        rstrip = self._strips_spaces()
        return [
            {
                "id": i,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": rstrip and token not in _KEEP_SPACES,
                "normalized": False,
                "special": kind != _USER_DEFINED,
            }
            for i, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and token
        ]

    def _strips_spaces(self) -> bool:
        """Whether control tokens strip spaces after them: Phi-3's do, which only its name tells."""
        name = self._gguf.get("general.name", str, "").lower()
        return self.pre is None and ("phi-3" in name or "phi3" in name)

    def _post_processor(self) -> Json | None:
        before = self._wrapping("bos", self.bos, self.pre is None or self.pre.add_bos)
        after = self._wrapping("eos", self.eos, False)
        if not before and not after:
            return None
        wrap = [{"SpecialToken": {"id": self.tokens[i], "type_id": 0}} for i in before + after]
        first, last = wrap[: len(before)], wrap[len(before) :]
        names = {self.tokens[i]: i for i in before + after}
        return {
            "type": "TemplateProcessing",
            "single": [*first, {"Sequence": {"id": "A", "type_id": 0}}, *last],
            "pair": [
                *first,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
                *last,
            ],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in names.items()},
        }

    def _wrapping(self, role: str, token: int | None, default: bool) -> list[int]:
        key = f"tokenizer.ggml.add_{role}_token"
        wanted = self._gguf.get(key, bool) if key in self._gguf else default
        return [token] if wanted and token is not None else []
