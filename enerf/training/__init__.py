"""Residuals to weights."""
