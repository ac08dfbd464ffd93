"""Every shape in ``enerf``'s signatures is executed while the tests run; what a test sets for the process is undone."""

import warnings

import pytest
import torch
from jaxtyping import install_import_hook

# The hook must stand before the first import of enerf.
install_import_hook("enerf", "beartype.beartype")

warnings.filterwarnings("ignore", category=DeprecationWarning, module="tensorboard.*")


@pytest.fixture(autouse=True)
def _precision_of_products():
    """A run chooses the precision of products for the whole process; put it back."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
