"""Which of a model's chat templates is used, in every form in which folders hold several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nanocupy.text import ChatTemplate, load_chat_template
from nanocupy.text.template_files import template_sources

HI = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
Form = Callable[[Path, Mapping[str, str]], None]


def as_list(folder: Path, named: Mapping[str, str]) -> None:
    said = [{"name": name, "template": source} for name, source in named.items()]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": said}))


def as_object(folder: Path, named: Mapping[str, str]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": dict(named)}))


def as_files(folder: Path, named: Mapping[str, str]) -> None:
    (folder / "additional_chat_templates").mkdir()
    for name, source in named.items():
        file = f"additional_chat_templates/{name}.jinja"
        (folder / ("chat_template.jinja" if name == "default" else file)).write_text(source)


def as_older_file(folder: Path, named: Mapping[str, str]) -> None:
    said = [{"name": name, "template": source} for name, source in named.items()]
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": said}))


every_form = pytest.mark.parametrize("form", [as_list, as_object, as_files, as_older_file])


def chat_of(form: Form, folder: Path, *names: str) -> ChatTemplate:
    form(folder, {name: f"{name}: {{{{ messages[0].content }}}}" for name in names})
    return load_chat_template(folder)


def name_used(chat: ChatTemplate, **kwargs: Any) -> str:
    return chat.render(HI, **kwargs).removesuffix(": Hi")


@every_form
def test_with_a_default(form: Form, tmp_path: Path) -> None:
    chat = chat_of(form, tmp_path, "default", "rag", "tool_use")
    assert name_used(chat) == name_used(chat, tools=None) == "default"
    assert name_used(chat, tools=TOOLS) == "tool_use"
    assert name_used(chat, tools=TOOLS, chat_template="default") == "default"
    assert name_used(chat, chat_template="rag", documents=[{"text": "x"}]) == "rag"
    assert chat.source.startswith("default")


@every_form
def test_without_tools_of_its_own_the_default_takes_them(form: Form, tmp_path: Path) -> None:
    chat = chat_of(form, tmp_path, "rag", "default")
    assert name_used(chat, tools=TOOLS) == "default"


@every_form
def test_the_only_other_one_is_the_default(form: Form, tmp_path: Path) -> None:
    chat = chat_of(form, tmp_path, "tool_use", "chat")
    assert name_used(chat) == "chat"
    assert name_used(chat, tools=TOOLS) == "tool_use"
    assert chat.source.startswith("chat")


@every_form
def test_one_alone_is_used_whatever_its_name(form: Form, tmp_path: Path) -> None:
    chat = chat_of(form, tmp_path, "tool_use")
    assert name_used(chat) == name_used(chat, tools=TOOLS) == "tool_use"


@every_form
def test_among_several_without_a_default_the_caller_chooses(form: Form, tmp_path: Path) -> None:
    chat = chat_of(form, tmp_path, "rag", "plain", "tool_use")
    with pytest.raises(ValueError, match=r"\['plain', 'rag', 'tool_use'\]: none was chosen"):
        chat.render(HI)
    with pytest.raises(ValueError, match=r"\['plain', 'rag', 'tool_use'\]: got 'default'"):
        chat.render(HI, chat_template="default")
    assert name_used(chat, chat_template="plain") == "plain"
    assert name_used(chat, tools=TOOLS) == "tool_use"


def test_files_go_before_what_the_config_says(tmp_path: Path) -> None:
    as_list(tmp_path, {"default": "config", "tool_use": "config with tools"})
    as_files(tmp_path, {"default": "file"})
    assert template_sources(tmp_path) == {"default": "file"}
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("file with tools")
    assert template_sources(tmp_path) == {"default": "file", "tool_use": "file with tools"}


def test_a_string_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "one"}))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "older"}))
    assert template_sources(tmp_path) == {"default": "one"}
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert template_sources(tmp_path) == {"default": "older"}


@pytest.mark.parametrize("said", [None, [], {}])
def test_a_field_that_says_nothing_is_no_template(said: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": said}))
    assert load_chat_template(tmp_path) is None


@pytest.mark.parametrize("said", [7, True, ["x"], [{"name": "default"}], {"default": None}])
def test_a_field_that_is_no_template_is_refused(said: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": said}))
    with pytest.raises(ValueError, match="chat_template must be text, an object of names"):
        load_chat_template(tmp_path)


def test_each_of_several_has_to_compile(tmp_path: Path) -> None:
    as_list(tmp_path, {"default": "fine", "tool_use": "{% for"})
    with pytest.raises(ValueError, match="does not compile"):
        load_chat_template(tmp_path)
