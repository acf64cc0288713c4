"""MLX's functions that compute."""
