"""Base class of parametrizations, by which ``bake`` and others know those of this package from those of others."""

from torch import nn


class Parametrization(nn.Module):
    """A parametrization that ``condition`` applies.

    Attributes
    ----------
    method
        The method that it belongs to.
    """

    method: str
