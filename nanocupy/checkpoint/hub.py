"""Folders from the Hugging Face hub. The one place that imports huggingface_hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nanocupy.checkpoint.progress import shown

PATTERNS = ["*.json", "*.safetensors", "*.jinja"]
"""What a model needs. Nothing that could be run is downloaded."""

_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*(@[\w.\-/]+)?")


def is_hub_id(model: str) -> bool:
    """Whether `model` is spelled as a hub id: owner/name, or owner/name@revision."""
    return _ID.fullmatch(model) is not None and ".." not in model


def snapshot(model: str, *, progress: bool) -> Path:
    """The folder of a hub id, downloaded if need be; offline (HF_HUB_OFFLINE=1) from the cache.

    Raises ValueError when it cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    repo, _, revision = model.partition("@")

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": not shown(progress)})

    try:
        found = snapshot_download(
            repo, revision=revision or None, allow_patterns=PATTERNS, tqdm_class=Bar
        )
    except Exception as error:  # its many error classes changed between versions
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(
            f"could not get '{model}' from the Hugging Face hub: {first[0]} "
            f"(a local folder works too: give its path)"
        ) from error
    return Path(found)
