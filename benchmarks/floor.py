"""Arithmetic of a training step, and the measured speed of matrix products: a lower bound of its time.

    python benchmarks/floor.py [--device cuda]

prints the speed of ``torch.mm`` in fp32 and bf16, and of a copy within the device's memory, bytes read and written. The
last line is ``ratio=X noise=LOW..HIGH``: bf16 over fp32, median over three rounds.
"""

import ctypes
from pathlib import Path

import ours
import sides
import torch
from ours import seconds_of

from enerf.core import cpu_build
from enerf.core.device import has_bf16
from enerf.fields.backends.dense import DTYPES, Network
from enerf.fields.backends.module import NetworkModule
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf.setup import Run, sampling_config


def training_flops(network: Network, inputs_trained: bool) -> int:
    """Floating-point operations per point, forward and backward: two per multiplication, without biases and ReLU.

    Backward is twice forward, minus the gradients of inputs that are not needed, in layers that read only inputs.
    """
    if inputs_trained:
        return 6 * network.products
    first = [layer for layer in network.layers if max(layer.sources) < len(network.inputs)]
    unneeded = sum(layer.width * sum(network.widths[s] for s in layer.sources) for layer in first)
    return 6 * network.products - 2 * unneeded


def step_flops(run: Run) -> int:
    """Floating-point operations of a training step's dense networks."""
    passes = sampling_config(run.config)
    coarse, fine = points(passes)
    per_ray = coarse * _of(run.fields.coarse)
    if run.fields.fine is not None:
        per_ray += fine * _of(run.fields.fine)
    return run.config.train.N_rand * per_ray


def points(passes: SamplingConfig) -> tuple[int, int]:
    """Evaluations per ray of the coarse and of the fine field."""
    if passes.proposal:
        return passes.n_samples, passes.n_importance
    return passes.n_samples, passes.n_samples + passes.n_importance


def _of(field: NetworkModule) -> int:
    return training_flops(field.network, inputs_trained=getattr(field, "hashed", None) is not None)


def peak(device: torch.device, precision: str, tries: int = 6) -> float:
    """FLOP/s of the fastest of ``tries`` large ``torch.mm``, measured with the settings of this process."""
    size = 8192 if device.type == "cuda" else 512 if is_emulated(device, precision) else 2048
    a, b = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
    times = 10 if device.type == "cuda" else 1
    torch.mm(a, b)
    return 2 * size**3 / min(seconds_of(lambda: torch.mm(a, b), times, device) for _ in range(tries))


def is_emulated(device: torch.device, precision: str) -> bool:
    """Whether a processor without instructions for a precision emulates it, at a fiftieth of the speed."""
    return precision == "bf16" and not has_bf16(device)


PEAK_SOURCE = Path(__file__).with_name("peak.cpp")
INSTRUCTIONS = {"fp32": ("FMA",), "bf16": ("FMA", "vdpbf16ps", "tdpbf16ps")}  # in the order of peak.cpp


def register_peak(precision: str) -> tuple[str, float]:
    """The fastest instruction of a CPU for a precision, and its FLOP/s in a loop on registers; zero if unknown."""
    library = cpu_build.library(PEAK_SOURCE)
    if library is None:
        return "unknown", 0.0
    library.peak_of.restype = ctypes.c_double
    found = {name: library.peak_of(i, torch.get_num_threads()) for i, name in enumerate(INSTRUCTIONS[precision])}
    best = max(found, key=lambda name: found[name])
    return best, found[best]


def peak_words(run: Run, seconds: float, precision: str) -> str:
    """Share of the peak of a loop on registers that a step on the CPU reaches, in words; empty elsewhere."""
    name, top = register_peak(precision) if run.device.type == "cpu" else ("", 0.0)
    if not top:
        return ""
    return f"; {step_flops(run) / seconds / top:.0%} of the {top / 1e9:.0f} of a loop of {name} on registers"


def share_words(run: Run, seconds: float, precision: str) -> str:
    """Arithmetic and speed of a step, and its share of the measured speed of ``torch.mm``, in words."""
    flops, top = step_flops(run), peak(run.device, precision)
    return (
        f"{flops / 1e9:.1f} GFLOP a step at {flops / seconds / 1e9:.0f} GFLOP/s, {flops / seconds / top:.0%} of the "
        f"{top / 1e9:.0f} that torch.mm was measured to reach in {precision} here; at that rate a step would take "
        f"{flops / top * 1e3:.2f} ms{peak_words(run, seconds, precision)}"
    )


def copied(device: torch.device, tries: int = 6) -> float:
    """Bytes per second, read and written, of the fastest of ``tries`` large copies within the device's memory."""
    source = torch.ones((1 << 30 if device.type == "cuda" else 1 << 26) // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * 4 * len(source) / min(seconds_of(lambda: target.copy_(source), 1, device) for _ in range(tries))


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    args = parser.parse_args()
    device = ours.device_of(args.device)
    report = sides.Report(args.out, device)
    timers = {name: lambda name=name: peak(device, name, 3) for name in ("fp32", "bf16")}
    found = sides.by_turns(timers, 3)
    for name, values in found.items():
        words = ", which this processor emulates" if is_emulated(device, name) else ""
        report(f"torch.mm in {name}{words}: {max(values) / 1e12:.4g} TFLOP/s")
    report(f"copies: {copied(device) / 1e9:.4g} GB/s read and written")
    report(sides.ratio_line(sides.ratios(found["bf16"], found["fp32"])))


if __name__ == "__main__":
    sides.enter(main)
