"""`compile`: a function's record, its fused chains, and how it is run."""
