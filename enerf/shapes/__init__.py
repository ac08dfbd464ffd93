"""Deprecated: the package has moved; only ``enerf.shapes.synthetic`` is kept for one release."""
