"""Write smollm2_parity.npz: what transformers, in float32, says about the default model.

Run by hand, in an environment of its own (nothing of it is needed to run the tests):

    python -m venv oracle && oracle/bin/pip install torch==2.13.0 transformers gguf accelerate
    oracle/bin/python tests/golden/make_parity.py FOLDER [--gguf FILE.gguf]

FOLDER is the converted model (`nanocupy info smollm2-135m` says where it is). Its quantised weights
are read and dequantised here, by w = q * scale + bias, with no code of ours. With --gguf the same
prompts also go through transformers' own GGUF reader, and the largest difference is printed: an
independent check of the conversion (row permutation, scales, tokens).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).with_name("smollm2_parity.npz")
TOP = 64  # logits kept at every position
WHOLE_ROWS = (("english", 11), ("code", 40), ("chat_sky", 60))  # positions kept entirely
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

RAW = {
    "english": (
        "The lighthouse had stood on the cliff for two hundred years before anyone thought to ask "
        "who kept it burning. Every evening at dusk the lamp was lit, and every morning it was dark"
        " again, and the fishermen in the village below said only that it had always been so. When "
        "the new schoolteacher arrived from the city, she walked up the path to see for herself. "
        "The door was open. On the table stood a cup of tea, still warm, and beside it lay a book "
        "with a name written on the first page. She read it twice before she understood that it "
        "was her own. Outside, the wind had turned, and the first drops of rain began to"
    ),
    "code": (
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Point:\n"
        "    x: float\n    y: float\n\n    def distance(self, other: 'Point') -> float:\n"
        "        return ((self.x - other.x) ** 2 + (self.y - other.y) ** 2) ** 0.5\n\n\n"
        "def closest(points: list[Point], target: Point) -> Point:\n    return min("
    ),
    "numbers": (
        "12 + 7 = 19\n45 - 18 = 27\n6 x 9 = 54\n144 / 12 = 12\n2^10 = 1024\n"
        "3.14159 x 2 = 6.28318\n1,000,000 - 1 = 999,999\n17 + 26 ="
    ),
    "languages": (
        "Guten Morgen, wie geht es Ihnen? — ¿Dónde está la biblioteca? — Où est la gare? — "
        "日本語のテキスト — Привет, мир! — 😀🎉 naïve café"
    ),
    "json": (
        '{"name": "Ada Lovelace", "born": 1815, "fields": ["mathematics", "computing"], "works": '
        '[{"title": "Notes on the Analytical Engine", "year": 1843}], "died": 1852}\n'
        '{"name": "Alan Turing", "born": 1912, "fields": ["'
    ),
}
CHATS = {
    "chat_sky": [
        ("user", "Why is the sky blue?"),
        (
            "assistant",
            "The sky appears blue because of a process called Rayleigh scattering. When sunlight "
            "reaches our atmosphere, it meets tiny molecules of air, which scatter short blue "
            "waves much more than long red ones. At sunset the light travels a longer way through "
            "the air, most of the blue is scattered out of it, and what remains is red and gold.",
        ),
    ],
    "chat_turns": [
        ("user", "Name three fruits."),
        ("assistant", "Apple, banana, and cherry."),
        ("user", "Which of them is yellow, and where does it grow?"),
        ("assistant", "The banana is yellow. It grows in warm, wet places such as Ecuador."),
    ],
    "chat_code": [
        ("user", "Write a Python function that reverses a string."),
        (
            "assistant",
            "Here is a function that reverses a string:\n\n```python\ndef reverse(text):\n"
            "    return text[::-1]\n```\n\nIt uses a slice with a step of -1.",
        ),
    ],
}


def dequantised(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the folder in float32; quantised ones as q * scale + bias."""
    config = json.loads((folder / "config.json").read_text())
    stored: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as reader:
            stored |= {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    weights = {}
    for name, tensor in stored.items():
        module, _, leaf = name.rpartition(".")
        if leaf in ("scales", "biases"):
            continue
        if f"{module}.scales" not in stored:
            weights[name] = tensor.float()
            continue
        how = {**config["quantization"], **(config["quantization"].get(module) or {})}
        q = unpack(tensor.numpy().view(np.uint32), how["bits"])
        scale, bias = stored[f"{module}.scales"].float(), stored[f"{module}.biases"].float()
        grouped = torch.from_numpy(q).reshape(*scale.shape, how["group_size"])
        weights[name] = (grouped * scale[..., None] + bias[..., None]).reshape(q.shape)
    return weights


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """uint32 [N, K*bits/32] -> float32 [N, K]; element 0 is in the lowest bits."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    q = (words[..., None] >> shifts) & np.uint32(2**bits - 1)
    return q.reshape(words.shape[0], -1).astype(np.float32)


def from_folder(folder: Path) -> LlamaForCausalLM:
    """transformers' Llama with the folder's configuration and weights, float32."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization", None)
    config.pop("quantization_config", None)
    config["dtype"] = "float32"
    model = LlamaForCausalLM(LlamaConfig(**config)).float().eval()
    missing, unexpected = model.load_state_dict(dequantised(folder), strict=False)
    model.tie_weights()
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    return model


def prompts(folder: Path) -> dict[str, list[int]]:
    """Token ids of every prompt; chats in the model's ChatML, written out by hand."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = dict(RAW)
    for name, turns in CHATS.items():
        texts[name] = "".join(
            f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in [("system", SYSTEM), *turns]
        )
    return {name: tokenizer.encode(text).ids for name, text in texts.items()}


def logits_of(model: torch.nn.Module) -> Callable[[list[int]], torch.Tensor]:
    """ids -> float32 [T, V]."""

    def run(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].float()

    return run


def golden(name: str, ids: list[int], logits: torch.Tensor) -> dict[str, np.ndarray]:
    """The arrays kept of one prompt."""
    top = logits.topk(TOP)
    lse = logits.double().logsumexp(-1)
    following = logits.double()[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    kept = {
        "ids": np.array(ids, np.int32),
        "top_ids": top.indices.numpy().astype(np.uint16),
        "top_logits": top.values.numpy(),
        "lse": lse.numpy(),
        "nll": (lse[:-1] - following).numpy(),
    }
    kept |= {f"row{at}": logits[at].numpy() for which, at in WHOLE_ROWS if which == name}
    return {f"{name}/{key}": value for key, value in kept.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path)
    args = parser.parse_args()
    ours = logits_of(from_folder(args.folder))
    other = None
    if args.gguf:
        other = logits_of(
            AutoModelForCausalLM.from_pretrained(
                args.gguf.parent, gguf_file=args.gguf.name, dtype=torch.float32
            ).eval()
        )
    arrays: dict[str, np.ndarray] = {}
    for name, ids in prompts(args.folder).items():
        logits = ours(ids)
        arrays |= golden(name, ids, logits)
        line = f"{name:12} {len(ids):4} tokens, NLL {arrays[f'{name}/nll'].mean():.4f}"
        if other is not None:
            apart = (other(ids) - logits).abs().max() / logits.abs().max()
            line += f", {apart:.2e} from transformers' GGUF reader"
        print(line)
    np.savez_compressed(OUT, **arrays)
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
