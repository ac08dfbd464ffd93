"""C++ kernels: compiled for the local CPU at first use, cached in the user's cache folder, called through ctypes.

A kernel is one ``.cpp`` file of plain C functions that take pointers and sizes, in the same package as its torch
reference implementation. A missing compiler or a failed compilation is not an error: ``library`` logs the reason once
and returns None, and callers use the reference implementation.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

log = logging.getLogger("enerf")

# Not -ffast-math: some compilers then make the whole process flush denormal numbers to zero when the kernel is loaded.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC")
THREADS = (("-fopenmp",), ())  # with OpenMP if the compiler supports it


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled kernel of a source file, or None if it cannot be compiled or loaded; the reason is logged once."""
    compiler = os.environ.get("CXX") or next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    if compiler is None:
        log.info("no C++ compiler was found: %s is not used, its torch reference implementation is", source.name)
        return None
    reason = ""
    for threads in THREADS:
        try:
            return ctypes.CDLL(str(_compiled(source, compiler, (*FLAGS, *threads))))
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or "").strip().split("\n")[0]
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
    log.warning(
        "%s could not be compiled by %s (%s): its torch reference implementation is used", source.name, compiler, reason
    )
    return None


def _compiled(source: Path, compiler: str, flags: tuple[str, ...]) -> Path:
    """Path of the shared library of a source; compiled unless cached for this source, compiler, flags and CPU."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    text = source.read_bytes()
    parts = (text, version.encode(), repr(flags).encode(), _cpu_features().encode())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    made = cache_folder() / f"{source.stem}-{key}.so"
    if not made.is_file():
        made.parent.mkdir(parents=True, exist_ok=True)
        log.info("compiling %s for this CPU (once)", source.name)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            out = Path(folder) / made.name
            command = [compiler, *flags, str(source), "-o", str(out)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            out.replace(made)  # atomic, also with several processes at once
    return made


def cache_folder() -> Path:
    """Folder of the compiled kernels: the environment variable ``ENERF_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get("ENERF_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "enerf"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "enerf"


def _cpu_features() -> str:
    """The CPU's instruction set flags, or its model where they are unknown; part of the cache key."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
