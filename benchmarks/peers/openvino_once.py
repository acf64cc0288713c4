"""Load a GGUF in OpenVINO, answer "hi" with one token, end. Arguments: file, threads, context."""

import sys

import openvino_genai as genai

_, file, threads, _context = sys.argv  # keys and values grow with the text
model = genai.LLMPipeline(file, "CPU", INFERENCE_NUM_THREADS=int(threads))
print(model.generate("hi", max_new_tokens=1, do_sample=False), flush=True)
