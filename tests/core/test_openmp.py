"""How waiting OpenMP threads are told to wait."""

import os
import subprocess
import sys

import pytest

from enerf.core import openmp


@pytest.mark.parametrize("value", ["ACTIVE", "PASSIVE"])
def test_a_policy_of_the_user_is_kept_alone(value):
    environment = {openmp.POLICY: value}
    openmp.wait_briefly(environment)
    assert environment == {openmp.POLICY: value}


@pytest.mark.parametrize("module", ["enerf.cli.app", "enerf.cli.main"])
def test_commands_set_it_before_torch_is_imported(module):
    code = f"import os, sys, {module}; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    environment = {k: v for k, v in os.environ.items() if k not in (openmp.POLICY, *openmp.SPIN)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["False", "1000"]


def test_every_script_is_a_command():
    """Scripts import ``enerf.cli`` before anything else of enerf, so that the setting comes first."""
    from pathlib import Path

    for script in (Path(__file__).parents[2] / "scripts").glob("*.py"):
        imports = [line for line in script.read_text().splitlines() if line.startswith(("from enerf", "import enerf"))]
        assert imports, script
        assert imports[0].startswith(("from enerf.cli", "import enerf.cli")), script
