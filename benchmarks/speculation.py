"""The same requests with and without speculation, in turns in one process, as ratios.

    python benchmarks/speculation.py --model MODELS/Q4_0

One engine answers each request twice, once with speculation switched off. The order alternates, so
that a drift of the machine affects both. A ratio is the median over neighbouring pairs. All tokens
are compared. Single requests are timed from their first token on, a batch with its prompts. Each
repeat has its own cache salt, so it finds no prefixes of another.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from sides import ratios

from nanocupy import LLM, SamplingParams
from nanocupy.engine.options import MAX_DRAFTED

CODE = '''\
class Stack:
    """A stack of items, last in, first out."""

    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

    def __len__(self):
        return len(self.items)
'''
TEXT = (
    "The harbour of the little town lies open to the north, so that in winter the fishing boats "
    "are drawn up on the beach. On the second of March a stranger came over the hill with a grey "
    "dog and a suitcase tied with string. He asked the baker for a room, paid for three weeks in "
    "advance, and spoke to nobody else until Easter."
)
ORDINARY = (
    "Why is the sky blue?",
    "Write a short story about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "Give me a recipe for vegetable soup.",
    "What are the causes of the French Revolution?",
    "Write a Python function that sorts a list of numbers.",
    "Describe the life of a bee.",
    "What should I see in Rome?",
)


class Job(NamedTuple):
    """Requests that run one after the other, or all at once."""

    prompts: tuple[str, ...]
    temperature: float
    together: bool  # all at once
    start: str = ""  # of the answer, where the model would not begin with it by itself


REPEAT = (
    f"Repeat this text exactly, word for word:\n\n{TEXT}",
    f"Copy the following text without any change.\n\n{TEXT}",
)
JOBS = {
    "repeat a text": Job(REPEAT, 0, False),
    "repeat code": Job(
        (f"Repeat this code exactly:\n\n```python\n{CODE}```",), 0, False, "```python\n"
    ),
    "repeat, batch of 8": Job(REPEAT * 4, 0, True),
    "ordinary, greedy": Job(ORDINARY, 0, False),
    "ordinary, temperature 1": Job(ORDINARY, 1, False),
    "ordinary, greedy, batch of 8": Job(ORDINARY, 0, True),
    "ordinary, temperature 1, batch of 8": Job(ORDINARY, 1, True),
}


class Run(NamedTuple):
    """Requests on one engine."""

    seconds: float
    tokens: list[list[int]]
    drafted: int
    accepted: int


def ask(llm: LLM, job: Job, prompts: Sequence[str], new: int, salt: str) -> Run:
    """Answer prompts in the model's chat template, all at once."""
    params = SamplingParams(temperature=job.temperature, max_tokens=new, seed=1, cache_salt=salt)
    ids = [encoded(llm, prompt, job.start) for prompt in prompts]
    start = time.perf_counter()
    outputs = llm.generate(ids, params)
    seconds = time.perf_counter() - start
    if len(prompts) == 1:
        seconds = outputs[0].metrics.finished - outputs[0].metrics.first_token
    tokens = [output.outputs[0].token_ids for output in outputs]
    return Run(seconds, tokens, sum(o.drafted for o in outputs), sum(o.accepted for o in outputs))


def encoded(llm: LLM, prompt: str, start: str) -> list[int]:
    """Encode the prompt as a message, with the start of the answer."""
    messages = [{"role": "user", "content": prompt}]
    ids = llm.chat_template.encode(llm.tokenizer, messages, add_generation_prompt=True)
    return ids + (llm.tokenizer.encode(start) if start else [])


def compare(llm: LLM, job: Job, args: argparse.Namespace) -> tuple[list[Run], list[Run]]:
    """Run a job without and with speculation, in neighbouring pairs."""
    found: tuple[list[Run], list[Run]] = ([], [])
    most = (0, 0 if args.control else MAX_DRAFTED)
    groups = [job.prompts] if job.together else [(prompt,) for prompt in job.prompts]
    for turn in range(args.repeats):
        for number, prompts in enumerate(groups):
            for side in (0, 1) if (turn + number) % 2 else (1, 0):
                llm.engine.speculator.most = most[side]
                found[side].append(ask(llm, job, prompts, args.new, f"{turn} {side}"))
            assert found[0][-1].tokens == found[1][-1].tokens, "speculation changed a token"
    return found


def line(name: str, plain: list[Run], quick: list[Run]) -> str:
    """Format a row of the table: tokens/s, the ratio with quartiles, and the accepted guesses."""
    low, mid, high = ratios([run.seconds for run in plain], [run.seconds for run in quick])
    rates = (f"{median(map(rate, side)):>9.1f}" for side in (plain, quick))
    accepted, drafted = (sum(getattr(run, n) for run in quick) for n in ("accepted", "drafted"))
    right = f"{accepted / drafted:.0%}" if drafted else "-"
    return f"{name:<36}{''.join(rates)}   {mid:.2f}x ({low:.2f}-{high:.2f})   {right} of {drafted}"


def rate(run: Run) -> float:
    """Return tokens per second."""
    return sum(map(len, run.tokens)) / run.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--new", type=int, default=200, help="tokens of an answer at most")
    parser.add_argument("--control", action="store_true", help="plain beside plain: the noise")
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), help="some of the jobs")
    args = parser.parse_args()
    llm = LLM(args.model, threads=args.threads, max_model_len=2048, progress=False)
    print(f"{'tokens/s':<36}{'plain':>9}{'guessing':>9}   ratio (quartiles)     right")
    for name in args.jobs:
        ask(llm, JOBS[name], JOBS[name].prompts, 8, "warm")
        print(line(name, *compare(llm, JOBS[name], args)), flush=True)


if __name__ == "__main__":
    main()
