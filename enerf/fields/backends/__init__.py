"""Evaluation of dense networks and hash grids: reference implementations, CPU and GPU kernels."""
