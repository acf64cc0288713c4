"""llama.cpp's architectures as transformers': names of tensors, fields of config.json.

An architecture's settings are in the metadata under its name ("qwen3.block_count"). Other keys that
by their names change the maths are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint.gguf.file import GgufFile
from nanocupy.quoting import listed, quoted

Json = dict[str, Any]

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_AFTER = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LLAMA = {**_NORMS, **_ATTENTION, **_MLP}
_NO_WINDOW: Json = {"use_sliding_window": False}
_NO_BIAS: Json = {"attention_bias": False}
_GEMMA = {**_LLAMA, **_AFTER, "ffn_norm": "pre_feedforward_layernorm"}


class Keys:
    """The metadata of a file's architecture."""

    def __init__(self, gguf: GgufFile, arch: str) -> None:
        self.gguf, self.arch = gguf, arch

    def has(self, name: str) -> bool:
        return f"{self.arch}.{name}" in self.gguf

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        return self.gguf.get(f"{self.arch}.{name}", int, default)

    def number(self, name: str, default: float | None = None) -> float:
        """A float32 as the float with its shortest text, as 1e-05."""
        return float(str(np.float32(self.gguf.get(f"{self.arch}.{name}", float, default))))

    def text(self, name: str, default: str) -> str:
        return self.gguf.get(f"{self.arch}.{name}", str, default)

    @property
    def heads(self) -> int:
        found = self.count("attention.head_count")
        if found < 1:
            raise ValueError(f"{self.gguf.path}: {self.arch}.attention.head_count is {found}")
        return found

    @property
    def kv_heads(self) -> int:
        return self.count("attention.head_count_kv", self.heads)

    @property
    def head_dim(self) -> int:
        return self.count("attention.key_length", self.count("embedding_length") // self.heads)

    def tensor(self, name: str) -> NDArray[np.float32] | None:
        """A float32 vector; None if the file has none of that name."""
        tensor = self.gguf.tensors.get(name)
        if tensor is None:
            return None
        if tensor.kind != "F32":
            raise ValueError(f"{self.gguf.path}: {name} should be F32, not {tensor.kind}")
        return self.gguf.raw(tensor).reshape(-1).view("<f4")


@dataclass(frozen=True)
class GgufArchitecture:
    """
    Attributes:
        model_type, class_name: as config.json names them.
        layers: transformers' names of a layer's tensors by llama.cpp's.
        fields: makes the architecture's own fields of config.json.
        experts: the module of a layer's experts, and the names of an expert's three weights.
        permuted: llama.cpp rotates neighbours of q and k where transformers rotates halves.
        plus_one: norms are stored as 1 + w.
        ignored: tensors that are not weights.
    """

    model_type: str
    class_name: str
    layers: dict[str, str]
    fields: Callable[[Keys], Json]
    experts: tuple[str, dict[str, str]] | None = None
    permuted: bool = False
    plus_one: bool = False
    ignored: frozenset[str] = field(default=frozenset({"rope_freqs.weight"}))

    def module(self, name: str) -> str | None:
        """transformers' name of a tensor's module; None if it is unknown.

        A stack of experts is `...experts.{}.<role>`, a pattern for the number.
        """
        stem = name.rpartition(".")[0]
        if stem in TOP:
            return TOP[stem]
        block = re.fullmatch(r"blk\.(0|[1-9]\d{0,5})\.(\w+?)(?:\.(\d{1,5}))?", stem)
        if block is None:
            return None
        layer, leaf, expert = block.groups()
        if self.experts and (stacked := re.fullmatch(r"ffn_(gate|up|down)(_exps)?", leaf)):
            where, roles = self.experts
            if bool(stacked[2]) == (expert is None):  # a stack has no number, one of them has
                number = expert or "{}"
                return f"model.layers.{layer}.{where}.experts.{number}.{roles[stacked[1]]}"
        if leaf not in self.layers or expert is not None:
            return None
        return f"model.layers.{layer}.{self.layers[leaf]}"


# ---- the fields of each architecture


def _llama(keys: Keys) -> Json:
    bias = "blk.0.attn_q.bias" in keys.gguf.tensors
    return {"attention_bias": bias, "mlp_bias": "blk.0.ffn_gate.bias" in keys.gguf.tensors}


def _mixtral(keys: Keys) -> Json:
    return {"sliding_window": None, **_experts(keys, "num_local_experts")}


def _experts(keys: Keys, name: str) -> Json:
    for odd, usual in (("expert_gating_func", 1), ("expert_shared_count", 0)):
        if keys.count(odd, usual) != usual:
            raise ValueError(
                f"{keys.gguf.path}: {keys.arch}.{odd} {keys.count(odd)} is not supported"
            )
    return {
        name: keys.count("expert_count"),
        "num_experts_per_tok": keys.count("expert_used_count"),
    }


def _qwen3_moe(keys: Keys) -> Json:
    """llama.cpp always normalises the experts' weights."""
    return {
        **_NO_WINDOW,
        **_NO_BIAS,
        **_experts(keys, "num_experts"),
        "moe_intermediate_size": keys.count("expert_feed_forward_length"),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _gemma(keys: Keys, largest: int, period: int) -> Json:
    """The 27B models, which have `largest` layers, scale scores by another size."""
    layers, head_dim = keys.count("block_count"), keys.head_dim
    whole = keys.count("embedding_length") // keys.heads
    found: Json = {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": whole if layers == largest else head_dim,
        "sliding_window": keys.count("attention.sliding_window"),
    }
    name = f"{keys.arch}.attention.sliding_window_pattern"
    said = keys.gguf.metadata.get(name, period)
    keys.gguf.read_keys.add(name)
    if isinstance(said, list):
        kinds = ("full_attention", "sliding_attention")
        return {**found, "layer_types": [kinds[bool(on)] for on in said[:layers]]}
    return {**found, "sliding_window_pattern": said}


def _gemma2(keys: Keys) -> Json:
    return {
        **_gemma(keys, 46, 2),
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0),
    }


def _gemma3(keys: Keys) -> Json:
    cap = keys.number("final_logit_softcapping", 0.0)
    return {
        **_gemma(keys, 62, 6),
        "rope_local_base_freq": keys.number("rope.freq_base_swa", 10000.0),
        "final_logit_softcapping": cap or None,
    }


def _phi3(keys: Keys) -> Json:
    return {"sliding_window": keys.count("attention.sliding_window", 0) or None}


def _smollm3(keys: Keys) -> Json:
    return {**_llama(keys), "use_sliding_window": False, "no_rope_layer_interval": 4}


def _granite(keys: Keys) -> Json:
    names = {
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "attention_multiplier": "attention.scale",
        "logits_scaling": "logit_scale",
    }
    return {**_llama(keys), **{ours: keys.number(theirs) for ours, theirs in names.items()}}


_SILU_EXPERTS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}

ARCHITECTURES: dict[str, GgufArchitecture] = {
    "llama": GgufArchitecture("llama", "LlamaForCausalLM", _LLAMA, _llama, permuted=True),
    "mixtral": GgufArchitecture(
        "mixtral",
        "MixtralForCausalLM",
        {**_NORMS, **_ATTENTION, "ffn_gate_inp": "block_sparse_moe.gate"},
        _mixtral,
        ("block_sparse_moe", {"gate": "w1", "down": "w2", "up": "w3"}),
        permuted=True,
    ),
    "qwen2": GgufArchitecture("qwen2", "Qwen2ForCausalLM", _LLAMA, lambda _: _NO_WINDOW),
    "qwen3": GgufArchitecture(
        "qwen3", "Qwen3ForCausalLM", {**_LLAMA, **_HEAD_NORMS}, lambda _: {**_NO_WINDOW, **_NO_BIAS}
    ),
    "qwen3moe": GgufArchitecture(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        {**_NORMS, **_ATTENTION, **_HEAD_NORMS, "ffn_gate_inp": "mlp.gate"},
        _qwen3_moe,
        ("mlp", _SILU_EXPERTS),
    ),
    "gemma2": GgufArchitecture("gemma2", "Gemma2ForCausalLM", _GEMMA, _gemma2, plus_one=True),
    "gemma3": GgufArchitecture(
        "gemma3_text", "Gemma3ForCausalLM", {**_GEMMA, **_HEAD_NORMS}, _gemma3, plus_one=True
    ),
    "phi3": GgufArchitecture(
        "phi3",
        "Phi3ForCausalLM",
        {
            **_NORMS,
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        _phi3,
        ignored=frozenset({"rope_factors_long.weight", "rope_factors_short.weight"}),
    ),
    "smollm3": GgufArchitecture("smollm3", "SmolLM3ForCausalLM", _LLAMA, _smollm3, permuted=True),
    "olmo2": GgufArchitecture(
        "olmo2",
        "Olmo2ForCausalLM",
        {**_ATTENTION, **_HEAD_NORMS, **_MLP, **_AFTER},
        lambda _: _NO_BIAS,
    ),
    "granite": GgufArchitecture("granite", "GraniteForCausalLM", _LLAMA, _granite, permuted=True),
}
"""By general.architecture ("mixtral": llama with experts)."""


def architecture(gguf: GgufFile) -> tuple[str, GgufArchitecture]:
    """(llama.cpp's name, the architecture). ValueError names those that are supported."""
    arch = gguf.get("general.architecture", str)
    known = [name for name in ARCHITECTURES if name != "mixtral"]
    if arch not in known:
        raise ValueError(
            f"{gguf.path}: architecture {quoted(arch)} is not supported; "
            f"supported: {', '.join(known)}"
        )
    if arch == "llama" and gguf.get("llama.expert_count", int, 0):
        return arch, ARCHITECTURES["mixtral"]
    return arch, ARCHITECTURES[arch]


_OF_THE_MATHS = re.compile(
    "attention|attn|bias|cap|clamp|expert|gating|multipl|norm|residual|rope|scal|softmax|window"
)
_HARMLESS = ("rope.scaling.finetuned", "attention.causal", "attention.layer_norm_epsilon")


def refuse_unread(gguf: GgufFile, arch: str) -> None:
    """Refuse keys that change the maths by their names, and that were not read.

    Raises:
        ValueError: it names every such key.
    """
    wrong = [
        f"{key} {quoted(value)}"
        for key, value in gguf.metadata.items()
        if key.startswith(f"{arch}.")
        and key not in gguf.read_keys
        and _OF_THE_MATHS.search(key)
        and key.removeprefix(f"{arch}.") not in _HARMLESS
        and (value is True or value not in (False, 0, "", []))
    ]
    if wrong:
        raise ValueError(f"{gguf.path}: {listed(wrong)}: not supported for '{arch}'")
