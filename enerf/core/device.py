"""Device resolution and CPU settings, applied once at the start of a run: device, matrix products, memory.

Library code takes the device of its inputs; only a run's setup chooses one.
"""

import ctypes
import functools
import logging
import platform
from pathlib import Path

import torch

from enerf.core.errors import InputError

log = logging.getLogger("enerf")

# Largest relative error of a product that still counts as fp32 (its unit roundoff is 6e-8, bf16's 4e-3).
FP32_ERROR = 1e-5
# Instruction sets that multiply bf16 factors, by their names in /proc/cpuinfo.
BF16_FLAGS = ("avx512_bf16", "amx_bf16")
# torch's names of instruction sets that /proc/cpuinfo spells otherwise.
CPUINFO_NAMES = {"avx512_f": "avx512f", "avx512_bw": "avx512bw", "fma3": "fma"}
# Values of a layer (16 MB in fp32) that stay near the CPU's caches and under glibc's mmap ceiling. Fewer points at once
# cost more calls: four times fewer made a step of the fast preset 1.5 times longer.
CPU_VALUES = 1 << 22


def resolve_device(name: str) -> torch.device:
    """The torch device of an option value such as ``auto``, ``cpu``, ``cuda:1``; ``auto`` prefers CUDA.

    Raises
    ------
    InputError
        If the name is not that of a CPU or CUDA device, or there is no such CUDA device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device: torch.device | None = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"option --device: found {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"option --device: found {name!r}, but there are {torch.cuda.device_count()} CUDA devices")
    return device


def prepare(device: torch.device) -> str:
    """Set memory allocation and matrix products up for a run; returns one line that describes the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    keep_memory()
    path = fast_products()
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads, {path} products"


def keep_memory() -> bool:
    """Tell glibc's malloc not to return freed memory, since new pages are slow; returns whether that succeeded.

    Arrays above 32 MiB, the largest limit that malloc allows, are given back all the same: see ``core.spare``.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim, top_pad, mmap = -1, -2, -3
        return all(
            libc.mallopt(what, size) == 1 for what, size in ((mmap, 32 << 20), (trim, 2**31 - 1), (top_pad, 64 << 20))
        )
    except (OSError, AttributeError):
        return False  # not glibc


def fast_products() -> str:
    """Select the implementation of fp32 matrix products on the CPU: ``oneDNN`` if accurate enough, else ``stock``.

    The precision "medium" selects oneDNN, two to three times faster on AVX-512 cores. On other CPUs it may round to
    bf16, so one product is compared with float64 first.
    """
    torch.set_float32_matmul_precision("medium")
    if product_error() <= FP32_ERROR:
        return "oneDNN"
    torch.set_float32_matmul_precision("highest")
    return "stock"


def product_error(size: int = 256) -> float:
    """Relative error of one fp32 matrix product with the current settings, compared with float64."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    return float((torch.nn.functional.linear(a, b.T.contiguous()) - exact).abs().max() / exact.abs().max())


def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bf16 factors.

    On a GPU: compute capability 8.0 or higher. On a CPU: AVX-512 BF16 or AMX; without them torch emulates bf16, slower
    than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return not cpu_flags().isdisjoint(BF16_FLAGS)


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor by their names in ``/proc/cpuinfo``: ``avx2``, ``avx512f``, ``avx512_bf16`` ...

    Elsewhere than on Linux they are what torch reports, if this version of torch does; an empty set means unknown.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return frozenset(CPUINFO_NAMES.get(name, name) for name, present in found.items() if present is True)
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(flags.partition(":")[2].split())


def points_at_once(device: torch.device, netchunk: int, width: int) -> int:
    """Largest number of points to evaluate per network call: ``netchunk``, on a CPU limited by the cache size."""
    return min(netchunk, max(1, CPU_VALUES // width)) if device.type == "cpu" else netchunk


def image_order(device: torch.device) -> torch.memory_format:
    """Memory format of images and convolution kernels: channels last on a GPU, channels first on a CPU.

    Channels last is a quarter faster on a CPU too, but there torch 2.13's convolutions of 8 channels crash with a
    segmentation fault in the gradient if two threads share an odd number of images.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is an out-of-memory error, of a GPU or of the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("allocate memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
