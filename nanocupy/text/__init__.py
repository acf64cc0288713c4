"""Text in and out: tokenizer, chat template, detokenizer, stop strings. No arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocupy.text.detokenizer import Detokenizer
from nanocupy.text.stop_strings import StopStrings
from nanocupy.text.template_files import load_chat_template, read_chat_template
from nanocupy.text.tokenizer import Tokenizer, TooLongError

if TYPE_CHECKING:
    from nanocupy.text.chat_template import ChatTemplate

__all__ = [
    "ChatTemplate",
    "Detokenizer",
    "StopStrings",
    "Tokenizer",
    "TooLongError",
    "load_chat_template",
    "read_chat_template",
]


def __getattr__(name: str) -> Any:
    """Import jinja2 with the first use of a chat template."""
    if name == "ChatTemplate":
        from nanocupy.text.chat_template import ChatTemplate

        return ChatTemplate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
