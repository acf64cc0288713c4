"""SmolLM3: Llama in which every fourth layer does not rotate q and k."""

from __future__ import annotations

from nanocupy.checkpoint import ModelConfig
from nanocupy.models import llama


class Attention(llama.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        if not args.rope_layers[layer]:
            self.rope = lambda x, offset: x


class TransformerBlock(llama.TransformerBlock):
    attention_class = Attention


class SmolLM3Model(llama.LlamaModel):
    block_class = TransformerBlock


class Model(llama.Model):
    decoder_class = SmolLM3Model
