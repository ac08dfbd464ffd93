"""Outputs to numbers to files."""
