"""Text in and out: tokenizer, chat template, detokenizer, stop strings. No arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocupy.text.detokenizer import Detokenizer
from nanocupy.text.stop_strings import StopStrings
from nanocupy.text.tokenizer import Tokenizer, TooLongError

if TYPE_CHECKING:
    from nanocupy.text.chat_template import ChatTemplate, load_chat_template

__all__ = [
    "ChatTemplate",
    "Detokenizer",
    "StopStrings",
    "Tokenizer",
    "TooLongError",
    "load_chat_template",
]


def __getattr__(name: str) -> Any:
    """Import jinja2 with the first use of a chat template."""
    if name in ("ChatTemplate", "load_chat_template"):
        from nanocupy.text import chat_template

        return getattr(chat_template, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
