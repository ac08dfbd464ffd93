"""Device resolution and CPU settings, applied once at the start of a run: device, matrix products, memory.

Library code takes the device of its inputs; only a run's setup chooses one.
"""

import ctypes
import logging
import platform
import time

import torch

from enerf.core.errors import InputError

log = logging.getLogger("enerf")

# Largest relative error of a product that still counts as fp32 (its unit roundoff is 6e-8, bf16's 4e-3).
FP32_ERROR = 1e-5
# bf16 must be this much faster than fp32 to be chosen; with instructions for it, it is twice as fast.
BF16_GAIN = 1.25
# Activations of a layer (16 MB in fp32) that fit the CPU's caches and glibc's largest mmap threshold. Smaller batches
# cost more calls: four times smaller ones made a step of the fast preset 1.5 times longer.
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
        raise InputError(
            f"option --device: found {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def prepare(device: torch.device) -> str:
    """Set memory allocation and matrix products up for a run; returns one line that describes the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    keep_memory()
    path = fast_products()
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads, {path} products"


def keep_memory() -> bool:
    """Tell glibc's malloc not to return freed memory, since new pages are slow; returns whether that succeeded."""
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
    """Whether products of bf16 factors pay here: by the driver's word on a GPU, by a short race on a CPU.

    Where there are no instructions for it, torch imitates it, slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return BF16_GAIN * product_seconds(torch.bfloat16) < product_seconds(torch.float32)


def product_seconds(dtype: torch.dtype, size: int = 256, tries: int = 30) -> float:
    """The fastest of some products of square matrices, in one thread: a busy machine should not decide this."""
    a, b, seconds = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(tries):
            began = time.perf_counter()
            torch.mm(a, b)
            seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return min(seconds)


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
