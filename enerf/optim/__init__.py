"""Preconditioned optimisers: Adam, RMSprop and Adagrad as descent in a better scaled parameter.

- ``shrinkage``  the arithmetic: preconditioners, signs, thresholds, decay
- ``groups``     what the options of a parameter group may say
- ``intrinsic``  the optimisers, with L2 and L1 regularisation of what they really descend in; ``sparsity``

Needs torch and jaxtyping alone, and can be lifted out of ``enerf`` as it is.
"""
