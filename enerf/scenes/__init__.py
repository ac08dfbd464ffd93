"""Deprecated: the package has moved; only ``enerf.scenes.synthetic`` is kept for one release."""
