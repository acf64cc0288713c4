from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nanocupy.text import ChatTemplate, Tokenizer, load_chat_template
from text import tiny_tokenizers as tiny

TEXT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
GUARDED = TEXT.replace("m.content }}", "m.content if m.content is string else '' }}")
ADDED = TEXT.replace("{{ m.content }}", "{{ 'says ' + m.content }}")
PARTS = """{% for m in messages %}<|im_start|>{{ m.role }}
{% for p in m.content %}{{ '<|image|>' if p.type == 'image' else p.text }}{% endfor %}<|im_end|>
{% endfor %}"""
BOTH = """{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}<|im_end|>
{% endfor %}"""  # noqa: E501
CALLS = """{% for m in messages %}{% for c in m.tool_calls or [] %}
{{ c.function.arguments | tojson }}
{% endfor %}{% endfor %}"""
CALLS_AS_TEXT = CALLS.replace("arguments | tojson", "arguments")
CALLS_JOINED = CALLS.replace(
    "{{ c.function.arguments | tojson }}", "{{ '!' + c.function.arguments }}"
)


def render(source: str, *messages: dict[str, Any], **kwargs: Any) -> str:
    return ChatTemplate.from_source(source, {}).render(list(messages), **kwargs)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def part(text: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": text}


# --- contents --------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [TEXT, GUARDED, ADDED])
def test_parts_are_joined_where_the_template_takes_text(source: str) -> None:
    one, two = user([part("a river"), part("a lake", "input_text")]), user("a river\na lake")
    assert render(source, one) == render(source, two)
    assert "a river\na lake<|im_end|>" in render(source, one)
    assert render(source, user([])) == render(source, user(""))


def test_parts_stay_where_the_template_takes_them() -> None:
    assert "[a][b]" in render(BOTH, user([part("a"), part("b")]))
    assert "a<|image|>b" in render(PARTS, user([part("a"), {"type": "image"}, part("b")]))


def test_text_is_a_part_where_the_template_takes_parts_alone() -> None:
    assert render(PARTS, user("a river")) == render(PARTS, user([part("a river")]))
    assert "a river" in render(PARTS, user("a river"))
    assert "\na river<" in render(BOTH, user("a river"))


def test_each_role_is_tried_by_itself() -> None:
    source = PARTS.replace(
        "{% for p", "{% if m.role == 'system' %}{{ m.content }}{% else %}{% for p"
    )
    source = source.replace("<|im_end|>", "{% endif %}<|im_end|>")
    system = {"role": "system", "content": [part("Be"), part("brief.")]}
    assert "system\nBe\nbrief.<|im_end|>" in render(source, system, user([part("x")]))


@pytest.mark.parametrize("wrong", [{"type": "image_url"}, {"type": "text"}, "text", 7, None])
def test_what_is_no_text_is_refused_where_text_is_wanted(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"messages\[1\]\.content\[0\] is of type"):
        render(TEXT, user("x"), user([wrong]))


# --- what is None ----------------------------------------------------------------------------


def test_fields_that_are_none_are_not_there() -> None:
    source = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
    call = {"id": None, "type": "function", "function": {"name": "f", "arguments": {"x": None}}}
    given = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    assert render(source, given) == (
        '{"role": "assistant", "tool_calls": [{"type": "function", '
        '"function": {"name": "f", "arguments": {"x": null}}}]}'
    )


def test_a_template_that_cannot_do_without_a_content_gets_an_empty_one() -> None:
    assert render(ADDED, {"role": "assistant", "content": None}).endswith("says <|im_end|>\n")
    with pytest.raises(ValueError, match="'dict object' has no attribute 'x'"):
        render("{{ 'a' + messages[0].x }}", {"role": "assistant"})


def test_tools_and_documents_are_none_when_not_given() -> None:
    source = "{{ tools is none }} {{ documents is none }} {{ style is defined }}"
    assert render(source, user("x")) == "True True False"
    assert render(source, user("x"), tools=[], style=1) == "False True True"
    with pytest.raises(ValueError, match="tools must be a list of objects"):
        render(source, user("x"), tools="weather")


# --- tool calls ------------------------------------------------------------------------------


def called(arguments: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}


@pytest.mark.parametrize("source", [CALLS, CALLS_AS_TEXT, CALLS_JOINED])
def test_arguments_as_json_text_come_out_as_json(source: str) -> None:
    text = render(source, called('{"city": "Zürich", "days": [1, null]}'))
    assert text.strip().lstrip("!") == '{"city": "Zürich", "days": [1, null]}'


def test_arguments_that_are_objects_are_left_alone() -> None:
    assert render(CALLS_AS_TEXT, called({"city": "x"})) == "{'city': 'x'}\n"
    assert render(CALLS, called("no json")) == '"no json"\n'
    assert render(CALLS, called("[1]")) == '"[1]"\n'


# --- reasoning, and messages that are objects -------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_reasoning_has_all_of_its_names(name: str) -> None:
    source = "{{ messages[0].reasoning_content }} {{ messages[0].thinking }}"
    assert render(source, {"role": "assistant", "content": "x", name: "hm"}) == "hm hm"


class Dumped:
    def model_dump(self) -> dict[str, Any]:
        return {"role": "user", "content": "hi", "audio": None}


@dataclasses.dataclass
class Shown:
    role: str
    content: str


def test_messages_may_be_objects() -> None:
    chat = ChatTemplate.from_source(TEXT, {})
    want = chat.render([user("hi")])
    assert chat.render([Dumped()]) == want == chat.render([Shown("user", "hi")])  # type: ignore[list-item]


# --- going on with the last message -----------------------------------------------------------

TRIMMED = TEXT.replace("m.content }}", "m.content | trim }}")


@pytest.mark.parametrize("source", [TEXT, TRIMMED, BOTH])
def test_the_last_message_can_be_left_open(source: str) -> None:
    chat = [user("Hi"), {"role": "assistant", "content": "Once upon <|im_end|> "}]
    text = render(source, *chat, continue_final_message=True)
    assert text.rstrip(" ").endswith("<|im_start|>assistant\nOnce upon <|im_end|>")
    assert text.endswith(" ") == (source != TRIMMED)


def test_parts_can_be_left_open() -> None:
    last = {"role": "assistant", "content": [part("Once"), part(" upon")]}
    assert render(PARTS, last, continue_final_message=True).endswith("Once upon")


def test_what_can_not_be_left_open() -> None:
    last = {"role": "assistant", "content": "Once"}
    with pytest.raises(ValueError, match="exclude each other"):
        render(TEXT, last, continue_final_message=True, add_generation_prompt=True)
    with pytest.raises(ValueError, match="has no text to continue"):
        render(TEXT, {"role": "assistant"}, continue_final_message=True)
    with pytest.raises(ValueError, match="does not show the last message"):
        render("{{ messages[0].content | upper }}", last, continue_final_message=True)


def test_token_ids_of_a_message_left_open(tmp_path: Any) -> None:
    folder = tiny.save(tiny.byte_level(), tmp_path, TEXT)
    tokenizer, chat = Tokenizer(folder), load_chat_template(folder)
    last = {"role": "assistant", "content": "<think>Once<|im_end|>"}
    text, ids = chat.apply(tokenizer, [last], continue_final_message=True)
    assert tokenizer.decode(ids, skip_special=False) == text
    names = [tokenizer.added[i] for i in ids if i in tokenizer.added]
    assert names == ["<|im_start|>", "<think>"]
