"""Facts about a model on disk: parameters, bytes by storage type, bytes that one token reads.

Only headers and small files are read, so a model may be larger than memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanocupy.checkpoint import Checkpoint, ModelConfig, TensorInfo
    from nanocupy.text.chat_template import ChatTemplate

EMBEDDING = "model.embed_tokens."


class ModelFacts:
    """Facts about a known name, a folder or a hub id.

    Args:
        quantize: bits of codes, if floats are quantised on loading.
        folder: the folder of its files. Default: found by `resolve`.
    """

    def __init__(
        self, model: str, quantize: int | None = None, *, folder: Path | None = None
    ) -> None:
        from nanocupy import checkpoint

        self.name = model
        self.folder: Path = folder or checkpoint.resolve(model)
        with checkpoint.Checkpoint(self.folder) as weights:
            self.config: ModelConfig = weights.config
            self.tensors: dict[str, TensorInfo] = {n: weights.info(n) for n in weights.names()}
            if quantize:
                self._quantise(weights, quantize)

    def _quantise(self, weights: Checkpoint, bits: int) -> None:
        from nanocupy.engine.load import GROUP
        from nanocupy.models.load import match, to_quantize

        model, wanted = match(weights)
        for path in to_quantize(weights, model, (bits, GROUP)):
            info = self.tensors[wanted[f"{path}.weight"]]
            values = math.prod(info.shape)
            numbers = 2 * info.nbytes // GROUP  # scales and biases have the weight's dtype
            self.tensors[info.name] = info._replace(nbytes=values * bits // 8 + numbers)

    def bits(self, name: str) -> int | None:
        """Bits per element of an affine-quantised weight, its scales and its biases; else None."""
        module, _, leaf = name.rpartition(".")
        if (
            leaf not in ("weight", "scales", "biases", "order")
            or f"{module}.scales" not in self.tensors
        ):
            return None
        assert self.config.quantization is not None
        how = self.config.quantization.for_module(module)
        return how[0] if how else None

    @cached_property
    def nbytes(self) -> dict[str, int]:
        """Bytes by storage: `4-bit` (scales and biases included), `F16`, ..."""
        total: Counter[str] = Counter()
        for name, tensor in self.tensors.items():
            bits = self.bits(name)
            total[f"{bits}-bit" if bits else tensor.dtype] += tensor.nbytes
        return dict(total)

    @cached_property
    def parameters(self) -> int:
        """The number of parameters; a packed word counts as its elements."""
        count = 0
        for name, tensor in self.tensors.items():
            bits = self.bits(name)
            if bits is None:
                count += math.prod(tensor.shape)
            elif name.endswith(".weight"):
                count += math.prod(tensor.shape) * 32 // bits
        return count

    @property
    def bytes_per_step(self) -> int:
        """Bytes of weights that one token reads: all, without an embedding that is not the head."""
        return sum(
            tensor.nbytes
            for name, tensor in self.tensors.items()
            if self.config.tie_word_embeddings or not name.startswith(EMBEDDING)
        )

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of keys and values of one token of context."""
        return kv_bytes_per_token(self.config, dtype)

    def ends(self) -> Sequence[int]:
        """The tokens that end an answer; without a tokenizer.json, those that config.json has."""
        from nanocupy.text import Tokenizer

        known = (self.folder / "tokenizer.json").is_file()
        return Tokenizer(self.folder).eos_ids if known else self.config.eos_token_ids

    def report(self) -> dict[str, Any]:
        """For `nanocupy info MODEL`."""
        from nanocupy.checkpoint import load_generation_config
        from nanocupy.text import load_chat_template

        whole = sum(self.nbytes.values())
        return {
            "model": self.name,
            "folder": str(self.folder),
            **sizes(self.config, self.parameters, self.nbytes | {"all": whole}, whole),
            "generation": generation(self.ends(), load_generation_config(self.folder)),
            "template": preview(load_chat_template(self.folder)),
        }


def hub_report(model: str) -> dict[str, Any]:
    """For `nanocupy info owner/name`: downloads the headers of weights only."""
    from tempfile import TemporaryDirectory

    from nanocupy.checkpoint.hub import without_weights

    with TemporaryDirectory() as scratch:
        said = ModelFacts(model, folder=without_weights(model, Path(scratch))).report()
    return {**said, "folder": "on the hub"}


def gguf_report(path: Path) -> dict[str, Any]:
    """For `nanocupy info FILE.gguf`, without converting it."""
    from nanocupy.checkpoint import parse_config
    from nanocupy.checkpoint.gguf.file import GgufFile
    from nanocupy.checkpoint.gguf.model import GgufModel
    from nanocupy.checkpoint.gguf.tokenizer import GgufTokenizer
    from nanocupy.text.chat_template import ChatTemplate

    gguf = GgufFile(path)
    model, tokenizer = GgufModel(gguf), GgufTokenizer(gguf)
    raw = model.config() | {"eos_token_id": tokenizer.end_ids, "bos_token_id": tokenizer.bos}
    config = parse_config(raw, path)
    nbytes: Counter[str] = Counter()
    for tensor in gguf.tensors.values():
        nbytes[tensor.kind] += tensor.nbytes
    texts = {k: v for k, v in tokenizer.tokenizer_config().items() if k.endswith("_token")}
    sources = tokenizer.chat_templates
    template = ChatTemplate.from_source(sources, texts) if sources else None
    held = nbytes | Counter(all=sum(nbytes.values()))
    return {
        "model": str(path),
        **sizes(config, model.parameters, dict(held), model.loaded_nbytes),
        "generation": generation(config.eos_token_ids, {}),
        "template": preview(template),
    }


def kv_bytes_per_token(config: ModelConfig, dtype: str) -> int:
    """Bytes of keys and values of one token of context."""
    from nanocupy.engine.kv_cache import bytes_per_token

    shape = (config.num_hidden_layers, config.num_key_value_heads, config.head_dim)
    return bytes_per_token(*shape, dtype)


def sizes(
    config: ModelConfig, parameters: int, nbytes: dict[str, int], loaded: int
) -> dict[str, Any]:
    """The sizes of the network, and whether it fits into memory here."""
    return {
        "architecture": config.model_type,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "attention_heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
        "parameters": parameters,
        "bytes": nbytes,
        "kv_bytes_per_token": {
            dtype: kv_bytes_per_token(config, dtype) for dtype in ("int8", "float16", "float32")
        },
        "here": fits(config, loaded),
    }


def fits(config: ModelConfig, loaded: int) -> dict[str, Any]:
    """Whether weights of `loaded` bytes fit into the memory here, and how many tokens of context
    (in float16) fit beside them."""
    from nanocupy.device.cpu import host_memory

    free = host_memory.available()
    tokens = max(0, free - loaded) // kv_bytes_per_token(config, "float16")
    return {
        "memory_bytes": host_memory.total(),
        "available_bytes": free,
        "weights_bytes": loaded,
        "fits": loaded < free,
        "room_for_tokens": tokens,
        "whole_contexts": tokens // config.max_position_embeddings,
    }


def generation(ends: Sequence[int], said: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a request: sampling, and the tokens that end an answer."""
    from nanocupy.engine.generation import NAMES

    names = ("do_sample", *NAMES)
    own = {name: said[name] for name in names if said.get(name) is not None}
    return {**own, "end_tokens": sorted(ends)}


def preview(template: ChatTemplate | None) -> str | None:
    """The prompt of a short conversation; None without a template."""
    if template is None:
        return None
    try:
        return template.render([{"role": "user", "content": "Hello"}])
    except ValueError as error:
        return f"cannot be rendered: {error}"
