"""Every kind of load at once, for minutes; then each answer again, alone, compared to the bit.

    python benchmarks/soak.py --minutes 30

Half of the time many callers share an AsyncLLM, the other half threads share an LLM. Requests are
texts, token ids and conversations, with common prefixes and with every parameter; some are too long
or ask for too much. Callers read to the end, read slowly, break off, are cancelled, aborted or
forgotten. The load comes in rounds. After each round the engine must hold nothing, and memory must
not have grown since the first rounds. Answers are kept in a file. Then each request runs again
alone, without prefix cache, captured graph, speculation or a second thread. It must give the same
tokens, text, logprobs and ends.

Fails (exit code 1) on one changed bit, on an error, on held memory, and on growth. For CPUs only:
on a GPU roundings depend on the size of a step.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from nanocupy import LLM, AsyncLLM, SamplingParams
from nanocupy.engine.driver import QueueFullError
from nanocupy.engine.engine import PromptTooLongError
from nanocupy.engine.invariants import check_invariants
from nanocupy.engine.outputs import RequestOutput

TEXT = (
    "the a sky blue why is of and list three def return 1 2 3 hello world king queen book bee river"
    " once upon time Ünïcödé 日本語 🙂 . , ! \n"
)
STOPS = ("the", "\n\n", ".", "a", "zz", "1", "ing ")
CALLERS, THREADS = 24, 6
WARM = 2  # rounds before memory is compared: caches fill


# --- what is asked ----------------------------------------------------------------------------


@dataclass
class Sizes:
    """Limits of the requests to a model."""

    vocab: int
    longest: int  # tokens of prompt and answer
    chat: bool


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(TEXT.split(" "), k=count))


def prompt(rng: random.Random, sizes: Sizes) -> Any:
    """Draw a text, token ids, or a conversation. Some have a common prefix."""
    kind, few = rng.random(), max(1, sizes.longest // 16)
    if kind < 0.3:
        start = words(random.Random(rng.randrange(4)), 2 * few)
        return f"{start} {words(rng, rng.randint(1, 5))}"
    if kind < 0.55:
        return words(rng, rng.randint(1, 2 * few))
    if kind < 0.75 and sizes.chat:
        roles = ("user", "assistant", "user")[: rng.choice([1, 3])]
        return [{"role": role, "content": words(rng, rng.randint(1, few))} for role in roles]
    length = rng.randint(1, int(0.8 * sizes.longest))
    return [rng.randrange(sizes.vocab) for _ in range(length)]


def params(rng: random.Random, sizes: Sizes) -> dict[str, Any]:
    """Draw sampling parameters. There is always a seed, because the request runs again."""
    asked: dict[str, Any] = {"max_tokens": rng.choice([0, 1, 2, 5, 16, 40, 100])}
    asked["seed"] = rng.getrandbits(40)
    asked["temperature"] = rng.choice([0, 0, 0.3, 0.8, 1.0, 1.5, 3.0])

    def some(chance: float, name: str, make: Callable[[], Any]) -> None:
        if rng.random() < chance:
            asked[name] = make()

    some(0.3, "top_p", lambda: rng.choice([0.1, 0.5, 0.95]))
    some(0.3, "top_k", lambda: rng.choice([1, 5, 50, 300]))
    some(0.2, "min_p", lambda: 0.05)
    some(0.25, "repetition_penalty", lambda: rng.choice([0.9, 1.1, 1.5]))
    some(0.2, "presence_penalty", lambda: rng.uniform(-1, 1))
    some(0.2, "frequency_penalty", lambda: rng.uniform(-1, 1))
    some(0.2, "logit_bias", lambda: biases(rng, sizes.vocab))
    some(0.3, "stop", lambda: rng.sample(STOPS, rng.randint(1, 4)))
    some(0.1, "stop_token_ids", lambda: [rng.randrange(sizes.vocab) for _ in range(20)])
    some(0.2, "min_tokens", lambda: rng.randint(0, asked["max_tokens"]))
    some(0.3, "ignore_eos", lambda: True)
    some(0.4, "logprobs", lambda: rng.choice([0, 1, 5, 20]))
    some(0.08, "prompt_logprobs", lambda: rng.choice([0, 3]))
    some(0.25, "n", lambda: rng.choice([2, 3, 4, 8]))
    some(0.1, "cache_salt", lambda: rng.choice("abc"))
    return asked


def biases(rng: random.Random, vocab: int) -> dict[int, float]:
    return {rng.randrange(vocab): rng.uniform(-100, 10) for _ in range(rng.choice([1, 10, 200]))}


def refused(rng: random.Random, sizes: Sizes) -> tuple[Any, dict[str, Any]]:
    """Draw a request that must be refused with a ValueError."""
    too_long = [1] * (sizes.longest + rng.randint(1, 5000))
    wrong: list[tuple[Any, dict[str, Any]]] = [
        (too_long, {}),
        ([sizes.vocab], {}),
        ("a", {"temperature": -1}),
        ("a", {"n": 1000}),
        ({"promt": "a"}, {}),
        (b"bytes", {}),
    ]
    return rng.choice(wrong)


# --- what came of it --------------------------------------------------------------------------


@dataclass
class Record:
    """The answers in a file, counts of events, and a list of errors."""

    file: TextIO
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, asked: Any, chosen: dict[str, Any], output: RequestOutput) -> None:
        """Keep a finished answer, whose request runs again later."""
        if output.error is not None:
            return self.fault(f"{asked!r:.200} {chosen}: {output.error}")
        with self.lock:
            self.counts["answered"] += 1
            self.counts["tokens"] += sum(len(answer.token_ids) for answer in output.outputs)
            self.counts["preempted"] += output.metrics.preemptions
            self.counts["cached tokens"] += output.cached_tokens
            line = {"asked": asked, "params": with_text_keys(chosen), "said": said(output)}
            print(json.dumps(line), file=self.file)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def fault(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)

    @contextmanager
    def expecting(self, asked: Any, *kinds: type[BaseException]) -> Iterator[None]:
        """Count any exception that is not expected as an error."""
        try:
            yield
        except kinds as error:
            self.count(type(error).__name__)
        except Exception as error:
            self.fault(f"{asked!r:.200}: {type(error).__name__}: {error}")


def said(output: RequestOutput) -> Any:
    """Return the parts of an answer that must be the same, as JSON."""
    answers = [
        [a.token_ids, a.text, a.finish_reason, a.stop_reason, a.logprobs] for a in output.outputs
    ]
    return json.loads(json.dumps([answers, output.prompt_logprobs]))


def with_text_keys(chosen: dict[str, Any]) -> dict[str, Any]:
    return chosen | {"logit_bias": [*map(list, chosen.get("logit_bias", {}).items())]}


def with_token_keys(kept: dict[str, Any]) -> SamplingParams:
    return SamplingParams(**kept | {"logit_bias": dict(kept["logit_bias"])})


# --- callers on an event loop -----------------------------------------------------------------


class LoopCaller:
    """A caller of an AsyncLLM that sends one request after the other, each in another way."""

    def __init__(self, llm: AsyncLLM, sizes: Sizes, record: Record, rng: random.Random) -> None:
        self.llm, self.sizes, self.record, self.rng = llm, sizes, record, rng

    async def run(self, end: float) -> None:
        ways = (self.whole, self.whole, self.pieces, self.break_off, self.cancel, self.abort,
                self.forget, self.be_refused)  # fmt: skip
        while time.monotonic() < end:
            way = self.rng.choice(ways)
            with self.record.expecting(way.__name__, QueueFullError, PromptTooLongError):
                await way(prompt(self.rng, self.sizes), params(self.rng, self.sizes))

    def stream(self, asked: Any, chosen: dict[str, Any]) -> Any:
        call = self.llm.stream_chat if is_chat(asked) else self.llm.stream
        return call(asked, SamplingParams(**chosen))

    async def ask(self, asked: Any, chosen: dict[str, Any], **options: Any) -> RequestOutput:
        call = self.llm.chat if is_chat(asked) else self.llm.generate
        return await call(asked, SamplingParams(**chosen), **options)

    async def whole(self, asked: Any, chosen: dict[str, Any]) -> None:
        self.record.keep(asked, chosen, await self.ask(asked, chosen))

    async def pieces(self, asked: Any, chosen: dict[str, Any]) -> None:
        """Read to the end, sometimes slowly. The pieces must join to the whole."""
        parts: dict[int, list[str]] = {}
        pause = self.rng.choice([0, 0, 0, 0.01])
        async for chunk in self.stream(asked, chosen):
            parts.setdefault(chunk.index, []).append(chunk.text)
            await asyncio.sleep(pause)
            if chunk.output is not None:
                self.record.keep(asked, chosen, chunk.output)
                if any("".join(parts[a.index]) != a.text for a in chunk.output.outputs):
                    self.record.fault(f"pieces do not join: {asked!r:.200} {chosen}")

    async def break_off(self, asked: Any, chosen: dict[str, Any]) -> None:
        left = self.rng.randint(0, 6)
        async with aclosing(self.stream(asked, chosen)) as chunks:
            async for _ in chunks:
                left -= 1
                if left < 0:
                    return self.record.count("broken off")

    async def cancel(self, asked: Any, chosen: dict[str, Any]) -> None:
        task = asyncio.ensure_future(self.ask(asked, chosen))
        await asyncio.sleep(self.rng.expovariate(10))
        self.record.count("answered too soon" if task.done() else "cancelled")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def abort(self, asked: Any, chosen: dict[str, Any]) -> None:
        id = f"{self.rng.getrandbits(60):x}"
        task = asyncio.ensure_future(self.ask(asked, chosen, request_id=id))
        await asyncio.sleep(self.rng.expovariate(10))
        await self.llm.abort(id)
        output = await task
        if any(answer.finish_reason == "abort" for answer in output.outputs):
            return self.record.count("aborted")
        self.record.keep(asked, chosen, output)

    async def forget(self, asked: Any, chosen: dict[str, Any]) -> None:
        """Begin to read, then leave the stream to the garbage collector."""
        stream = self.stream(asked, chosen)
        await anext(stream)
        self.record.count("forgotten")

    async def be_refused(self, *_: Any) -> None:
        asked, chosen = refused(self.rng, self.sizes)
        with self.record.expecting(asked, ValueError):
            await self.ask(asked, chosen)
            self.record.fault(f"not refused: {asked!r:.200} {chosen}")


def is_chat(asked: Any) -> bool:
    return isinstance(asked, list) and bool(asked) and isinstance(asked[0], dict)


async def loop_round(llm: AsyncLLM, sizes: Sizes, record: Record, seed: int, end: float) -> None:
    """Run many callers until the end, and wait until nothing is held."""
    callers = [LoopCaller(llm, sizes, record, random.Random(f"{seed} {i}")) for i in range(CALLERS)]
    await asyncio.gather(*(caller.run(end) for caller in callers))
    del callers
    patience = time.monotonic() + 60
    while held(llm) and time.monotonic() < patience:
        gc.collect()  # what was forgotten
        await asyncio.sleep(0.05)


# --- callers on threads -----------------------------------------------------------------------


class ThreadCaller:
    """A caller of an LLM on a thread of its own."""

    def __init__(self, llm: LLM, sizes: Sizes, record: Record, rng: random.Random) -> None:
        self.llm, self.sizes, self.record, self.rng = llm, sizes, record, rng

    def run(self, end: float) -> None:
        ways = (self.whole, self.whole, self.pieces, self.break_off, self.be_refused)
        while time.monotonic() < end:
            way = self.rng.choice(ways)
            with self.record.expecting(way.__name__, QueueFullError, PromptTooLongError):
                way()

    def make(self) -> tuple[Any, dict[str, Any]]:
        return prompt(self.rng, self.sizes), params(self.rng, self.sizes)

    def whole(self) -> None:
        """Send one request or a few in one call."""
        made = [self.make() for _ in range(self.rng.choice([1, 1, 3]))]
        for chat, call in ((True, self.llm.chat), (False, self.llm.generate)):
            some = [one for one in made if is_chat(one[0]) == chat]
            given = [SamplingParams(**chosen) for _, chosen in some]
            outputs = call([asked for asked, _ in some], given)  # type: ignore[operator]
            for (asked, chosen), output in zip(some, outputs, strict=True):
                self.record.keep(asked, chosen, output)

    def stream(self, asked: Any, chosen: dict[str, Any]) -> Any:
        call = self.llm.stream_chat if is_chat(asked) else self.llm.stream
        return call(asked, SamplingParams(**chosen))  # type: ignore[operator]

    def pieces(self) -> None:
        asked, chosen = self.make()
        for chunk in self.stream(asked, chosen):
            if chunk.output is not None:
                self.record.keep(asked, chosen, chunk.output)

    def break_off(self) -> None:
        for _ in self.stream(*self.make()):
            if self.rng.random() < 0.2:
                return self.record.count("broken off")

    def be_refused(self) -> None:
        asked, chosen = refused(self.rng, self.sizes)
        with self.record.expecting(asked, ValueError):
            self.llm.generate([asked], SamplingParams(**chosen))
            self.record.fault(f"not refused: {asked!r:.200} {chosen}")


def thread_round(llm: LLM, sizes: Sizes, record: Record, seed: int, end: float) -> None:
    """Run several threads until the end."""
    callers = [
        ThreadCaller(llm, sizes, record, random.Random(f"{seed} {i}")) for i in range(THREADS)
    ]
    threads = [threading.Thread(target=caller.run, args=(end,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- rounds, and what is left after each ------------------------------------------------------


def held(llm: LLM | AsyncLLM) -> str:
    """Return what an engine without requests still holds. It must be empty."""
    engine = llm.engine
    used = len(engine.pool.blocks) - 1 - engine.pool.num_available
    tickets = len(llm._driver.tickets)
    if not (used or engine.groups or tickets):
        check_invariants(engine.scheduler, [])
        return ""
    return f"{used} blocks, {len(engine.groups)} requests, {tickets} tickets"


def memory() -> float:
    """Return the resident MB of this process; the peak, where the system does not tell."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def after_round(name: str, number: int, llm: LLM | AsyncLLM, record: Record) -> float:
    """Record what is held and how much memory is in use."""
    gc.collect()
    if left := held(llm):
        record.fault(f"after a round an engine without requests holds {left}")
    used = memory()
    counts = ", ".join(f"{count} {what}" for what, count in sorted(record.counts.items()))
    print(f"{name}, round {number}: {used:.0f} MB; {counts}", flush=True)
    return used


def check_growth(name: str, used: list[float], most: float, record: Record) -> None:
    """Check that the last round ends with the memory of the first ones, or nearly."""
    grown = used[-1] - used[min(WARM, len(used)) - 1]
    if grown > most:
        record.fault(
            f"{name}: {grown:.0f} MB more than after round {WARM}, at most {most:g} may be"
        )


def soak(args: argparse.Namespace, record: Record, options: dict[str, Any]) -> None:
    """Run both kinds of load, each for half of the time."""
    seconds = 30 * args.minutes / args.rounds

    async def on_loops() -> None:
        async with AsyncLLM(args.model, **options) as llm:
            used = []
            for number in range(1, args.rounds + 1):
                end = time.monotonic() + seconds
                await loop_round(llm, sizes_of(llm), record, args.seed + number, end)
                used.append(after_round("event loop", number, llm, record))
            check_growth("event loop", used, args.growth, record)

    asyncio.run(on_loops())
    with LLM(args.model, **options) as llm:
        used = []
        for number in range(1, args.rounds + 1):
            end = time.monotonic() + seconds
            thread_round(llm, sizes_of(llm), record, args.seed - number, end)
            used.append(after_round("threads", number, llm, record))
        check_growth("threads", used, args.growth, record)


def sizes_of(llm: LLM | AsyncLLM) -> Sizes:
    return Sizes(llm.engine.runner.vocab_size, llm.engine.max_len, llm.chat_template is not None)


# --- alone ------------------------------------------------------------------------------------


def verify(args: argparse.Namespace, path: Path, record: Record, options: dict[str, Any]) -> int:
    """Run every request in the file again. Return the number of compared answers."""
    alone = {"max_num_seqs": 1, "threads": 1, "prefix_cache": False, "capture": False}
    same = 0
    with LLM(args.model, **options | alone | {"speculate": 0}) as llm, path.open() as lines:
        for line in lines:
            kept = json.loads(line)
            call = llm.chat if is_chat(kept["asked"]) else llm.generate
            [output] = call([kept["asked"]], with_token_keys(kept["params"]))  # type: ignore
            if (now := said(output)) == kept["said"]:
                same += 1
            else:
                what = f"{kept['asked']!r:.200} {kept['params']}"
                record.fault(f"another answer: {what}\n  then {kept['said']}\n  now  {now}")
    return same


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of load, before it is verified"
    )
    parser.add_argument("--rounds", type=int, default=6, help="of each kind of load")
    parser.add_argument("--growth", type=float, default=64.0, help="MB that memory may grow")
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--num-kv-blocks", type=int, default=100, help="few, so that some wait")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    options = {"max_model_len": args.max_model_len, "progress": False, "device": "cpu"}
    load = {"num_kv_blocks": args.num_kv_blocks, "threads": args.threads, "max_waiting": 40}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "answers")
        with path.open("w") as file:
            record = Record(file)
            soak(args, record, options | load)
        same = verify(args, path, record, options)
    print(f"{same} of {record.counts['answered']} answers are the same alone, to the bit")
    for fault in record.wrong[:20]:
        print(f"WRONG: {fault:.2000}", file=sys.stderr)
    print(f"{len(record.wrong)} faults")
    return 1 if record.wrong or not same else 0


if __name__ == "__main__":
    raise SystemExit(main())
