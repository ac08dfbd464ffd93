"""Deprecated: the package has moved; only ``enerf.labelled.synthetic`` is kept for one release."""
