"""Make pre_tokenizers.json: how llama.cpp splits texts under each name of `tokenizer.ggml.pre`, and
under SentencePiece with and without a space before (`spm`, `spm_bare`).

pip install llama-cpp-python gguf
PYTHONPATH=.:tests python tests/golden/make_pre_tokenizers.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from llama_cpp import Llama

from checkpoint import pre_tokenizer_cases as cases
from checkpoint import tiny
from nanocupy.checkpoint.gguf.pre_tokenizers import PRE_TOKENIZERS


def main() -> None:
    """Write the goldens beside this file."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in (*PRE_TOKENIZERS, "spm", "spm_bare"):
            path = Path(folder) / f"{name}.gguf"
            tiny.write_gguf(path, **cases.options(name))
            model = Llama(str(path), vocab_only=True, verbose=False)
            found[name] = [model.tokenize(text.encode(), special=True) for text in cases.TEXTS]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(ids)}" for name, ids in found.items())
    Path(__file__).with_name("pre_tokenizers.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
