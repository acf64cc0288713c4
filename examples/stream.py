"""An answer, printed as it comes. Leaving the loop early ends the request.

python examples/stream.py "Why is the sky blue?"
"""

from __future__ import annotations

import sys

from nanocupy import LLM, SamplingParams


def main(prompt: str) -> None:
    with LLM("smollm2-135m", max_model_len=1024) as llm:
        for chunk in llm.stream(prompt, SamplingParams(temperature=0, max_tokens=64)):
            print(chunk.text, end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:] or ["The sky is blue because"])
