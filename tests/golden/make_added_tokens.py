"""How transformers resolves tokens that are named outside tokenizer.json: makes added_tokens.json.

    python tests/golden/make_added_tokens.py        (needs transformers 5; not torch)

Each case is the small files of a folder beside one tokenizer.json (`text.tiny_tokenizers`'), some
of real shape and many drawn at random, and what transformers makes of it: the ids of a text, the
text that these ids have where special tokens are hidden, and the ids that are special by name.
Cases where it gives a token another id than a file says are marked: they are refused here.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import transformers

from text import tiny_tokenizers as tiny

OUT = Path(__file__).with_name("added_tokens.json")
FIRST = 272  # the next free id of tiny.byte_level()
MADE = ["<|a|>", "<b>", "he"]  # new ones, and one of the vocabulary
TEXT = "he <|im_start|> x<|im_end|>  <think>y</think> <|end|><|a|> z <b> b<b>he"
Files = dict[str, dict[str, Any]]


def token(text: str, rng: random.Random, **flags: bool) -> dict[str, Any]:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    drawn = {name: rng.random() < 0.3 for name in names}
    return {"content": text, **drawn, **flags}


def ids() -> dict[str, int]:
    made = tiny.byte_level()
    return {t.content: i for i, t in made.get_added_tokens_decoder().items()}


def shaped(rng: random.Random) -> list[Files]:
    """Folders as they are found."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    own = {str(i): {"content": t, **plain, "special": True} for t, i in ids().items()}
    new = {str(FIRST): {"content": "<|a|>", **plain, "special": True}}
    config, map_, added = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
    return [
        {config: {"added_tokens_decoder": own}},
        {config: {"added_tokens_decoder": {**own, **new}, "eos_token": "<|a|>"}},
        {config: {"eos_token": "<|a|>", "pad_token": "<b>"}},
        {config: {"eos_token": "he"}},
        {config: {"eos_token": "<think>", "extra_special_tokens": ["<|a|>", "</think>"]}},
        {config: {"additional_special_tokens": ["<|a|>", "<b>"]}},
        {config: {"extra_special_tokens": {"image_token": "<|a|>", "b": "<b>"}}},
        {config: {"image_token": "<b>"}},
        {added: {"<|a|>": FIRST, "<b>": FIRST + 1}},
        {config: {"eos_token": "<b>"}, added: {"<|a|>": FIRST, "<b>": FIRST + 1}},
        {map_: {"eos_token": "<|a|>"}, config: {"eos_token": "<b>"}},
        {map_: {"eos_token": "<|a|>"}, config: {"eos_token": "<b>", "added_tokens_decoder": own}},
        {map_: {"additional_special_tokens": ["<|a|>"]}, added: {"<|a|>": FIRST}},
        {map_: {"extra_special_tokens": ["<|a|>"]}, config: {"extra_special_tokens": ["<b>"]}},
        {map_: {"eos_token": {**plain, "content": "<b>", "lstrip": True}}},
        {config: {"added_tokens_decoder": {str(FIRST + 9): {"content": "<b>", **plain}}}},
        {config: {"added_tokens_decoder": {str(ids()["<think>"]): {"content": "<b>", **plain}}}},
        {added: {"<b>": ids()["<think>"]}},
        {config: {"add_bos_token": True, "add_eos_token": True, "bos_token": "<b>"}},
        {config: {"eos_token": {"__type": "AddedToken", **token("<b>", rng)}}},
    ]


def drawn(rng: random.Random) -> Files:
    """A folder of anything."""
    config: dict[str, Any] = {}
    texts = [*ids(), *MADE]
    texts.remove("    ")
    if rng.random() < 0.6:
        have = rng.sample(sorted(ids().items()), rng.randint(0, 4))
        new = rng.sample(MADE[:2], rng.randint(0, 2))
        listed = {i: t for t, i in have} | {FIRST + n: t for n, t in enumerate(new)}
        config["added_tokens_decoder"] = {str(i): token(t, rng) for i, t in listed.items()}
    for role in rng.sample(["bos_token", "eos_token", "pad_token", "unk_token", "image_token"], 2):
        config[role] = rng.choice(texts)
    if rng.random() < 0.4:
        key = rng.choice(["extra_special_tokens", "additional_special_tokens"])
        config[key] = rng.sample(texts, 2)
    found = {"tokenizer_config.json": config}
    if rng.random() < 0.4:
        found["special_tokens_map.json"] = {
            rng.choice(["eos_token", "cls_token"]): rng.choice(texts)
        }
    if rng.random() < 0.4:
        new = rng.sample(MADE[:2], rng.randint(1, 2))
        found["added_tokens.json"] = {t: FIRST + n for n, t in enumerate(new)}
    return found


def resolved(files: Files) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tiny.byte_level().save(f"{folder}/tokenizer.json")
        for name, content in files.items():
            settings = {"tokenizer_class": "PreTrainedTokenizerFast"} if "config" in name else {}
            Path(folder, name).write_text(json.dumps({**settings, **content}))
        made = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        said = files.get("tokenizer_config.json", {}).get("added_tokens_decoder")
        pairs = {int(i): t["content"] for i, t in (said or {}).items()}
        if said is None:
            pairs = {i: t for t, i in files.get("added_tokens.json", {}).items()}
        encoded = made(TEXT)["input_ids"]
        return {
            "ids": encoded,
            "text": made.decode(encoded, skip_special_tokens=True),
            "named": {r: made.convert_tokens_to_ids(t) for r, t in made.special_tokens_map.items()},
            "moved": any(made.convert_tokens_to_ids(t) != i for i, t in pairs.items()),
        }


def main() -> None:
    rng = random.Random(0)
    cases = [*shaped(rng), *(drawn(rng) for _ in range(80))]
    rows = [{"files": files, **resolved(files)} for files in cases]
    text = {"transformers": transformers.__version__, "text": TEXT, "cases": rows}
    OUT.write_text(json.dumps(text, ensure_ascii=False).replace(', {"files"', ',\n{"files"') + "\n")


if __name__ == "__main__":
    main()
