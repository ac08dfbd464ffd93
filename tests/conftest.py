"""Every shape in ``enerf``'s signatures is executed while the tests run."""

import warnings

from jaxtyping import install_import_hook

# The hook must stand before the first import of enerf.
install_import_hook("enerf", "beartype.beartype")

warnings.filterwarnings("ignore", category=DeprecationWarning, module="tensorboard.*")
