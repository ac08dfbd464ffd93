"""Comparison of methods, analysis of checkpoints, and mesh extraction from finished runs."""
