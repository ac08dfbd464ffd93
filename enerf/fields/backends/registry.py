"""Backends that evaluate fields, and the choice of backend and precision at the start of a run.

- ``torch``: the reference implementation, on any device;
- ``compiled``: on a CPU, C++ kernels built for this processor; on a GPU, the reference through ``torch.compile``;
- ``triton``: fused kernels for GPUs;
- ``tinycudann``: NVIDIA's library for networks, if installed; hash encodings use the reference implementation.

``auto`` takes the first backend of a fixed order that is available, is known to be faster on this kind of processor,
and passes a self-test against the reference implementation. Nothing is timed, so the choice on a given computer is
always the same. The result is saved in checkpoints; resume, evaluation and the variants of a comparison pass it back as
``recorded``. A backend requested by name that is not available is an error.

``precision`` is that of the factors of matrix products in networks: ``bf16`` halves their time on processors with bf16
instructions. Sums, weights, rays, encodings and compositing are always fp32.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.core.types import FieldOutput
from enerf.fields.backends import cpu_dense, cpu_density, cpu_hashgrid, dense, hashgrid, inductor
from enerf.fields.backends.dense import Bind, Layer, Network
from enerf.fields.backends.hashgrid import Grid, HashEncoding, make_grid
from enerf.fields.backends.module import NetworkModule
from enerf.fields.hash_space import DensityModule, to_density
from enerf.rendering.ray_functions import ray_functions

log = logging.getLogger("enerf")

# points (n, 3), table, grid -> features
Encode = Callable[[Tensor, Tensor, Grid], Tensor]
# a network's output, and its kind -> density
Activate = Callable[[Tensor, str], Tensor]

# Largest error against the reference implementation, relative to the largest value, that is attributed to rounding.
ROUNDING = {"fp32": 1e-4, "bf16": 5e-2}
# Sets of CPU flags; with all flags of one set, the C++ kernels were measured to be as fast as torch or faster.
# Training steps against torch, one thread: hash grid 60 times faster; dense networks 0.9 to 2.0 times with AVX-512, 0.9
# to 1.9 times with AVX2; two Zen 4 cores with bf16: benchmarks/results/step_bf16.txt. Other processors: not measured.
FAST_CPU = (frozenset({"avx512f"}), frozenset({"avx2", "fma"}))
# Backends that auto tries before torch, by device type.
PREFERRED = {"cpu": ("compiled",), "cuda": ("triton", "compiled")}
UNKNOWN = "auto"  # value of a part that was not recorded
RECORDED = {
    "backend": ("torch", "compiled", "triton", "tinycudann"),
    "precision": ("fp32", "bf16"),
    "device": ("cpu", "cuda"),
}


@dataclass(frozen=True)
class Resolved:
    """The backend and precision that options were resolved to, and the type of the device; saved in checkpoints.

    ``auto`` marks an unknown part: runs of earlier versions recorded only their options.
    """

    backend: str = UNKNOWN
    precision: str = UNKNOWN
    device: str = UNKNOWN

    def __str__(self) -> str:
        return f"{self.backend}, {self.precision}"

    @staticmethod
    def of(values: Mapping[str, Any]) -> "Resolved":
        """A record from a mapping with the names of the attributes; missing or invalid values become unknown."""
        kept = {name: values[name] for name, known in RECORDED.items() if values.get(name) in known}
        return Resolved(**kept)

    def differs(self, other: "Resolved") -> bool:
        """Whether backend, precision or device differ, as far as both records know them."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return any(a != b and UNKNOWN not in (a, b) for a, b in pairs)

    def completed(self, other: "Resolved") -> "Resolved":
        """The record with its unknown parts replaced by those of another."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Resolved(*(b if a == UNKNOWN else a for a, b in pairs))


@dataclass(frozen=True)
class Backend:
    """Implementations of dense networks, hash encodings and densities, with their name and precision."""

    name: str
    precision: str
    bind: Bind
    encode: Encode
    activate: Activate = to_density

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


def choose(name: str, precision: str, device: torch.device, recorded: Resolved | None = None) -> Backend:
    """The backend and precision of the options ``--backend`` and ``--precision`` on a device.

    Parameters
    ----------
    name, precision
        The options; values other than ``auto`` are used as given.
    recorded
        What the run was resolved to before; ``auto`` uses it again. If that is not possible, or an option has another
        value, a warning says what is used instead and why.

    Raises
    ------
    InputError
        If the backend is requested by name and cannot run here, with the reason.
    """
    before = recorded or Resolved()
    precision, reason = resolve_precision(precision, device, before)
    if name != "auto":
        if missing := unavailable_reason(name, precision, device):
            raise InputError(
                f"option --backend: {name} cannot be used here: {missing}; expected auto, torch or another"
            )
        chosen = make(name, precision, device)
    else:
        chosen, not_again = _automatic(precision, device, before)
        reason = not_again or reason
    if before.differs(found := Resolved(chosen.name, precision, device.type)):
        log.warning("%s", difference_words(before, found, reason))
    return chosen


def resolve_precision(precision: str, device: torch.device, recorded: Resolved | None = None) -> tuple[str, str]:
    """The precision on a device, and why it differs from the recorded one (empty if it does not, or by option)."""
    if precision != "auto":
        return precision, ""
    kind = "processor" if device.type == "cpu" else "GPU"
    lacking = "" if core_device.has_bf16(device) else f"this {kind} has no bf16 instructions"
    if recorded is not None and recorded.precision != UNKNOWN:
        return ("fp32", lacking) if recorded.precision == "bf16" and lacking else (recorded.precision, "")
    if lacking:
        log.info("%s: fp32 is used", lacking)
    return ("fp32" if lacking else "bf16"), ""


def difference_words(recorded: Resolved, found: Resolved, reason: str) -> str:
    """One line: what the run was trained with, what is used now, and why."""
    before = recorded.completed(found)
    moved = before.device != found.device
    where = [f" on {r.device}" if moved else "" for r in (before, found)]
    same = (before.backend, before.precision) == (found.backend, found.precision)
    why = reason or ("the device is another one" if moved and same else "the options say so")
    return f"this run was trained with {before}{where[0]}; now {found}{where[1]} is used: {why}"


def _automatic(precision: str, device: torch.device, recorded: Resolved) -> tuple[Backend, str]:
    """The backend of ``auto``, and why it differs from the recorded one (empty if equal, or nothing was recorded)."""
    tried, reason = "", ""
    if recorded.backend != UNKNOWN and recorded.device not in (UNKNOWN, device.type):
        reason = f"the device is {device.type}, not {recorded.device}"
    elif recorded.backend != UNKNOWN:
        tried = recorded.backend
        reason = problem_of(tried, precision, device) or ""
        if not reason:
            return make(tried, precision, device), ""
    for candidate in PREFERRED.get(device.type, ()):
        if candidate == tried:
            continue
        problem = slower_reason(candidate, device) or problem_of(candidate, precision, device)
        if not problem:
            return make(candidate, precision, device), reason
        log.info("backend %s is not used: %s", candidate, problem)
    return make("torch", precision, device), reason


def problem_of(name: str, precision: str, device: torch.device) -> str | None:
    """Why a backend is unavailable or fails its self-test, or None if it can be used."""
    return unavailable_reason(name, precision, device) or self_test(make(name, precision, device), device)


def resolve(device: str, name: str, precision: str, recorded: Resolved | None = None) -> Resolved:
    """What the options ``--device``, ``--backend`` and ``--precision`` resolve to; raises as ``choose`` does."""
    where = core_device.resolve_device(device)
    chosen = choose(name, precision, where, recorded)
    return Resolved(chosen.name, chosen.precision, where.type)


def resolve_device_and_backend(
    device: str, name: str, precision: str, recorded: Resolved | None = None
) -> tuple[torch.device, Backend]:
    """Resolve and prepare the device of the option ``--device``, and choose its backend; logs both.

    Raises
    ------
    InputError
        If the device does not exist, or the backend requested by name cannot run on it.
    """
    where = core_device.resolve_device(device)
    words = core_device.prepare(where)
    backend = choose(name, precision, where, recorded)
    log.info("%s; backend %s", words, backend)
    return where, backend


def unavailable_reason(name: str, precision: str, device: torch.device) -> str | None:
    """Why a backend cannot run on a device, or None if it can."""
    if name == "torch":
        return None
    if name == "compiled":
        return inductor.unavailable_reason() if device.type == "cuda" else cpu_dense.unavailable_reason(precision)
    if name == "triton":
        from enerf.fields.backends import triton_dense

        return triton_dense.unavailable_reason(device)
    from enerf.fields.backends import tinycudann

    if precision == "fp32":
        return "it computes in fp16, not in fp32"
    return tinycudann.unavailable_reason(device)


def slower_reason(name: str, device: torch.device) -> str | None:
    """Why a backend is not known to be faster than torch on a device, or None if it is."""
    if name != "compiled" or device.type != "cpu" or any(needed <= core_device.cpu_flags() for needed in FAST_CPU):
        return None
    return "this processor has neither AVX2 with FMA nor AVX-512, and elsewhere its speed was not measured"


def make(name: str, precision: str, device: torch.device) -> Backend:
    """A backend by name, without checking that it is available."""
    bind, encode, activate = dense.bind, hashgrid.encode, to_density
    if name == "compiled" and device.type == "cuda":
        bind, encode = inductor.bind, inductor.encode
    elif name == "compiled":
        bind, encode, activate = cpu_dense.bind, cpu_hashgrid.encode, cpu_density.to_density
    elif name == "triton":
        from enerf.fields.backends import triton_dense, triton_hashgrid

        bind, encode = triton_dense.bind, triton_hashgrid.encode
    elif name == "tinycudann":
        from enerf.fields.backends import tinycudann

        bind = tinycudann.bind
    return Backend(name, precision, partial(bind, precision=precision), encode, activate)


def use(model: nn.Module, backend: Backend) -> None:
    """Set the backend of every dense network, hash encoding and density in a model."""
    for module in model.modules():
        if isinstance(module, DensityModule):
            module.activate = backend.activate
        if isinstance(module, NetworkModule):
            module.bind, module.precision = backend.bind, backend.precision
        if isinstance(module, HashEncoding):
            module.encode = backend.encode


PROBE = Network((32, 16), (Layer((0,), 64, True), Layer((2, 1), 64, True), Layer((3,), 16, False)), (4,))
PROBE_GRID = make_grid(8, 4, 10, 4, 64)
PROBE_RAYS, PROBE_SAMPLES = 64, 32


def self_test(backend: Backend, device: torch.device) -> str | None:
    """Compare a backend with the reference implementation; returns the problem, or None if they agree.

    Compared are the outputs and gradients of a small network on a small hash grid, of densities and, for a backend
    that is compiled for CPUs, of the operations on rays.
    """
    reference = make("torch", backend.precision, device)
    try:
        found, expected = _probe(backend, device), _probe(reference, device)
    except Exception as error:  # of a compiler or a driver, of any type
        return f"it failed on a small network: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    for a, b in zip(found, expected, strict=True):
        difference = float((a - b).abs().max() / b.abs().max())
        if not difference <= ROUNDING[backend.precision]:
            return f"it differs from the reference implementation by {difference:.1e} on a small network"
    return None


def _probe(backend: Backend, device: torch.device) -> list[Tensor]:
    """Outputs of a small network on a small hash grid, and the gradients of weights and table."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    shapes = [(layer.width, sum(PROBE.widths[s] for s in layer.sources)) for layer in PROBE.layers]
    weights = [(drawn(*shape) * shape[1] ** -0.5).requires_grad_() for shape in shapes]
    biases = [drawn(shape[0]).requires_grad_() for shape in shapes]
    table = drawn(PROBE_GRID.offsets[-1], PROBE_GRID.features).requires_grad_()
    points = torch.rand(PROBE_RAYS * PROBE_SAMPLES, 3, generator=generator).to(device)
    inputs = [backend.encode(points, table, PROBE_GRID), drawn(PROBE_RAYS, 16)]
    (out,) = backend.bind(PROBE, weights, biases)(inputs)
    gradients = torch.autograd.grad(out.square().mean(), [table, *weights, *biases])
    return [out.detach(), *gradients, *_probe_rays(backend, device, drawn)]


def _probe_rays(backend: Backend, device: torch.device, drawn: Callable[..., Tensor]) -> list[Tensor]:
    """Densities, what a few rays show of them, resampled edges, and the gradient."""
    use = ray_functions(backend.name == "compiled" and device.type == "cpu")
    raw, rgb = drawn(PROBE_RAYS, PROBE_SAMPLES).requires_grad_(), drawn(PROBE_RAYS, PROBE_SAMPLES, 3)
    density, directions = backend.activate(raw, "exp"), drawn(PROBE_RAYS, 3)
    edges = torch.linspace(0, 1, PROBE_SAMPLES + 1, device=device).expand(PROBE_RAYS, -1)
    seen = use.composite_intervals(FieldOutput(density, rgb), edges, directions, t_vals=edges[:, 1:])
    resampled = use.resample(edges, seen.weights.detach(), PROBE_SAMPLES // 2)
    (slope,) = torch.autograd.grad(seen.rgb.square().mean() + seen.depth.mean(), raw)
    return [density.detach(), seen.rgb.detach(), seen.depth.detach(), resampled, slope]
