"""The CPU kernels' bodies: Numba functions in the SIMD dialect of `nanocupy.device.cpu.simd`.

Imported only to compile them; `nanocupy.kernels` holds their contracts and references.
"""
