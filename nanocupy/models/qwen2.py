"""Qwen2 (Qwen2.5, the smaller DeepSeek distillations): Llama with biases on q, k and v, and windows
in late layers if they are switched on."""

from __future__ import annotations

from nanocupy import core
from nanocupy.checkpoint import ModelConfig
from nanocupy.models import llama


class Attention(llama.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        for proj in (self.q_proj, self.k_proj, self.v_proj):
            proj.bias = core.zeros((proj.weight.shape[0],))


class TransformerBlock(llama.TransformerBlock):
    attention_class = Attention


class Qwen2Model(llama.LlamaModel):
    block_class = TransformerBlock


class Model(llama.Model):
    decoder_class = Qwen2Model
