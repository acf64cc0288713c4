"""Somebody's model file in MLX's contract, through `LLM(..., model_file=...)`.

The file here is the test's own, so that neither mlx-lm nor MLX is wanted.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint.tiny import write_gguf
from device.needs import needs_compiler
from nanocupy import LLM, SamplingParams, nn
from nanocupy.checkpoint import Checkpoint, convert_gguf
from nanocupy.engine.options import EngineOptions
from nanocupy.models import model_file
from ranks import Place

GOLDEN = Path(__file__).parents[1] / "golden" / "architectures"
PROMPTS = [[5, 6, 7], [*range(3, 40)]]
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
SIZES: dict[str, Any] = {"dtype": "exact", "max_model_len": 48, "num_kv_blocks": 12, "threads": 1}
FILE = """
from dataclasses import dataclass
import inspect
import mlx.core as mx
import mlx.nn as nn

SIZE = 16

@dataclass
class ModelArgs:
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int
    vocab_size: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def from_dict(cls, params):
        params = params.get("rope_parameters", {}) | params
        return cls(**{k: v for k, v in params.items() if k in inspect.signature(cls).parameters})

class Attention(nn.Module):
    def __init__(self, args):
        super().__init__()
        d = args.hidden_size
        self.heads, self.kv = args.num_attention_heads, args.num_key_value_heads
        self.q_proj = nn.Linear(d, self.heads * args.head_dim, bias=False)
        self.k_proj = nn.Linear(d, self.kv * args.head_dim, bias=False)
        self.v_proj = nn.Linear(d, self.kv * args.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * args.head_dim, d, bias=False)
        self.rope = nn.RoPE(args.head_dim, base=args.rope_theta)
        self.scale = args.head_dim ** -0.5

    def __call__(self, x, mask, cache):
        B, L, _ = x.shape
        q = self.q_proj(x).reshape(B, L, self.heads, -1).transpose(0, 2, 1, 3)
        k = self.k_proj(x).reshape(B, L, self.kv, -1).transpose(0, 2, 1, 3)
        v = self.v_proj(x).reshape(B, L, self.kv, -1).transpose(0, 2, 1, 3)
        q, k = self.rope(q, offset=cache.offset), self.rope(k, offset=cache.offset)
        k, v = cache.update_and_fetch(k, v)
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))

class MLP(nn.Module):
    def __init__(self, args):
        super().__init__()
        d, h = args.hidden_size, args.intermediate_size
        self.gate_proj = nn.Linear(d, h, bias=False)
        self.up_proj = nn.Linear(d, h, bias=False)
        self.down_proj = nn.Linear(h, d, bias=False)

    def __call__(self, x):
        return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))

class Block(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.self_attn, self.mlp = Attention(args), MLP(args)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def __call__(self, x, mask, cache):
        x = x + self.self_attn(self.input_layernorm(x), mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

class Trunk(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Block(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

class Model(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.model = Trunk(args)

    def __call__(self, inputs, cache=None):
        import mlx.core as late  # as late as this
        assert late is mx
        h = self.model.embed_tokens(inputs)
        mask = cache[0].make_mask(h.shape[1])
        for layer, c in zip(self.model.layers, cache):
            h = layer(h, mask, c)
        return self.model.embed_tokens.as_linear(self.model.norm(h))

    @property
    def layers(self):
        return self.model.layers

    def shard(self, group):
        from mlx.nn.layers.distributed import shard_linear
        for layer in self.layers:
            a, m = layer.self_attn, layer.mlp
            for part in ("q_proj", "k_proj", "v_proj"):
                a[part] = shard_linear(a[part], "all-to-sharded", group=group)
            a.o_proj = shard_linear(a.o_proj, "sharded-to-all", group=group)
            a.heads, a.kv = a.heads // group.size(), a.kv // group.size()
            m.gate_proj = shard_linear(m.gate_proj, "all-to-sharded", group=group)
            m.up_proj = shard_linear(m.up_proj, "all-to-sharded", group=group)
            m.down_proj = shard_linear(m.down_proj, "sharded-to-all", group=group)

    def sanitize(self, weights):
        return {k: v for k, v in weights.items() if "rotary" not in k}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a tokenizer, that says it is of a kind nobody knows."""
    home = tmp_path_factory.mktemp("file")
    write_gguf(home / "tiny.gguf", "F16")
    convert_gguf(home / "tiny.gguf", home / "words")
    for path in (*(GOLDEN / "llama").glob("*.[js]*"), *(home / "words").glob("tokenizer*")):
        shutil.copy(path, home)
    (home / "config.json").write_text(json.dumps(llama_config()))
    return home


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`write(text)`: the name of a module of this text."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def one(text: str) -> str:
        name = f"file_of_a_test_{len(made)}"
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield one
    for name in made:
        sys.modules.pop(name, None)


def llama_config(**changed: Any) -> dict[str, Any]:
    """As the file above has it: positions are not scaled."""
    whole: dict[str, Any] = json.loads((GOLDEN / "llama" / "config.json").read_text())
    return whole | {"rope_scaling": None, "rope_theta": 500.0} | changed


def answers(folder: Path, **options: Any) -> list[list[int]]:
    with LLM(folder, **SIZES | options) as llm:
        return [out.outputs[0].token_ids for out in llm.generate(PROMPTS, GREEDY)]


def copied(folder: Path, to: Path, **changed: Any) -> Path:
    """The model with another configuration."""
    shutil.copytree(folder, to)
    (to / "config.json").write_text(json.dumps(llama_config(**changed)))
    return to


def test_a_file_answers_as_our_own(folder: Path, write: Any) -> None:
    name = write(FILE)
    assert answers(folder, model_file=name) == answers(folder)


def test_of_a_model_type_that_nobody_knows(folder: Path, write: Any, tmp_path: Path) -> None:
    unknown = copied(folder, tmp_path / "unknown", model_type="fresh")
    with pytest.raises(ValueError, match="model_type 'fresh' is not supported"):
        answers(unknown)
    assert answers(unknown, model_file=write(FILE)) == answers(folder)


@needs_compiler
def test_on_the_emulated_gpu(folder: Path, write: Any) -> None:
    how = {"device": "emulated", "max_num_seqs": 4, "max_num_batched_tokens": 48}
    assert answers(folder, model_file=write(FILE), **how) == answers(folder)


def test_mlx_is_what_it_was_for_everybody_else(folder: Path, write: Any) -> None:
    """Before, after, and where it is there already."""
    before = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in ("mlx", "mlx_lm")}
    answers(folder, model_file=write(FILE))
    after = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in ("mlx", "mlx_lm")}
    assert before == after
    theirs = importlib.util.module_from_spec(importlib.util.spec_from_loader("mlx", None))  # type: ignore[arg-type]
    sys.modules["mlx"] = theirs
    try:
        answers(folder, model_file=write(FILE))
        assert sys.modules["mlx"] is theirs
    finally:
        del sys.modules["mlx"]
        sys.modules.update(before)


def test_a_model_folder_cannot_ask_for_code(folder: Path, tmp_path: Path) -> None:
    """mlx-lm runs what config.json names `model_file`; here only the caller names one."""
    trap = tmp_path / "trap"
    trap.mkdir()
    asking = copied(folder, trap / "model", model_file="evil.py")
    (asking / "evil.py").write_text(f"open({str(trap / 'sprung')!r}, 'w')")
    assert answers(asking) == answers(folder)
    assert not (trap / "sprung").exists()


REFUSED = {
    "it is not there": (None, ValueError, r"'no_such_file' cannot be imported: ModuleNotFound"),
    "it is no model": ("x = 1", ValueError, "has no Model and no ModelArgs"),
    "it fails": ("import not_there", ValueError, "cannot be imported: .*not_there"),
    "its arguments are others": (
        FILE.replace("    rope_theta: float\n", "    rope_theta: float\n    more: int\n"),
        ValueError,
        "makes no model of .*config.json: TypeError: .*more",
    ),
    "its cache is a list": (
        FILE.replace("offset=cache.offset), self", "offset=cache[0]), self"),
        NotImplementedError,
        r"does not fit the paged engine: TypeError: .*not subscriptable \(file_of_a_test_0.py:",
    ),
    "it looks at keys": (
        FILE.replace(
            "k, v = cache.update_and_fetch(k, v)", "k = cache.update_and_fetch(k, v)[0].T"
        ),
        NotImplementedError,
        "does not fit the paged engine",
    ),
    "it has other caches": (
        FILE + "\n    def make_cache(self):\n        return [{} for _ in self.layers]\n",
        NotImplementedError,
        r"wants caches of its own \(dict\)",
    ),
    "values are larger than keys": (
        FILE.replace(
            "k, v = cache.update_and_fetch(k, v)",
            "cache.update_and_fetch(k, mx.concatenate([v, v], -1))",
        ),
        NotImplementedError,
        "values of which are not larger",
    ),
    "a kernel is missing": (
        FILE.replace("nn.silu(", "mx.cos("),
        NotImplementedError,
        r"model_file 'file_of_a_test_0' with --device cpu: \[cos\] has no kernel yet",
    ),
    "a weight is left over": (
        FILE.replace('"rotary" not in k', '"norm" not in k'),
        ValueError,
        r"test_0: the tensors of .* fit: .*missing model.layers.0.input_layernorm.weight",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(why: str, folder: Path, write: Any) -> None:
    text, kind, said = REFUSED[why]
    with pytest.raises(kind, match=said):
        answers(folder, model_file="no_such_file" if text is None else write(text))


def test_codes_of_a_layer_of_its_own_are_refused(write: Any) -> None:
    """mlx-lm's experts are one, in one tensor, which stays so for a file that knows it so."""
    folder = Path(__file__).parents[1] / "golden" / "mlx_lm" / "mixtral"
    with Checkpoint(folder, custom_model=True) as checkpoint:
        stacks = [name for name in checkpoint.names() if name.endswith("switch_mlp.up_proj.scales")]
        assert stacks and len(checkpoint.info(stacks[0]).shape) == 3

        class Experts(nn.Module):
            def to_quantized(self, **_: Any) -> None: ...

        inner = nn.Module()
        path, place = stacks[0].removesuffix(".scales").split("."), inner
        for name in path[:-1]:
            place[name] = nn.Module()
            place = place[name]
        place[path[-1]] = Experts()
        made = model_file.FileModel(model_file.ModelFile(write(FILE)), inner, (), 1)
        with pytest.raises(NotImplementedError, match=r"switch_mlp.up_proj \(Experts\) has codes"):
            model_file.load(made, checkpoint)


def test_mlx_lm_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "mlx_lm_home", lambda: None)
    with pytest.raises(ValueError, match="mlx-lm is not installed: pip install --no-deps mlx-lm"):
        model_file.ModelFile("mlx_lm.models.llama")


@pytest.mark.parametrize("name", ["", "a b", "models/llama.py", ".llama", 5])
def test_a_file_is_named_as_python_names_it(name: Any) -> None:
    with pytest.raises(ValueError, match="model_file must be the name of a Python module"):
        EngineOptions(model_file=name)


def test_ranks_divide_by_the_files_own_shard(write: Any) -> None:
    file = model_file.ModelFile(write(FILE))
    made = model_file.FileModel(file, object(), (0, 0), 2)
    made.shard(Place(0, 1))
    with pytest.raises(ValueError, match="over 2 ranks \\(it has no `shard`\\): start one process"):
        made.shard(Place(0, 2))
    seen: list[Any] = []
    inner = type("Inner", (), {"shard": lambda self, group: seen.append(group)})()
    model_file.FileModel(file, inner, (0, 0), 2).shard(Place(1, 2))
    assert [group.rank() for group in seen] == [1]
    with pytest.raises(ValueError, match="over 2 ranks \\(3 KV heads\\)"):
        model_file.FileModel(file, inner, (0, 0), 3).shard(Place(0, 2))


def test_values_may_be_smaller_than_keys(folder: Path, write: Any) -> None:
    """As in attention with a latent: pages have room for keys."""
    wider = FILE.replace(
        "        k, v = cache.update_and_fetch(k, v)",
        "        q, k = (mx.concatenate([x, 0 * x], axis=-1) for x in (q, k))\n"
        "        k, v = cache.update_and_fetch(k, v)",
    )
    assert wider != FILE and answers(folder, model_file=write(wider)) == answers(folder)


def test_a_caches_window_counts_where_no_mask_says_so(folder: Path, write: Any) -> None:
    """mlx-lm's rotating cache forgets by itself; a mask that the file does not ask for is no
    reason to look further back."""
    rotating = """
    def make_cache(self):
        class RotatingKVCache:
            max_size, keep = 8, 0
        return [RotatingKVCache() for _ in self.layers]
"""
    plain, short = (answers(folder, model_file=write(text)) for text in (FILE, FILE + rotating))
    assert plain[0] == short[0] and plain[1] != short[1]
    assert np.shape(plain) == np.shape(short)
