"""Several prompts in one call, computed together; each gets the tokens it would get alone.

python examples/generate.py
mpirun -n 2 python examples/generate.py    the layers shared out over two processes
"""

from __future__ import annotations

from nanocupy import LLM, SamplingParams

PROMPTS = ["The capital of France is", "Water boils at", "def fibonacci(n):"]


def main() -> None:
    with LLM("smollm2-135m", max_model_len=1024, tensor_parallel="auto") as llm:
        outputs = llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=32))
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        answer = output.outputs[0]
        print(f"{prompt!r} -> {answer.text!r} ({answer.finish_reason})")


if __name__ == "__main__":
    main()
