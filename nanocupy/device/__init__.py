"""Memory, launches, capture and graphs: one idea on every device."""
