"""Which code evaluates fields, in which precision: chosen once, at the start of a run, and said.

- ``torch``: the readable twins, on any device;
- ``compiled``: on a CPU, C++ kernels made for this processor; on a GPU, the twins through ``torch.compile``;
- ``triton``: fused kernels for GPUs;
- ``tinycudann``: NVIDIA's library, where the user has built it; the hash encoding stays ours.

A backend asked for by name that is not there is the user's mistake. ``auto`` tries the faster ones first, compares each
with its twin on a small network before it trusts it, and falls back with one line in the log.

``precision`` is that of the factors of the products inside networks: ``bf16`` halves their time where the machine
multiplies in bf16. Sums, weights, rays, encodings and compositing are fp32 in every case.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.fields.backends import cpu_dense, cpu_hashgrid, dense, hashgrid, inductor
from enerf.fields.backends.dense import Bind, Layer, Network
from enerf.fields.backends.hashgrid import Grid, HashEncoding, make_grid
from enerf.fields.backends.module import Networked

log = logging.getLogger("enerf")

# points (n, 3), table, grid -> features
Encode = Callable[[Tensor, Tensor, Grid], Tensor]

# A kernel must be this much slower than its twin in the probe before the twin is taken instead: a busy machine should
# not change the choice from one start of a run to the next.
MUCH_SLOWER = 1.5
# Largest error against the twin, relative to the largest value, that is still rounding.
ROUNDING = {"fp32": 1e-4, "bf16": 5e-2}


@dataclass(frozen=True)
class Backend:
    """A way to evaluate fields."""

    name: str
    precision: str
    bind: Bind
    encode: Encode

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


def choose(name: str, precision: str, device: torch.device) -> Backend:
    """The backend and precision of the options ``--backend`` and ``--precision`` on a device.

    Raises
    ------
    InputError
        If the backend is asked for by name and cannot run here, with the reason.
    """
    if precision == "auto":
        precision = "bf16" if core_device.has_bf16(device) else "fp32"
        if precision == "fp32":
            log.info("bf16 products are no faster than fp32 ones here: fp32 is used")
    if name != "auto":
        if reason := why_not(name, precision, device):
            raise InputError(f"option --backend: {name} cannot be used here: {reason}; expected auto, torch or another")
        return make(name, precision, device)
    for candidate in ("triton", "compiled") if device.type == "cuda" else ("compiled",):
        reason = why_not(candidate, precision, device) or distrusted(make(candidate, precision, device), device)
        if not reason:
            return make(candidate, precision, device)
        log.info("backend %s is not used: %s", candidate, reason)
    return make("torch", precision, device)


def placed(device: str, name: str, precision: str) -> tuple[torch.device, Backend]:
    """The device of the option ``--device``, made ready, and the backend chosen for it; both are logged.

    Raises
    ------
    InputError
        If there is no such device, or the backend cannot run on it.
    """
    where = core_device.resolve_device(device)
    words = core_device.prepare(where)
    backend = choose(name, precision, where)
    log.info("%s; backend %s", words, backend)
    return where, backend


def why_not(name: str, precision: str, device: torch.device) -> str | None:
    """Why a backend cannot run here, or None if it can."""
    if name == "torch":
        return None
    if name == "compiled":
        return inductor.why_not() if device.type == "cuda" else cpu_dense.why_not(precision)
    if name == "triton":
        from enerf.fields.backends import triton_dense

        return triton_dense.why_not(device)
    from enerf.fields.backends import tinycudann

    if precision == "fp32":
        return "it computes in fp16, not in fp32"
    return tinycudann.why_not(device)


def make(name: str, precision: str, device: torch.device) -> Backend:
    """A backend by name; whether it can run is not asked."""
    bind, encode = dense.bind, hashgrid.encode
    if name == "compiled" and device.type == "cuda":
        bind, encode = inductor.bind, inductor.encode
    elif name == "compiled":
        bind, encode = cpu_dense.bind, cpu_hashgrid.encode
    elif name == "triton":
        from enerf.fields.backends import triton_dense, triton_hashgrid

        bind, encode = triton_dense.bind, triton_hashgrid.encode
    elif name == "tinycudann":
        from enerf.fields.backends import tinycudann

        bind = tinycudann.bind
    return Backend(name, precision, partial(bind, precision=precision), encode)


def use(model: nn.Module, backend: Backend) -> None:
    """Every network and hash encoding of the model is evaluated by this backend from now on."""
    for module in model.modules():
        if isinstance(module, Networked):
            module.bind = backend.bind
        if isinstance(module, HashEncoding):
            module.encode = backend.encode


PROBE = Network((32, 16), (Layer((0,), 64, True), Layer((2, 1), 64, True), Layer((3,), 16, False)), (4,))
PROBE_GRID = make_grid(8, 4, 10, 4, 64)
PROBE_RAYS, PROBE_SAMPLES = 64, 32


def distrusted(backend: Backend, device: torch.device) -> str | None:
    """Why a backend is not to be trusted: its errors, or its time, against the twin on a small network; else None."""
    twin = make("torch", backend.precision, device)
    try:
        found, expected = _probe(backend, device), _probe(twin, device)
    except Exception as error:  # whatever a compiler or a driver says
        return f"it failed on a small network: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    for a, b in zip(found, expected, strict=True):
        difference = float((a - b).abs().max() / b.abs().max())
        if not difference <= ROUNDING[backend.precision]:
            return f"it differs from its twin by {difference:.1e} on a small network"
    mine, theirs = (min(_seconds(b, device) for _ in range(5)) for b in (backend, twin))
    if mine > MUCH_SLOWER * theirs:
        return f"it took {mine * 1e3:.1f} ms for what torch does in {theirs * 1e3:.1f} ms"
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
    return [out.detach(), *torch.autograd.grad(out.square().mean(), [table, *weights, *biases])]


def _seconds(backend: Backend, device: torch.device) -> float:
    """How long the probe takes."""
    began = time.perf_counter()
    _probe(backend, device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
