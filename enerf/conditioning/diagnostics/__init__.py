"""Diagnostics of weights, layer inputs and losses: singular values, condition numbers, Hessian spectra."""
