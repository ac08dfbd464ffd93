"""C++ kernels: compiled for the local CPU at first use, cached in the user's cache folder, called through ctypes.

A kernel is one ``.cpp`` file of plain C functions that take pointers and sizes, in the same package as its torch
reference implementation. A missing compiler or a failed compilation is not an error: ``library`` logs the reason once
and returns None, and callers use the reference implementation. Compiled libraries are kept by ``build_cache``.

Functions of kernels return a status, which ``check`` turns into exceptions: C++ exceptions must not leave them, because
the caller is C code that they would end together with the process.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from enerf.core import build_cache
from enerf.core.build_cache import cache_folder

__all__ = ["cache_folder", "check", "library"]

log = logging.getLogger("enerf")

# Not -ffast-math: some compilers then make the whole process flush denormal numbers to zero when the kernel is loaded.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17", "-shared", "-fPIC")
THREADS = (("-fopenmp",), ())  # with OpenMP if the compiler supports it
VERSION_SECONDS, COMPILE_SECONDS = 30, 300  # a compiler that takes longer is stopped
COMPILERS = ("g++", "clang++", "c++")
NO_MEMORY = 1  # status of a kernel: memory could not be allocated


class _Failed(Exception):
    """A compiler reported an error, or what it made cannot be loaded; the message is one line."""


def check(status: int, name: str) -> None:
    """Turn the status of a kernel's function into an exception; 0 is success.

    Raises
    ------
    MemoryError
        If memory could not be allocated.
    RuntimeError
        For any other failure.
    """
    if status == NO_MEMORY:
        raise MemoryError(f"the kernel {name} could not allocate memory")
    if status:
        raise RuntimeError(f"the kernel {name} failed (status {status})")


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled kernel of a source file, or None if it cannot be compiled or loaded; the reason is logged once."""
    compiler = find_compiler()
    if compiler is None:
        log.info("no C++ compiler was found: %s is not used, its reference implementation is", source.name)
        return None
    reason = ""
    try:
        for threads in THREADS:
            try:
                loaded = _loaded(source, compiler, (*FLAGS, *threads))
            except _Failed as error:
                reason = reason or str(error)
                continue
            if reason:
                log.warning("%s is compiled without %s, for one thread (%s)", source.name, THREADS[0][0], reason)
            return loaded
    except OSError as error:
        reason = str(error)
    log.warning(
        "%s could not be compiled by %s (%s): its reference implementation is used",
        *(source.name, shlex.join(compiler), reason),
    )
    return None


def find_compiler() -> tuple[str, ...] | None:
    """Command of the C++ compiler: the environment variable ``CXX``, which may have arguments, or the first one found.

    If the program of ``CXX`` does not exist, a warning says so, and the first one found is returned. None without any.
    """
    given = os.environ.get("CXX", "").strip()
    found = next(((name,) for name in COMPILERS if shutil.which(name)), None)
    if not given:
        return found
    try:
        words = (given,) if shutil.which(given) else tuple(shlex.split(given, posix=os.name == "posix"))
    except ValueError as error:  # an open quotation
        words = ()
        log.warning("CXX=%s cannot be read as a command (%s): %s", given, error, _instead(found))
    else:
        if words and not shutil.which(words[0]):
            log.warning("CXX=%s: there is no program %s: %s", given, words[0], _instead(found))
            words = ()
    return words or found


def _instead(found: tuple[str, ...] | None) -> str:
    return f"{found[0]} is used" if found else "no other C++ compiler was found either"


def _loaded(source: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> ctypes.CDLL:
    """The library of a source, from the cache if it is there for this source, compiler, flags and CPU.

    Raises
    ------
    _Failed
        If it cannot be compiled or loaded.
    OSError
        If the compiler cannot be run, or there is no folder to keep the library in.
    """
    problem = ""
    for path in build_cache.libraries(_key(source, compiler, flags), lambda: _compile(source, compiler, flags)):
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:  # such as a file system without the permission to execute
            problem = str(error)
    raise _Failed(problem)


def _compile(source: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> bytes:
    """Content of the library of a source; raises as ``_run`` does."""
    log.info("compiling %s for this CPU (once)", source.name)
    with tempfile.TemporaryDirectory(prefix="enerf-build-") as folder:
        out = Path(folder) / "kernel.so"
        _run((*compiler, *flags, str(source), "-o", str(out)), COMPILE_SECONDS)
        if not out.is_file() or not out.stat().st_size:
            raise _Failed("it made no library")
        return out.read_bytes()


def _key(source: Path, compiler: tuple[str, ...], flags: tuple[str, ...]) -> str:
    """Name of a library without the hash of its content."""
    version, problem = _version(compiler)
    if problem:
        raise OSError(problem)
    parts = (source.read_bytes(), version, repr(flags).encode(), _cpu_features().encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return f"{source.stem}-{digest[:16]}"


@functools.cache
def _version(compiler: tuple[str, ...]) -> tuple[bytes, str]:
    """What a compiler prints about its version, and why it cannot be run; the other one is empty."""
    try:
        return _run((*compiler, "--version"), VERSION_SECONDS), ""
    except (_Failed, OSError) as error:
        return b"", str(error)


def _run(command: tuple[str, ...], seconds: float | int) -> bytes:
    """Output of a command, which is stopped with its child processes after that time.

    Raises
    ------
    _Failed
        If it ended with an error: the first line of its messages.
    OSError
        If it cannot be started, or was stopped.
    """
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=os.name == "posix"
        )
    except ValueError as error:
        raise OSError(str(error)) from None
    try:
        output, messages = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"stopped after {seconds:g} seconds without a result") from None
    finally:
        if process.poll() is None:
            _stop(process)
    if process.returncode:
        lines = messages.decode("utf-8", "replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise _Failed(next((line for line in lines if "error" in line.lower()), lines[0]))
    return output


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, and wait for it."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()


def _cpu_features() -> str:
    """The CPU's instruction set flags, or its model where they are unknown; part of the cache key."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
