"""Preconditioners of weight matrices, after "Weight Conditioning for Smooth Optimization of Neural Networks".

Maps, matrix -> matrix:

- ``norms``            norms with a floor, and division by them
- ``equilibrate``      the paper's ``row``, ``column``, ``row_column``, ``jacobi``; and ``ruiz``, in a file of its own

Layers, module -> module:

- ``matrices``         which matrices a layer multiplies by: linear, convolutions, bilinear, attention
- ``selection``        words -> the layers they mean, and whether a method suits them; ``ties``: weights held twice
- ``parametrization``  the module between a raw weight and what the layer applies; its size, its held divisors
- ``baselines``        what the papers compare with: weight standardisation, weight and spectral norm, starts
- ``batch_norm``       gradients preconditioned by batch statistics
- ``layers``           ``condition``, ``bake``, ``conditioned_layers``: the door to all of these
- ``checkpoints``      state dicts of conditioned models to plain ones and back
- ``once``             conditioned weights computed once a step

Diagnostics:

- ``spectrum``         matrix or model -> singular values, κ, effective rank, row norms
- ``curvature``        Hessian and Gauss-Newton operators of a loss; ``eigenvalues``: their extremes and density
- ``extended``         the matrix [1, H] of a layer's inputs, and a unit's block of the Hessian

Needs torch and jaxtyping alone (curvature: curvlinops and SciPy too), and can be lifted out of ``enerf`` as it is.
"""
