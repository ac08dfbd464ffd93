"""What executors need: cores and GPUs of runs by their options, and optional packages."""

import importlib
import os
from typing import Any

from enerf.config import parser
from enerf.core import files
from enerf.core.errors import InputError
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant

BYTES = 2 << 30  # memory that each run of the default pool finds free


def shares(options: ExecutorOptions, variants: list[Variant], n_gpus: int, cores: int) -> tuple[int, int]:
    """Return the number of runs at a time on this computer, and the threads of each.

    Raises
    ------
    InputError
        If more threads are requested than there are cores.
    """
    threads = options.threads_per_run
    if threads > cores:
        raise InputError(f"option --threads_per_run: found {threads}, expected at most {cores}, the number of cores")
    one_at_a_time = any(each.config.train.max_seconds > 0 or device_of(each).startswith("cuda:") for each in variants)
    memory = files.available_memory() // BYTES
    default = n_gpus or (1 if one_at_a_time else min(cores // max(1, threads), memory))
    workers = max(1, min(options.workers or default, len(variants)))
    return workers, threads or max(1, cores // workers)


def device_of(variant: Variant) -> str:
    """Return the value of ``--device`` of a run."""
    return str(parser.to_dict(variant.config)["device"])


def gpus(variants: list[Variant]) -> list[str]:
    """Return the numbers of this computer's GPUs that runs are divided among; empty if they use the CPU or name one."""
    if {device_of(variant) for variant in variants} - {"auto", "cuda"}:
        return []
    visible, n = os.environ.get("CUDA_VISIBLE_DEVICES", ""), _number_of_gpus()
    return visible.split(",")[:n] if visible else [str(i) for i in range(n)]  # CUDA ignores what follows a wrong one


def gpus_for(options: ExecutorOptions, variants: list[Variant]) -> int:
    """Return the number of GPUs that each run asks a cluster for."""
    if options.gpus_per_run >= 0:
        return options.gpus_per_run
    devices = {device_of(variant) for variant in variants}
    return int(any(name.startswith("cuda") for name in devices) or ("auto" in devices and _number_of_gpus() > 0))


def _number_of_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def imported(package: str) -> Any:
    """Return the module of an optional package.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(
            f"option --executor: {package} is not installed; pip install 'enerf[scale]', or --executor local uses the "
            "cores and GPUs of this computer"
        ) from None


def count(n: int, one: str, several: str = "") -> str:
    """Return a number with its noun.

    >>> count(1, "thread"), count(2, "run at a time", "runs at a time")
    ('1 thread', '2 runs at a time')
    """
    return f"{n} {one if n == 1 else several or one + 's'}"
