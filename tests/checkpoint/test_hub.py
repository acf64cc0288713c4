"""Models from a hub: a small HTTP server that answers as the Hugging Face hub does."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from checkpoint import tiny
from checkpoint.test_convert import split
from nanocupy.checkpoint import Checkpoint, convert_gguf, hub, resolve

REPO = "owner/tiny"
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(ThreadingHTTPServer):
    """`files` by commit. `asked` is what was asked for: (method, path, range).

    `broken` says after how many bytes the next transfer of weights breaks off, once.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken = 0
        self.gated = False

    def transfers(self) -> list[tuple[str, str | None]]:
        """(file, range) of what was fetched."""
        return [
            (p.rsplit("/", 1)[1], r) for m, p, r in self.asked if m == "GET" and "/resolve/" in p
        ]


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        upto: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:upto])
            if upto is not None:
                self.close_connection = True
                self.connection.close()

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        if found := re.fullmatch(rf"/api/models/{REPO}/(revision|tree)/([^/]+)", path):
            return self.listing(*found.groups())
        if found := re.fullmatch(rf"/{REPO}/resolve/([^/]+)/(.+)", path):
            return self.file(*found.groups())
        self.refuse(404, "RepoNotFound")

    do_HEAD = do_GET

    def listing(self, kind: str, revision: str) -> None:
        commit = COMMITS.get(revision, revision)
        if self.server.gated:
            return self.refuse(403, "GatedRepo")
        if commit not in self.server.files:
            return self.refuse(404, "RevisionNotFound")
        if kind == "revision":
            return self.answer(
                200, json.dumps({"id": REPO, "sha": commit, "siblings": []}).encode()
            )
        rows = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.server.files[commit].items()
        ]
        self.answer(200, json.dumps(rows).encode())

    def file(self, revision: str, name: str) -> None:
        commit = COMMITS.get(revision, revision)
        data = self.server.files.get(commit, {}).get(name)
        if data is None:
            return self.refuse(404, "EntryNotFound")
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2] or len(data) - 1) + 1, len(data)) if asked else len(data)
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        upto = None
        if self.server.broken and self.command == "GET" and name.endswith(".safetensors"):
            upto, self.server.broken = self.server.broken, 0
        self.answer(206 if asked else 200, data[start:end], headers, upto)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Two versions of a model, with files beside it that are not wanted."""
    made = {}
    for revision, kind in (("main", "Q8_0"), ("v1", "Q4_1")):
        folder = tmp_path_factory.mktemp(revision)
        tiny.write_gguf(folder / "m.gguf", kind)
        convert_gguf(folder / "m.gguf", folder / "out", progress=False)
        files = {p.name: p.read_bytes() for p in (folder / "out").iterdir()}
        files |= {"modeling_tiny.py": b"raise SystemExit", "pytorch_model.bin": b"pickle"}
        split(folder / "m.gguf", folder, 2)
        files |= {f"sub/{p.name}": p.read_bytes() for p in folder.glob("m-*.gguf")}
        made[COMMITS[revision]] = {**files, "tiny.gguf": (folder / "m.gguf").read_bytes()}
    return made


@pytest.fixture
def server(models: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with Hub() as made:
        made.files = models
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def get(tmp_path: Path, server: Hub):
    """`resolve` in a process of its own, as the hub's settings are read when it is imported."""

    def run(model: str, setup: str = "", call: str = "resolve", **settings: str) -> str:
        code = (
            f"{setup}\nfrom nanocupy.checkpoint import resolve\n"
            "from nanocupy.cli.info import model_facts\n"
            f"try: print({call}({model!r}))\nexcept ValueError as error: print('refused:', error)"
        )
        env = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hf"),
            "NANOCUPY_CACHE": str(tmp_path / "cache"),
            **settings,
        }
        env.pop("NANOCUPY_OFFLINE", None)
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert ran.returncode == 0, ran.stderr
        run.err = ran.stderr  # type: ignore[attr-defined]
        return ran.stdout.strip()

    return run


def bits(folder: str) -> int:
    quantization = Checkpoint(folder).config.quantization
    assert quantization is not None
    return quantization.bits


def test_a_model_is_fetched_once_and_read_offline(get, server: Hub) -> None:
    folder = get(REPO)
    assert bits(folder) == 8
    fetched = [name for name, _ in server.transfers()]
    assert "model.safetensors" in fetched and "tokenizer.json" in fetched
    assert not any(name.endswith((".py", ".bin", ".gguf")) for name in fetched)
    assert get.err == ""  # no terminal: silent
    before = len(server.transfers())
    assert get(REPO) == folder and len(server.transfers()) == before
    asked = len(server.asked)
    assert get(REPO, HF_HUB_OFFLINE="1") == folder and len(server.asked) == asked


def test_revisions_are_pinned(get, server: Hub) -> None:
    assert bits(get(f"{REPO}@v1")) == 4
    assert bits(get(f"{REPO}@{'b' * 40}")) == 4
    assert bits(get(REPO)) == 8
    said = get(f"{REPO}@v9")
    assert f"refused: could not get '{REPO}@v9'" in said and "has no revision 'v9'" in said


def test_a_broken_transfer_goes_on_where_it_was(get, server: Hub) -> None:
    server.broken = 5000
    pieces = "import huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = 1000"
    folder = Path(get(REPO, pieces))
    weights = [r for name, r in server.transfers() if name == "model.safetensors"]
    assert weights[0] is None and weights[1] is not None and weights[1].startswith("bytes=5000-")
    whole = server.files[COMMITS["main"]]["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == whole


def test_progress_is_shown_where_it_is_wanted(get, server: Hub) -> None:
    get(REPO, NANOCUPY_PROGRESS="1")
    assert "%" in get.err


def test_a_gguf_file_in_a_repository(get, server: Hub) -> None:
    assert bits(get(f"{REPO}:tiny.gguf")) == 8
    assert bits(get(f"{REPO}@v1:tiny.gguf")) == 4
    assert {name for name, _ in server.transfers()} == {"tiny.gguf"}
    assert "has no file 'other.gguf'" in get(f"{REPO}:other.gguf")
    assert bits(get(f"{REPO}:sub/m-00001-of-00002.gguf")) == 8


def test_errors_say_what_to_do(get, server: Hub) -> None:
    assert "has no owner/absent, or it is private" in get("owner/absent")
    assert "not (wholly) in the cache, and HF_HUB_OFFLINE is set" in get(REPO, HF_HUB_OFFLINE="1")
    assert "cannot be reached" in get(REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert "HF_ENDPOINT='nonsense' is no address" in get(REPO, HF_ENDPOINT="nonsense")
    server.gated = True
    assert "asks for consent first" in get(REPO)


def test_info_leaves_the_weights_where_they_are(get, server: Hub) -> None:
    """And says what it says of the folder once it is here."""
    there = ast.literal_eval(get(REPO, call="model_facts"))
    fetched = server.transfers()
    assert {"config.json", "model.safetensors"} <= {name for name, _ in fetched}
    ranges = [r for name, r in fetched if name == "model.safetensors"]
    assert ranges[0] == "bytes=0-7" and all(ranges) and len(ranges) == 2
    assert not {"tokenizer.json", "modeling_tiny.py"} & {name for name, _ in fetched}
    here = ast.literal_eval(get(get(REPO), call="model_facts"))
    for facts in (there, here):
        facts["here"].pop("available_bytes"), facts["here"].pop("room_for_tokens")
        facts["here"].pop("whole_contexts"), facts.pop("model"), facts.pop("folder")
    assert there == here
    assert "has no revision 'v9'" in get(f"{REPO}@v9", call="model_facts")
    assert "4-bit" in ast.literal_eval(get(f"{REPO}@v1", call="model_facts"))["bytes"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("o/n", ("o/n", None, None)),
        ("o/n@refs/pr/1", ("o/n", "refs/pr/1", None)),
        ("o/n@v1:a-Q4_K_M.gguf", ("o/n", "v1", "a-Q4_K_M.gguf")),
        ("o/n:sub/a.gguf", ("o/n", None, "sub/a.gguf")),
        ("o/n:a.bin", None),
        ("o/n:../a.gguf", None),
        ("o/n@../v1", None),
        ("o", None),
    ],
)
def test_hub_ids(text: str, found: tuple[str, str | None, str | None] | None) -> None:
    assert hub.parse(text) == found


def test_a_revision_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def snapshot(model: str, *, progress: bool) -> Path:
        asked.append(model)
        raise ValueError("away")

    monkeypatch.setattr(hub, "snapshot", snapshot)
    monkeypatch.delenv("NANOCUPY_OFFLINE", raising=False)
    for model in ("o/n", "o/n:a.gguf"):
        with pytest.raises(ValueError, match="away"):
            resolve(model, revision="v1")
    assert asked == ["o/n@v1", "o/n@v1:a.gguf"]
    for model in ("o/n@v2", str(tmp_path)):
        with pytest.raises(ValueError, match="revision='v1' needs a hub id without one"):
            resolve(model, revision="v1")
