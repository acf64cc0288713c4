"""MLX's functions that make arrays, take them apart and put them together."""
