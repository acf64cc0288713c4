from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from nanocupy.checkpoint import load_config, load_generation_config
from nanocupy.files import JSON_BYTES, TEMPLATE_BYTES, TOKENIZER_BYTES, read_json, read_text
from nanocupy.quoting import MOST, listed, quoted
from nanocupy.text import Tokenizer, load_chat_template

READERS: dict[str, tuple[int, Any]] = {
    "config.json": (JSON_BYTES, load_config),
    "generation_config.json": (JSON_BYTES, load_generation_config),
    "tokenizer_config.json": (JSON_BYTES, load_chat_template),
    "chat_template.json": (JSON_BYTES, load_chat_template),
    "chat_template.jinja": (TEMPLATE_BYTES, load_chat_template),
    "tokenizer.json": (TOKENIZER_BYTES, Tokenizer),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_30_gb_is_not_read(tmp_path: Path, name: str) -> None:
    """It takes no room on disk, and would take all memory."""
    _, read = READERS[name]
    with (tmp_path / name).open("wb") as file:
        file.truncate(30 << 30)
    with pytest.raises(ValueError, match=rf"{name} cannot be read: it has 32,212,254,720 bytes"):
        read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    (folder := tmp_path / "model").mkdir()
    (tmp_path / "secret").write_text('{"chat_template": "secret"}')
    (folder / name).symlink_to("../secret")
    with pytest.raises(ValueError, match=rf"{name} leads out of its folder"):
        READERS[name][1](folder)


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_not_opened(tmp_path: Path, name: str) -> None:
    """Opening a pipe would wait for whoever writes into it."""
    os.mkfifo(tmp_path / name)
    found: list[BaseException] = []

    def read() -> None:
        try:
            READERS[name][1](tmp_path)
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and "is not a regular file" in str(found[0])


@pytest.mark.parametrize("name", READERS)
def test_a_link_to_nothing_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("gone")
    with pytest.raises(ValueError, match="is missing or cannot be followed"):
        READERS[name][1](tmp_path)


def test_links_inside_a_folder_and_into_the_hubs_blobs(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "123").write_text("from the blobs")
    (snapshot / "chat_template.jinja").symlink_to("../../blobs/123")
    assert read_text(snapshot / "chat_template.jinja", TEMPLATE_BYTES) == "from the blobs"
    (named := snapshot / "additional_chat_templates").mkdir()
    (named / "tool_use.jinja").symlink_to("../../../blobs/123")
    assert read_text(named / "tool_use.jinja", TEMPLATE_BYTES, snapshot) == "from the blobs"
    (snapshot / "a.json").write_text("{}")
    (snapshot / "b.json").symlink_to("a.json")
    assert read_json(snapshot / "b.json") == {}
    (linked := tmp_path / "linked").symlink_to(snapshot)
    assert read_text(linked / "chat_template.jinja", TEMPLATE_BYTES) == "from the blobs"


@pytest.mark.parametrize(
    ("data", "why"), [(b"\xff", "codec"), (b"[" * 100_000, "cannot be read"), (b"[]", "list")]
)
def test_what_is_no_json_object(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=why) as caught:
        read_json(tmp_path / "a.json")
    assert "a.json" in str(caught.value) and len(str(caught.value)) < 1000


HUGE: dict[str, Any] = {
    "a long text": "x" * 5_000_000,
    "many numbers": [0.5] * 1_000_000,
    "many keys": {str(i): i for i in range(100_000)},
    "a long key": {"k" * 5_000_000: 1},
    "a list in lists": json.loads("[" * 500 + "]" * 500),
    "an integer of 100,000 digits": 10**100_000,
    "bytes": b"\0" * 5_000_000,
}


@pytest.mark.parametrize("what", HUGE)
def test_what_is_quoted_is_short(what: str) -> None:
    assert len(quoted(HUGE[what])) <= MOST


def test_what_is_short_is_quoted_whole() -> None:
    for value in ("yarn", [1, 2.5, None], {"a": [True]}, 2**40, -1.5, None):
        assert quoted(value) == repr(value)


def test_a_long_list_is_listed_in_part() -> None:
    assert listed(["a", "b"]) == "a, b"
    text = listed([f"tensor{i}" for i in range(1000)])
    assert text.startswith("tensor0, tensor1") and text.endswith("tensor19, and 980 more")
    assert len(listed(["x" * 10**6] * 3)) < 700
