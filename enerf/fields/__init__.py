"""Points to values."""
