"""Entry modules of the previous release are still importable, and say where they are now."""

import subprocess
import sys

import pytest

from enerf.core import _moved


@pytest.mark.parametrize("old", ["enerf.run_nerf", "enerf.run_compare"])
def test_a_previous_entry_module_has_the_names_of_the_one_that_replaces_it(old: str):
    code = f"import {old}, {_moved.MODULES[old]}; "
    code += f"assert {old}.log is {_moved.MODULES[old]}.log; print('compare' in dir({old}) or 'train' in dir({old}))"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert f"DeprecationWarning: {old} is now {_moved.MODULES[old]}" in done.stderr


def test_importing_the_package_imports_none_of_them():
    code = "import sys, enerf; print([m for m in sys.modules if m.startswith('enerf.') and 'core' not in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
