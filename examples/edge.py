"""The smallest embedding of the engine: one prompt at a time, little memory, one thread.

python examples/edge.py
"""

from __future__ import annotations

from nanocupy import LLM, SamplingParams

TINY = {"max_model_len": 256, "max_num_seqs": 1, "max_num_batched_tokens": 64, "num_kv_blocks": 16}


def main() -> None:
    with LLM("smollm2-135m", threads=1, **TINY) as llm:
        question = [{"role": "user", "content": "What is 2 + 2? Answer in one sentence."}]
        output = llm.chat(question, SamplingParams(temperature=0, max_tokens=48))
        print(output[0].outputs[0].text)


if __name__ == "__main__":
    main()
