"""Preconditioners of weight matrices, after "Weight Conditioning for Smooth Optimization of Neural Networks".

- ``equilibrate``  matrix -> matrix, pure: ``row``, ``column``, ``row_column``, ``jacobi``
- ``selection``    option text -> the layers it means, and whether they can be conditioned
- ``layers``       module -> module: ``condition``, the scale-matched controls, ``bake``
- ``spectrum``     matrix or model -> singular values, κ, row norms

Needs torch and jaxtyping alone, and can be lifted out of ``enerf`` as it is.
"""
