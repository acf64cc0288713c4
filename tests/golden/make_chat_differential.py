"""Make chat/golden.json: what transformers renders for each template and conversation in chat/.

pip install transformers jinja2
python tests/golden/make_chat_differential.py                       # writes chat/golden.json
python tests/golden/make_chat_differential.py qwen3 "call as text"  # shows one text

nanocupy differs from transformers on purpose in what RULES name, and in nothing else. Where one
applies, the golden is transformers' rendering of the conversation that the rule makes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from text.chat_cases import FOLDER, TEXTS, Case, conversations, template_source

# Roles whose contents a template takes as parts; all other parts are joined, a line each.
_TALK = ("system", "user", "assistant")
TAKES_PARTS: dict[str, tuple[str, ...]] = {
    "apertus": ("user", "assistant"),
    "gemma3": _TALK,
    "gemma4": _TALK,
    "glm45": (*_TALK, "tool"),
    "kimi": (*_TALK, "tool"),
    "lfm2": (*_TALK, "tool"),
    "llama32_vision": _TALK,
    "llama4": (*_TALK, "tool"),
    "mistral_small": (*_TALK, "tool"),
    "parts_alone": (*_TALK, "tool"),
}
TAKES_PARTS_ALONE = ("parts_alone",)
# Templates that write arguments as they come, so that these must be JSON text. Objects elsewhere.
WRITES_TEXT = ("deepseek_r1", "functionary", "internlm")
# Templates that fail where a message has no content, as one with calls alone.
NEEDS_CONTENT = (
    "chatml",
    "command_r_rag",
    "falcon",
    "granite",
    "olmo",
    "phi3",
    "smollm2",
    "zephyr",
)

Messages = list[dict[str, Any]]


def parts_joined(template: str, messages: Messages) -> Messages:
    """Text parts are one text, a part a line, where the template takes text."""
    takes = TAKES_PARTS.get(template, ())
    return [
        {**m, "content": "\n".join(part["text"] for part in m["content"])}
        if isinstance(m.get("content"), list) and m["role"] not in takes
        else m
        for m in messages
    ]


def text_as_part(template: str, messages: Messages) -> Messages:
    """A text is a list of one part, where the template takes nothing else."""
    if template not in TAKES_PARTS_ALONE:
        return messages
    return [
        {**m, "content": [{"type": "text", "text": m["content"]}]}
        if isinstance(m.get("content"), str)
        else m
        for m in messages
    ]


def arguments_read(template: str, messages: Messages) -> Messages:
    """Arguments that are JSON text are the object they spell, where the template takes objects."""
    if template in WRITES_TEXT:
        return messages
    return [
        {**m, "tool_calls": [_read(call) for call in m["tool_calls"]]} if m.get("tool_calls") else m
        for m in messages
    ]


def _read(call: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments = json.loads(call["function"]["arguments"])
    except (TypeError, ValueError):
        return call
    return {**call, "function": {**call["function"], "arguments": arguments}}


def content_empty(template: str, messages: Messages) -> Messages:
    """A message without a content has an empty one, where the template fails without."""
    if template not in NEEDS_CONTENT or all(m.get("content") is not None for m in messages):
        return messages
    return [{**m, "content": m.get("content") or ""} for m in messages]


RULES: tuple[Callable[[str, Messages], Messages], ...] = (
    parts_joined,
    text_as_part,
    arguments_read,
    content_empty,
)


def ruled(template: str, case: Case) -> Case:
    """The conversation as the rules make it for a template."""
    messages = case.messages
    for rule in RULES:
        messages = rule(template, messages)
    return case._replace(messages=messages)


def make_tokenizer() -> Any:
    """A tokenizer that does nothing but render templates."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, **TEXTS)


def render(tokenizer: Any, template: str, case: Case) -> str:
    """transformers' rendering; raises what it raises."""
    given = {"add_generation_prompt": "continue_final_message" not in case.kwargs, **case.kwargs}
    source = template_source(template)
    text: str = tokenizer.apply_chat_template(
        case.messages, chat_template=source, tokenize=False, **given
    )
    return text


def digest(show: Callable[[Case], str], case: Case) -> str:
    """16 hexadecimal digits, or "error" where transformers raises."""
    try:
        return hashlib.sha256(show(case).encode()).hexdigest()[:16]
    except Exception:  # templates raise what they like
        return "error"


def main() -> None:
    """Write the goldens, or show one text."""
    import transformers

    tokenizer = make_tokenizer()
    if len(sys.argv) == 3:
        cases = conversations(template_source(sys.argv[1]))
        case = next(case for case in cases if case.name == sys.argv[2])
        print(render(tokenizer, sys.argv[1], ruled(sys.argv[1], case)))
        return
    rows = {}
    for name in sorted(path.stem for path in FOLDER.glob("*.jinja")):
        show = partial(render, tokenizer, name)
        cases = conversations(template_source(name))
        rows[name] = [digest(show, ruled(name, case)) for case in cases]
    lines = ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in rows.items())
    head = f'"transformers": "{transformers.__version__}"'
    names = f'"conversations": {json.dumps([case.name for case in cases])}'
    (FOLDER / "golden.json").write_text(f'{{\n{head},\n{names},\n"digests": {{\n{lines}\n}}\n}}\n')


if __name__ == "__main__":
    main()
