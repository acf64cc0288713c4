"""One file per operation: its contract, its NumPy reference, the names of its kernels.

`kernels/rms_norm.py` says what rms_norm is; `kernels/cpu/rms_norm.py` is the CPU kernel.
"""
