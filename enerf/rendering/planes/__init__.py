"""Plane stacks of forward-facing scenes (multiplane images): data, files, rendering, baking, tuning."""
