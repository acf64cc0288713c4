"""Memory, devices and streams, as MLX names them."""
