"""Which of mlx-lm's files run in the paged engine: writes docs/mlx_lm.md. A test holds it to that.

    NANOCUPY_MLX_LM=FOLDER python tests/models/mlx_lm_table.py

FOLDER holds `mlx_lm` (see test_mlx_lm_files). Each file makes a tiny model with random weights. It
works if the engine's greedy tokens are those of a dense run of the same file, by the operations'
NumPy forms, and its logits are within 3e-5 of the largest.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import nanocupy.core as mx
from engine.fake import run as run_all
from engine.fake import token_ids
from models.test_llama import CONFIG, logits, runner
from models.test_mlx_lm_files import filled, folder
from models.test_mlx_lm_logits import FILES, TOKENS, arguments
from nanocupy.engine.engine import Engine
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import SamplingParams
from nanocupy.models import model_file

PAGE = Path(__file__).parents[2] / "docs" / "mlx_lm.md"
PROMPT, ANSWER = [int(token) for token in TOKENS[0]], 8
WORKS = "yes"
PARTLY = {  # what the tiny model of a file leaves out
    "gear": "yes (layers of attention)",
}
ABOUT = """# mlx-lm's model files in the paged engine

`LLM(folder, model_file="mlx_lm.models.NAME")`, or `--model-file`
([custom_models.md](custom_models.md)). `tests/models/mlx_lm_table.py` wrote this page with mlx-lm
{version}, and a test holds it to the code. Each file, unchanged, makes a tiny model with random
weights. It works if greedy tokens in the engine are those of a dense run of the same file, and
logits are within 3e-5 of the largest. A file that does not fit is refused with the reason below.
The results are the same on a CPU and on the emulated GPU. Whether files agree with MLX is tested,
too (`tests/models/test_mlx_lm_logits.py`).

**{works} of {tried} work.** Not tried, as their dense logits are not held to MLX's yet: {others}.

| file | in the engine |
|---|---|
"""


def made(name: str) -> tuple[model_file.ModelFile, Any]:
    """The file, and a model of it."""
    file = model_file.ModelFile(f"mlx_lm.models.{name}")
    with file.active():
        return file, filled(file.module.Model(arguments(file.module.ModelArgs, name)))


def dense(name: str, tokens: list[int]) -> np.ndarray:
    """Logits f32 [tokens, vocabulary]."""
    file, model = made(name)
    with file.active():
        whole = model(mx.array(np.array([tokens], np.int32))).astype(mx.float32)
        return np.asarray(whole.numpy()[0])


EMULATED = {"device": "emulated", "dtype": "exact", "max_num_batched_tokens": 32, "max_num_seqs": 4}


def in_the_engine(name: str, **options: Any) -> tuple[np.ndarray, list[int]]:
    """Logits of the prompt, and a greedy answer."""
    file, inner = made(name)
    config = model_file.inspect_model(file, inner, CONFIG)
    model = model_file.FileModel(file, inner, config.windows, config.num_key_value_heads)
    run = runner(model, replace(config, windows=()), max_model_len=256, **options)
    params = SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    found = logits(run, PROMPT, 7)
    (output,) = run_all(Engine(run, EngineOptions(**options)), [PROMPT], params)
    assert output.error is None, output.error
    return found, token_ids(output)[0]


def verdict(name: str, **options: Any) -> str:
    """That it works, or why not.

    Args:
        options: of the engine.

    Raises:
        AssertionError: it runs, and gives something else.
    """
    try:
        found, answer = in_the_engine(name, **options)
    except (NotImplementedError, ValueError) as error:
        reason = re.sub(r"^\[model_file\] .* the paged engine: ", "", str(error))
        reason = reason.replace(" has no kernel yet: it cannot be compiled", ": no kernel")
        return re.sub(r"Rows\(<=\d+\)", "rows", reason)
    want = dense(name, PROMPT + answer)
    apart = np.abs(found - want[: len(PROMPT)]).max() / np.abs(want).max()
    assert apart <= 3e-5, (name, apart)
    assert want[len(PROMPT) - 1 : -1].argmax(-1).tolist() == answer, name
    return PARTLY.get(name, WORKS)


def table(page: str) -> dict[str, str]:
    """File -> verdict, as the page says."""
    return dict(re.findall(r"(?m)^\| `([^`]+)` \| (.+) \|$", page))


def text(verdicts: dict[str, str], version: str, others: list[str]) -> str:
    works = sum(verdict.startswith(WORKS) for verdict in verdicts.values())
    about = ABOUT.format(
        version=version,
        works=works,
        tried=len(verdicts),
        others=", ".join(f"`{name}`" for name in others),
    )
    lines = [f"| `{name}` | {verdict} |" for name, verdict in verdicts.items()]
    return about + "\n".join(lines) + "\n"


def version(home: Path) -> str:
    """Of mlx-lm, which is not imported."""
    return re.findall(r"__version__ = .(\d[\d.]*)", (home / "_version.py").read_text())[0]


def main() -> None:
    home = folder()
    assert home is not None, __doc__
    sys.path.insert(0, str(home.parent))
    files = (home / "models").glob("*.py")
    models = {path.stem for path in files if "\nclass Model(" in path.read_text(encoding="utf-8")}
    verdicts = {name: verdict(name) for name in FILES}
    PAGE.write_text(text(verdicts, version(home), sorted(models - {*FILES})), encoding="utf-8")


if __name__ == "__main__":
    main()
