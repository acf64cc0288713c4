"""A conversation. Every turn sends the whole history; the prefix cache makes that cheap.

python examples/chat.py
"""

from __future__ import annotations

from nanocupy import LLM, SamplingParams


def main() -> None:
    messages: list[dict[str, str]] = []
    with LLM("smollm2-135m", max_model_len=2048) as llm:
        while True:
            try:
                messages.append({"role": "user", "content": input("you: ")})
            except EOFError:
                break
            output = llm.chat(messages, SamplingParams(temperature=0, max_tokens=128))[0]
            answer = output.outputs[0].text
            messages.append({"role": "assistant", "content": answer})
            print(f"model: {answer}")
            print(
                f"({output.cached_tokens} of {len(output.prompt_token_ids)} prompt tokens cached)"
            )


if __name__ == "__main__":
    main()
