"""Entry modules of the previous release, importable for one more release with a DeprecationWarning."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = {
    "enerf.run_nerf": "enerf.tasks.nerf.train",
    "enerf.run_shape": "enerf.tasks.shape.train",
    "enerf.run_classifier": "enerf.tasks.classifier.train",
    "enerf.run_extract": "enerf.experiments.extract",
    "enerf.run_compare": "enerf.experiments.compare",
    "enerf.run_analysis": "enerf.experiments.analyze",
}


class _Finder(MetaPathFinder, Loader):
    """Finds the previous names; a module under one of them has the contents of the module that replaces it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a previous name, None for every other one."""
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Import the module that replaces it, and take over its names."""
        new = MODULES[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        contents = vars(import_module(new))
        vars(module).update({name: value for name, value in contents.items() if not name.startswith("__")})


def register() -> None:
    """Make the previous names importable, once; nothing is imported by this."""
    if not any(type(finder).__name__ == "_Finder" and type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
