"""Load a GGUF in llama.cpp, answer "hi" with one token, end. Arguments: file, threads, context."""

import sys

from llama_cpp import Llama

_, file, threads, context = sys.argv
model = Llama(file, n_ctx=int(context), n_threads=int(threads), verbose=False)
asked = [{"role": "user", "content": "hi"}]
for chunk in model.create_chat_completion(asked, max_tokens=1, temperature=0, stream=True):
    if said := chunk["choices"][0]["delta"].get("content"):
        print(said, flush=True)
