"""GGUF files: read, and written as an ordinary Hugging Face folder."""
