"""Versions and hardware that results depend on."""

import importlib
import platform
from contextlib import suppress
from pathlib import Path


def describe() -> dict[str, str]:
    """Return versions of Python, PyTorch and this package, the system, the processor and, if there is one, the GPU."""
    import torch

    found = {
        "enerf": str(importlib.import_module("enerf").__version__),
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": f"{platform.system()} {platform.machine()}",
        "CPU": processor(),
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
