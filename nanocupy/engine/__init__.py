"""The engine: requests, scheduler, block pool, sampler, runner. Policy in plain Python, no kernels.

A request's way through it:

1. `llm` / `async_llm` turn a prompt into token ids and `params` check what was asked.
2. `driver` keeps it in line until whoever owns the engine takes it in; `engine.add` refuses what
   can never fit and queues one `request` per answer.
3. `scheduler.schedule` picks the tokens of the next step and takes KV blocks from `block_pool`.
4. `sampler` says which rows of logits are wanted and how they are drawn.
5. `runner.step` computes the batch (`batch`) on the device and returns the sampled tokens.
6. `engine.step` commits them: full blocks become findable, tokens become text (`detokenize`).
7. What is new goes to the caller as a Chunk, the end as a RequestOutput (`outputs`).
8. The blocks go back to the pool, still findable until they are taken for something else.
"""
