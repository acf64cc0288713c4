"""The CUDA device, through CuPy; see `emulated` for the same code without a GPU."""
