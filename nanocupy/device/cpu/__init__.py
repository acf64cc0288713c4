"""CPUs, through NumPy and Numba."""
