"""Threads of OpenMP that wait for work: they sleep after a short spin, so that other processes get their cores.

Runtimes read these variables when they are loaded, so they are set before torch is imported, by ``enerf.cli``.

Sources: GNU libgomp manual, ``GOMP_SPINCOUNT``; LLVM OpenMP runtime reference, ``KMP_BLOCKTIME``.
"""

import os
from collections.abc import MutableMapping

POLICY = "OMP_WAIT_POLICY"  # of the OpenMP standard: it says how all threads wait
SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}  # iterations of libgomp; milliseconds of LLVM and Intel


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads spin briefly, unless the environment says how they wait.

    >>> environment = {"GOMP_SPINCOUNT": "5"}
    >>> wait_briefly(environment)
    >>> environment
    {'GOMP_SPINCOUNT': '5', 'KMP_BLOCKTIME': '1'}
    """
    if POLICY not in environment:
        for name, value in SPIN.items():
            environment.setdefault(name, value)
