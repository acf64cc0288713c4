"""Gemma 3, its language model: Gemma 2 with norms on the heads of q and k in place of caps, a
window in most layers, and a rope of their own in those."""

from __future__ import annotations

from nanocupy.checkpoint import ModelConfig
from nanocupy.models import gemma2, qwen3
from nanocupy.models.rope_scaling import make_rope


class Attention(qwen3.Attention):
    def __init__(self, args: ModelConfig, layer: int) -> None:
        super().__init__(args, layer)
        self.scale = args.attention_scale
        if args.window(layer):
            self.rope = make_rope(args, args.local_rope)


class TransformerBlock(gemma2.TransformerBlock):
    attention_class = Attention


class Gemma3Model(gemma2.Gemma2Model):
    block_class = TransformerBlock


class Model(gemma2.Model):
    decoder_class = Gemma3Model

    @staticmethod
    def sanitize(names: list[str]) -> dict[str, str]:
        """Take the language model of one that sees, too. Transformers 4 names it
        language_model.model, 5 model.language_model; what is for images is ignored."""
        found = {}
        for name in gemma2.Model.sanitize(names):
            if "vision_tower." not in name and "multi_modal_projector." not in name:
                ours = name.removeprefix("language_model.")
                found[name] = ours.replace("model.language_model.", "model.", 1)
        return found
