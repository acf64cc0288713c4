"""Make gemma3_270m.npz: what llama.cpp says of Gemma 3 270M (Q4_K_M), in float32.

llama.cpp rounds activations to 8 bits where weights are quantised; so the weights are first written
out as float32, with the gguf library's `dequantize`, and the rest of the file as it is.

pip install llama-cpp-python gguf
python tests/golden/make_gemma.py gemma-3-270m-q4_k_m.gguf
"""

from __future__ import annotations

import struct
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from llama_cpp import Llama

TEXTS = (
    "The history of the city of Paris begins in the third century BC, when a tribe called the "
    "Parisii settled on the banks of the Seine. By the twelfth century, Paris was the largest city "
    "of the western world,  and the home of the University of Paris.\n\n",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(",
    "Wikipedia ist ein Projekt zum Aufbau einer Enzyklopädie aus freien Inhalten. "
    "日本語と한국어 😀",
)
PROMPTS = ("The capital of France is", "The three primary colors are")
KEPT = 8  # of the most likely tokens of each position


def as_floats(source: Path, out: Path) -> None:
    """The same GGUF file with every tensor in float32."""
    reader, raw = gguf.GGUFReader(source), source.read_bytes()
    first = reader.tensors[0].name.encode()
    entry = struct.pack("<Q", len(first)) + first
    start = raw.index(entry + struct.pack("<I", len(reader.tensors[0].shape)))
    with out.open("wb") as file:
        file.write(raw[:start])
        offset = 0
        for t in reader.tensors:
            name = t.name.encode()
            file.write(struct.pack("<Q", len(name)) + name + struct.pack("<I", len(t.shape)))
            file.write(np.array(t.shape, "<u8").tobytes() + struct.pack("<IQ", 0, offset))
            offset += -(-int(t.n_elements) * 4 // 32) * 32
        for t in reader.tensors:
            file.write(bytes(-file.tell() % 32))
            plain = gguf.quants.dequantize(t.data, t.tensor_type)
            file.write(np.ascontiguousarray(plain, "<f4").tobytes())
        file.write(bytes(-file.tell() % 32))


def main() -> None:
    """Write the golden beside this file."""
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        as_floats(Path(sys.argv[1]), Path(folder) / "f32.gguf")
        model = Llama(
            f"{folder}/f32.gguf", n_ctx=256, logits_all=True, type_k=0, type_v=0, verbose=False
        )
        for i, text in enumerate(TEXTS):
            ids = model.tokenize(text.encode(), special=True)
            model.reset()
            model.eval(ids)
            logits = np.array(model.scores[: len(ids)], np.float64)
            top = np.argsort(-logits)[:, :KEPT]
            lse = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
            logprobs = np.take_along_axis(logits - logits.max(-1, keepdims=True) - lse, top, 1)
            found |= {f"ids{i}": np.array(ids, np.int32), f"top{i}": top.astype(np.int32)}
            found[f"logprobs{i}"] = logprobs.astype(np.float32)
        for i, prompt in enumerate(PROMPTS):
            answer = model(prompt, max_tokens=32, temperature=0)["choices"][0]["text"]
            found[f"answer{i}"] = np.array(answer)
    np.savez_compressed(Path(__file__).with_name("gemma3_270m.npz"), **found)


if __name__ == "__main__":
    main()
