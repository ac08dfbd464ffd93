"""Methods that are a module of their own: name -> module. A new method is one module and one line here. No torch.

When a method of this table is first used, its module is imported, and registers the method by
``registry.register_map`` or ``registry.register_parametrization``.
"""

from importlib import import_module

MODULES = {
    "orthogonal": "enerf.conditioning.orthogonal",
    "fourier": "enerf.conditioning.fourier",
}


def load(method: str) -> None:
    """Import the module of a method, if it has one."""
    if method in MODULES:
        import_module(MODULES[method])
