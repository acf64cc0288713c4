"""`nanocupy info MODEL`: from headers alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from checkpoint import tiny
from nanocupy.checkpoint import convert_gguf
from nanocupy.device.cpu import host_memory
from nanocupy.text import Tokenizer

LAYERS, HIDDEN, MLP, HEADS, KV_HEADS, VOCAB = 80, 8192, 28672, 64, 8, 128256
LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (1024, HIDDEN),
    "self_attn.v_proj": (1024, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (MLP, HIDDEN),
    "mlp.up_proj": (MLP, HIDDEN),
    "mlp.down_proj": (HIDDEN, MLP),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}


def sparse_llama_70b(folder: Path) -> None:
    """A folder like Llama 3 70B's: 140 GB in 21 shards with headers and no data."""
    config = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 8192,
        "eos_token_id": [128001, 128009],
        "torch_dtype": "bfloat16",
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    sampling = {"temperature": 0.6, "top_p": 0.9, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(sampling))
    template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    shapes = {
        f"model.layers.{i}.{name}.weight": shape
        for i in range(LAYERS)
        for name, shape in LAYER.items()
    }
    top = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "lm_head.weight": (VOCAB, HIDDEN)}
    shapes |= {**top, "model.norm.weight": (HIDDEN,)}
    names, weight_map = list(shapes), {}
    for shard in range(21):
        part, header, at = names[shard::21], {}, 0
        file = f"model-{shard + 1:05}-of-00021.safetensors"
        for name in part:
            size = 2 * shapes[name][0] * (shapes[name][1] if len(shapes[name]) > 1 else 1)
            header[name] = {
                "dtype": "BF16",
                "shape": shapes[name],
                "data_offsets": [at, at + size],
            }
            at += size
            weight_map[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + at)
    index = {"weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_model_larger_than_memory(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse_llama_70b(tmp_path / "70b")
    gib = 1 << 30
    monkeypatch.setattr(host_memory, "available", lambda: 100 * gib)
    cli("info", "--json")  # imports
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    ran = cli("info", str(tmp_path / "70b"), "--json")
    took = time.perf_counter() - start
    assert ran.code == 0, ran.err
    assert took < 3 and psutil.Process().memory_info().rss - before < 64 << 20
    said = json.loads(ran.out)
    assert said["parameters"] == 70_553_706_496
    assert said["bytes"] == {"BF16": 141_107_412_992, "all": 141_107_412_992}
    assert said["kv_bytes_per_token"]["float16"] == 327_680
    assert not said["here"]["fits"] and said["here"]["room_for_tokens"] == 0
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    assert said["generation"] == {**sampling, "end_tokens": [128001, 128009]}
    assert said["template"] == "<s><user>Hello\n"
    monkeypatch.setattr(host_memory, "available", lambda: 160 * gib)
    here = json.loads(cli("info", str(tmp_path / "70b"), "--json").out)["here"]
    assert here["fits"] and here["room_for_tokens"] == (160 * gib - 141_107_412_992) // 327_680
    assert here["whole_contexts"] == here["room_for_tokens"] // 8192


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F16"])
def test_a_gguf_file_as_the_folder_it_becomes(cli, kind: str, tmp_path: Path) -> None:
    """Without importing it; and what it will take in memory is what it takes in the folder, but
    for biases that are not stored."""
    tiny.write_gguf(tmp_path / "m.gguf", kind)
    said = json.loads(cli("info", str(tmp_path / "m.gguf"), "--json").out)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    ours = json.loads(cli("info", str(folder), "--json").out)
    same = ("architecture", "layers", "parameters", "kv_bytes_per_token", "generation", "template")
    assert {name: said[name] for name in same} == {name: ours[name] for name in same}
    assert said["template"].startswith("<|im_start|>user\nHello")
    weights = said["here"]["weights_bytes"], ours["here"]["weights_bytes"]
    assert 0.9 * weights[1] <= weights[0] <= weights[1]
    assert set(said["bytes"]) == {kind, "F32", "all"}
    assert f"bytes {kind} " in cli("info", str(tmp_path / "m.gguf")).out


def test_ends_are_those_the_engine_stops_at(cli, tmp_path: Path) -> None:
    """Those that are named, too, in whichever file."""
    tiny.write_gguf(tmp_path / "m.gguf")
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<think>"}))
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    said = json.loads(cli("info", str(folder), "--json").out)["generation"]["end_tokens"]
    ends = Tokenizer(folder).eos_ids
    assert said == sorted(ends) and {7, Tokenizer(folder).id_of("<think>")} < set(said)
