"""Hold the GGUF files of the tests to llama.cpp: it reads them as the models they are of.

`checkpoint/gguf_folder.py` writes what llama.cpp's converter would. That it does is shown here:
llama.cpp's logits of those files beside ours of what is imported from them.

pip install llama-cpp-python gguf, and nanocupy
PYTHONPATH=.:tests python tests/golden/prove_llama_cpp.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from llama_cpp import Llama

from checkpoint.gguf_folder import to_gguf
from checkpoint.test_gguf_architectures import CASES, TOKENS, dense_logits, variant
from nanocupy.checkpoint import convert_gguf

WINDOW_IS_OFF = ("phi3",)  # llama.cpp reads Phi-3's window, and says that it goes without


def main() -> None:
    """Print the largest difference of each, as a part of the largest logit."""
    tokens = TOKENS[0].tolist()
    for case in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            folder, file = variant(case, Path(scratch) / "model"), Path(scratch) / "m.gguf"
            to_gguf(folder, file)
            ours, _ = dense_logits(convert_gguf(file, Path(scratch) / "back", progress=False))
            options = {"n_ctx": 64, "logits_all": True, "type_k": 0, "type_v": 0, "verbose": False}
            model = Llama(str(file), **options)
            model.eval(tokens)
            theirs = np.array(model.scores[: len(tokens)])
        seen = 24 if case in WINDOW_IS_OFF else len(tokens)  # as far as the window
        difference = np.abs(ours - theirs)[:seen].max() / np.abs(ours).max()
        print(f"{case:18} {difference:.1e}")
        bound = 3e-4 if "gemma" in case else 5e-6  # its gelu is a table of float16
        assert difference < bound and (ours.argmax(-1) == theirs.argmax(-1))[:seen].all()


if __name__ == "__main__":
    main()
