"""A vocabulary in which every split of a text shows in its tokens."""

from __future__ import annotations

import itertools
from typing import Any

LETTERS = "aAsStTlLvVéß中你かПא٣½²Ⅷ1234'’\".,!?;:-_/\\()<|>$+=~^`@#&* \t\n\r\u00a0\u3000\u0301😀"

TEXTS = [
    *("".join(pair) for pair in itertools.product("aA1 '!\n\t/é中", repeat=2)),
    *("".join(three) for three in itertools.product("a1 '\n!s", repeat=3)),
    *("12", "123", "1234", "12345", "1234567", "a1234b", " 1234", "½²Ⅷ٣12", "1.2.3", "1,234"),
    *("'s", "'S", "a's", "A'S", "'ll", "'LL", "'lL", "'ve", "'VE", "'t's", "’s", "''s", " 's"),
    *("aAaA", "AAaa", "aaAA", "AaTt", "éÉ", "ПpA", "aא", "中a中", "かa", "aa中A", "ßA"),
    *("!\n", "!!\n\n", "! \n", "a!\n\na", "/\n", "//\n/", "!/\n", "-\r\n-", "?!\r\n\n"),
    *(
        "  a",
        "   a",
        " \n a",
        "\n\na",
        "\n a",
        "a \n",
        "a  ",
        "a\n\n",
        "\t\ta",
        " \t a",
        "\r\n\r\n",
    ),
    *(
        "\u00a0a",
        "a\u00a0\u00a0a",
        "\u3000a",
        "a\u3000",
        " \u00a0 a",
        "a\u0301a",
        "1\u0301",
        " \u0301",
    ),
    *("$1", "a$b", "=a", "_a_", "(a)", "<|a|>", "a_b", "#a", "@a.b", "a+b=1", "~~a", "`a`", "^^"),
    *("😀a", "a😀", "😀😀", " 😀", "1😀1", "中😀", "!😀\n"),
    *("aaaaa", "aaaaaaa", "ab  a1é", "  aa", "a<think>a", " <s> a", "bbaA1中 aba", "aab éa\n\nb"),
]


def letters_of(text: str) -> list[str]:
    """GPT-2's visible letters for the bytes of a text."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    names = {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    return [names[byte] for byte in text.encode()]


def merges() -> list[str]:
    """First each letter's bytes to one token, then any two letters to one."""
    inside: dict[str, None] = {}
    for letter in LETTERS:
        parts = letters_of(letter)
        for end in range(1, len(parts)):
            inside[f"{''.join(parts[:end])} {parts[end]}"] = None
    words = ["".join(letters_of(letter)) for letter in LETTERS]
    return [*inside, *(f"{a} {b}" for a, b in itertools.product(words, repeat=2))]


def options(name: str) -> dict[str, Any]:
    """What `tiny.write_gguf` takes for a name of the goldens."""
    if not name.startswith("spm"):
        return {"pre": name, "merges": merges()}
    bare = [("tokenizer.ggml.add_space_prefix", False)]
    return {"tokenizer": "llama", "pre": "default", "extra": bare if name == "spm_bare" else ()}
