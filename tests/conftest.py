"""Shapes in ``enerf``'s signatures are executed while the tests run, by beartype; settings are undone."""

import importlib.util
import os
import signal
import warnings

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

# The hook must stand before the first import of enerf. Machines to measure on may lack beartype.
if importlib.util.find_spec("beartype"):
    install_import_hook("enerf", "beartype.beartype")

warnings.filterwarnings("ignore", category=DeprecationWarning, module="tensorboard.*")

# in the background of a shell, and under nohup, signals are ignored, also by the programs that tests start
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# a busy machine makes examples slow; that is no property of the code
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes that share the cores
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the programs that tests start


@pytest.fixture(autouse=True)
def _precision_of_products():
    """A run chooses the precision of products for the whole process; put it back."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def two_threads():
    """What goes wrong on several threads only is looked for on two, however many this process has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
