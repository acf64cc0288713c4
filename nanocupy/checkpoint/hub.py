"""Folders and files from the Hugging Face hub, by huggingface_hub, which only this module imports.

Its settings apply: HF_ENDPOINT (a mirror), HF_TOKEN, HF_HOME (the cache), HF_HUB_OFFLINE. Files
that were downloaded before are not downloaded again, and a broken transfer is resumed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nanocupy.checkpoint.header import MAX_HEADER
from nanocupy.files import read_json_if_there
from nanocupy.progress import shown
from nanocupy.quoting import MOST

PATTERNS = ["*.json", "*.safetensors", "*.jinja"]
"""The files of a model. Nothing that could be run is downloaded."""

_PART = r"[A-Za-z0-9][\w.\-]*"
_ID = re.compile(rf"({_PART}/{_PART})(?:@([\w.\-/]+))?(?::([\w.\-/]+\.gguf))?")


class HubId(NamedTuple):
    """`owner/name`, `owner/name@revision` or `owner/name:file.gguf`.

    Without a revision it is the main branch; without a file, the folder's model.
    """

    repo: str
    revision: str | None
    file: str | None


def parse(model: str) -> HubId | None:
    """Parse a hub id; None: `model` is none."""
    found = _ID.fullmatch(model)
    return HubId(*found.groups()) if found and ".." not in model else None


def snapshot(model: str, *, progress: bool | None) -> Path:
    """Return the folder of a hub id, or the GGUF file that it names; download it if necessary.

    Raises:
        ValueError: it cannot be downloaded, and why.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    from nanocupy.checkpoint.gguf.file import part_names

    asked = _parsed(model)

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": not shown(progress)})

    how: dict[str, Any] = {"revision": asked.revision, "tqdm_class": Bar}
    with _explained(model):
        if not asked.file:
            return Path(snapshot_download(asked.repo, allow_patterns=PATTERNS, **how))
        folder, _, last = asked.file.rpartition("/")
        names = [f"{folder}/{name}" if folder else name for name in part_names(last)]
        first, *_ = [hf_hub_download(asked.repo, name, **how) for name in names]
        return Path(first)


def without_weights(model: str, out: Path) -> Path:
    """Write the folder of a hub id to `out`, with only the headers of files of weights, and a hole.

    Raises:
        ValueError: it cannot be downloaded, and why.
    """
    from huggingface_hub import snapshot_download

    asked = _parsed(model)
    patterns = [pattern for pattern in PATTERNS if "safetensors" not in pattern]
    with _explained(model):
        small = Path(
            snapshot_download(
                asked.repo,
                revision=asked.revision,
                allow_patterns=patterns,
                ignore_patterns=["tokenizer.json", "vocab.json"],
            )
        )
        for path in (path for pattern in patterns for path in small.glob(pattern)):
            shutil.copy(path, out / path.name)
        for name in _weights(out):
            _fetch_header(asked, name, out / name)
    return out


def _weights(folder: Path) -> list[str]:
    """The names of the files of weights of a folder."""
    index = read_json_if_there(folder / "model.safetensors.index.json").get("weight_map")
    named = index.values() if isinstance(index, dict) else ["model.safetensors"]
    return sorted(
        {str(name) for name in named if re.fullmatch(rf"{_PART}\.safetensors", str(name))}
    )


def _fetch_header(asked: HubId, name: str, out: Path) -> None:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
    )

    url = hf_hub_url(asked.repo, name, revision=asked.revision)

    def part(first: int, last: int) -> tuple[bytes, int]:
        """Return the bytes [first, last], and the size of the file."""
        headers = {**build_hf_headers(), "Range": f"bytes={first}-{last}"}
        response = get_session().get(url, headers=headers, timeout=30)
        hf_raise_for_status(response)
        whole = response.headers.get("Content-Range", "").rpartition("/")[2]
        return response.content, int(whole or len(response.content))

    start, size = part(0, 7)
    length = min(int.from_bytes(start, "little"), MAX_HEADER, max(size - 8, 0))
    text = part(8, 7 + length)[0] if length else b""
    with out.open("wb") as file:
        file.write(start + text)
        file.truncate(size)


def _parsed(model: str) -> HubId:
    asked = parse(model)
    assert asked is not None
    return asked


@contextmanager
def _explained(model: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the error classes changed between versions
        raise ValueError(
            f"could not get '{model}' from the Hugging Face hub: {_reason(_parsed(model), error)} "
            f"(a local folder works too: give its path)"
        ) from error


def _reason(asked: HubId, error: Exception) -> str:
    """The reason in a line, and a remedy where one is known."""
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)  # type: ignore[arg-type]
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    status = {getattr(getattr(link, "response", None), "status_code", None) for link in chain}
    where = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if "OfflineModeIsEnabled" in names or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return "it is not (wholly) in the cache, and HF_HUB_OFFLINE is set"
    if "GatedRepoError" in names or 403 in status:
        return f"{asked.repo} asks for consent first: give it on {where}, then set HF_TOKEN"
    if "RevisionNotFoundError" in names:
        return f"{asked.repo} has no revision '{asked.revision}'"
    if "EntryNotFoundError" in names and "LocalEntryNotFoundError" not in names:
        return f"{asked.repo} has no file '{asked.file}'"
    if "RepositoryNotFoundError" in names or status & {401, 404}:
        return f"{where} has no {asked.repo}, or it is private: check the name, or set HF_TOKEN"
    if names & {"UnsupportedProtocol", "MissingSchema", "InvalidSchema", "InvalidURL"}:
        return f"HF_ENDPOINT='{where}' is no address: expected one such as https://huggingface.co"
    if names & {"ConnectError", "ConnectionError", "ConnectTimeout", "TimeoutException"}:
        return f"{where} cannot be reached"
    said = str(error).strip().splitlines()[:1]
    return said[0][:MOST] if said and said[0] else type(error).__name__
