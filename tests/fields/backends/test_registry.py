"""Tests of the choice of a backend, and of what no choice changes: the field's values, and its checkpoints."""

import itertools
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from enerf.config.options import ConditioningOptions
from enerf.core import cpu_build
from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.fields.backends import cpu_dense, cpu_hashgrid, dense, hashgrid, registry
from enerf.fields.backends import inductor as backends_inductor
from enerf.fields.backends.hashgrid import HashEncoding
from enerf.fields.backends.module import NetworkModule
from enerf.fields.backends.registry import Backend, Resolved
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import ModelOptions

# torch.compile loads parts of torch that torch itself calls deprecated, and looks for .grad of conditioned weights
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

CPU = torch.device("cpu")
# torch.compile does not see through the checks of shapes, so its tests run in a separate process
without_checks = pytest.mark.skipif(
    os.environ.get("JAXTYPING_DISABLE") != "1", reason="torch.compile: run by a slow test of this file"
)
has_kernel = pytest.mark.skipif(cpu_dense.unavailable_reason() is not None, reason=f"{cpu_dense.unavailable_reason()}")
SIZES: dict[str, Any] = {"netdepth": 2, "netwidth": 24, "netdepth_fine": 6, "netwidth_fine": 40, "multires": 3}
SIZES |= {"multires_views": 2, "hash_levels": 3, "hash_log2_entries": 10, "hash_coarsest": 4, "hash_finest": 24}
FIELDS = {
    "nerf": (ModelOptions(**SIZES, use_viewdirs=True), False),
    "nerf without directions": (ModelOptions(**SIZES), False),
    "hash nerf under a proposal": (ModelOptions(**SIZES, use_viewdirs=True, encoding="hash", density="softplus"), True),
}
ROW = ConditioningOptions(equilibrate="row")


def fields(kind: str, seed: int = 0) -> RadianceFields:
    model, proposal = FIELDS[kind]
    made = nerf_build.radiance_fields(model, ROW, True, seed, proposal=proposal)
    with torch.no_grad():  # so that features and densities are not constant
        for name, p in made.named_parameters():
            if name.endswith("table"):
                p.mul_(3e3)
            if name.endswith("density_head.bias"):
                p.add_(0.5)
    return made


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = 2.4 * torch.rand(30, 7, 3, generator=generator) - 1.2  # some lie outside the grid
    viewdirs = torch.randn(30, 3, generator=generator)
    return points, viewdirs / viewdirs.norm(dim=-1, keepdim=True)


def values(model: RadianceFields) -> list[Tensor]:
    with torch.no_grad():
        return [x for field in (model.coarse, model.fine) for x in vars(field(*inputs())).values()]


def gradients(model: RadianceFields) -> list[Tensor]:
    found = [model.coarse(*inputs()), model.fine(*inputs())]
    loss = sum((result.density.square().mean() + result.rgb.square().mean() for result in found), torch.zeros(()))
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True))


def inductor(precision: str) -> Backend:
    """torch.compile, which ``choose`` takes on GPUs only."""

    def bind(*args: Any) -> dense.Bound:
        return backends_inductor.bind(*args, precision=precision)

    return Backend("inductor", precision, bind, backends_inductor.encode)


# choose


def test_a_backend_by_name_is_that_one():
    for precision in ("fp32", "bf16"):
        chosen = registry.choose("torch", precision, CPU)
        assert (chosen.name, chosen.precision, str(chosen)) == ("torch", precision, f"torch, {precision}")
        assert chosen.encode is hashgrid.encode


@has_kernel
def test_the_compiled_kernels_by_name():
    chosen = registry.choose("compiled", "fp32", CPU)
    assert str(chosen) == "compiled, fp32"
    assert chosen.encode is cpu_hashgrid.encode


def refusal(name: str, precision: str = "fp32") -> str:
    with pytest.raises(InputError) as caught:
        registry.choose(name, precision, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_backend_is_an_error_with_the_option_what_was_found_and_what_is_expected(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(cpu_build, "library", lambda source: None)
    reason = "its C++ kernel could not be compiled"
    expected = "expected auto, torch or another"
    assert refusal("compiled") == f"option --backend: compiled cannot be used here: {reason}; {expected}"
    for name in ("triton", "tinycudann"):
        assert refusal(name).startswith(f"option --backend: {name} cannot be used here: ")
        assert refusal(name).endswith(expected)


@has_kernel
def test_a_precision_that_a_named_backend_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu_dense, "unavailable_reason", lambda precision="fp32": "no" if precision == "bf16" else None)
    assert "compiled cannot be used here: no" in refusal("compiled", "bf16")
    assert registry.choose("compiled", "fp32", CPU).precision == "fp32"


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16"), (False, "fp32")])
def test_automatic_precision_is_bf16_where_the_device_has_it(has: bool, expected: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(core_device, "has_bf16", lambda device: has)
    assert registry.choose("torch", "auto", CPU).precision == expected
    for precision in ("fp32", "bf16"):
        assert registry.choose("torch", precision, CPU).precision == precision


@pytest.fixture
def _fast_cpu(monkeypatch: pytest.MonkeyPatch):
    """A processor with AVX2, AVX-512 and bf16, whichever this one is."""
    monkeypatch.setattr(core_device, "cpu_flags", lambda: frozenset(("avx2", "fma", "avx512f", "avx512_bf16")))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if not line.startswith("compiling ")]


@has_kernel
@pytest.mark.usefixtures("_fast_cpu")
def test_automatic_choice_takes_the_kernel_where_it_is_right(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="enerf"):
        assert registry.choose("auto", "fp32", CPU).name == "compiled"
    assert lines(caplog) == []


@has_kernel
@pytest.mark.parametrize(("flags", "expected"), [("avx2 fma", "compiled"), ("avx2", "torch"), ("asimd", "torch")])
def test_automatic_choice_takes_the_kernel_only_where_it_is_known_to_be_fast(
    flags: str, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(core_device, "cpu_flags", lambda: frozenset(flags.split()))
    with caplog.at_level(logging.INFO, logger="enerf"):
        assert registry.choose("auto", "fp32", CPU).name == expected
    assert ["its speed was not measured" in line for line in lines(caplog)] == [True] * (expected == "torch")
    assert registry.choose("compiled", "fp32", CPU).name == "compiled"


@has_kernel
@pytest.mark.usefixtures("_fast_cpu")
@pytest.mark.parametrize("clock", ["perf_counter", "perf_counter_ns", "monotonic", "time", "process_time"])
def test_no_clock_changes_the_choice(clock: str, monkeypatch: pytest.MonkeyPatch):
    expected = str(registry.choose("auto", "auto", CPU))
    jumps = itertools.cycle([0, 10**9, 5, 10**6, -(10**9)])
    monkeypatch.setattr(time, clock, lambda: next(jumps))
    assert {str(registry.choose("auto", "auto", CPU)) for _ in range(5)} == {expected}


def _bind(act: Callable[[Tensor], Tensor]) -> Callable[..., dense.Bound]:
    """The reference implementation, with something done to its outputs."""

    def bind(
        network: dense.Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str
    ) -> dense.Bound:
        reference = dense.bind(network, weights, biases, precision)
        return lambda inputs: tuple(act(out) for out in reference(inputs))

    return bind


def _raise(out: Tensor) -> Tensor:
    raise OSError("illegal instruction\nand a long story")


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a wrong value": (
        lambda out: out + 0.1 * (torch.arange(len(out)) == 77)[:, None],
        "differs from the reference implementation by",
    ),
    "not a number": (lambda out: out * float("nan"), "differs from the reference implementation by nan"),
    "no gradient": (lambda out: out.detach() + 0 * out, "differs from the reference implementation by"),
    "an error": (_raise, "illegal instruction"),
}


@pytest.mark.usefixtures("_fast_cpu")
@pytest.mark.parametrize("fault", FAULTS)
def test_automatic_choice_falls_back_with_one_line(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    act, reason = FAULTS[fault]
    monkeypatch.setattr(cpu_dense, "unavailable_reason", lambda precision="fp32": None)
    monkeypatch.setattr(cpu_dense, "bind", _bind(act))
    with caplog.at_level(logging.INFO, logger="enerf"):
        chosen = registry.choose("auto", "fp32", CPU)
    assert str(chosen) == "torch, fp32"
    assert chosen.encode is hashgrid.encode
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("backend compiled is not used: ")
    assert reason in line
    assert "\n" not in line


@pytest.mark.usefixtures("_fast_cpu")
def test_a_missing_kernel_is_one_line_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(cpu_build, "library", lambda source: None)
    with caplog.at_level(logging.INFO, logger="enerf"):
        assert registry.choose("auto", "fp32", CPU).name == "torch"
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["backend compiled is not used: its C++ kernel could not be compiled"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_implementation_passes_its_own_self_test(precision: str):
    assert registry.self_test(registry.make("torch", precision, CPU), CPU) is None


# a recorded choice

COMPILED = Resolved("compiled", "fp32", "cpu")


@has_kernel
@pytest.mark.parametrize(
    "recorded", [Resolved("torch", "fp32", "cpu"), Resolved("torch", "bf16", "cpu"), COMPILED, Resolved("torch")]
)
@pytest.mark.usefixtures("_fast_cpu")
def test_what_is_recorded_is_taken_again_without_a_line(recorded: Resolved, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="enerf"):
        chosen = registry.choose("auto", "auto", CPU, recorded)
    assert not recorded.differs(Resolved(chosen.name, chosen.precision, "cpu"))
    assert chosen.precision == (recorded.precision if recorded.precision != "auto" else "bf16")
    assert lines(caplog) == []


@has_kernel
def test_a_recorded_kernel_is_taken_again_by_processors_it_is_not_known_to_be_fast_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(core_device, "cpu_flags", frozenset)
    assert registry.choose("auto", "auto", CPU, COMPILED).name == "compiled"


REPLACED: dict[str, tuple[Resolved, str]] = {
    "no compiler": (
        COMPILED,
        "this run was trained with compiled, fp32; now torch, fp32 is used: its C++ kernel could not be compiled",
    ),
    "no bf16": (
        Resolved("torch", "bf16", "cpu"),
        "this run was trained with torch, bf16; now torch, fp32 is used: this processor has no bf16 instructions",
    ),
    "no GPU": (
        Resolved("triton", "fp32", "cuda"),
        "this run was trained with triton, fp32 on cuda; now torch, fp32 on cpu is used: the device is cpu, not cuda",
    ),
}


@pytest.mark.parametrize("case", REPLACED)
def test_what_cannot_be_taken_again_is_one_line(
    case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    recorded, line = REPLACED[case]
    monkeypatch.setattr(cpu_build, "library", lambda source: None)
    monkeypatch.setattr(core_device, "cpu_flags", frozenset)
    with caplog.at_level(logging.WARNING, logger="enerf"):
        registry.choose("auto", "auto", CPU, recorded)
    assert caplog.messages == [line]


def test_an_option_wins_over_the_record_with_a_warning(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="enerf"):
        assert str(registry.choose("torch", "fp32", CPU, COMPILED)) == "torch, fp32"
        assert str(registry.choose("torch", "fp32", CPU, Resolved("torch", "fp32", "cpu"))) == "torch, fp32"
    assert caplog.messages == [
        "this run was trained with compiled, fp32; now torch, fp32 is used: the options say so",
    ]


def test_a_record_of_things_unheard_of_is_unknown():
    assert Resolved.of({"backend": "abacus", "precision": None, "device": "cpu"}) == Resolved(device="cpu")


def test_choosing_draws_no_global_random_numbers():
    before = torch.get_rng_state()
    registry.choose("auto", "fp32", CPU)
    assert torch.equal(torch.get_rng_state(), before)


# use


@pytest.mark.parametrize("kind", FIELDS)
def test_every_network_and_grid_gets_the_backend(kind: str):
    model = nn.ModuleDict({"deep": nn.Sequential(fields(kind))})
    backend = inductor("fp32")  # nothing is compiled before it is called
    registry.use(model, backend)
    networks = [m for m in model.modules() if isinstance(m, NetworkModule)]
    grids = [m for m in model.modules() if isinstance(m, HashEncoding)]
    assert len(networks) == 2
    assert len(grids) == (2 if "hash" in kind else 0)
    assert all(m.bind is backend.bind for m in networks)
    assert all(m.encode is backend.encode for m in grids)


# what no choice changes

BACKENDS = [
    pytest.param(lambda: registry.make("torch", "fp32", CPU), id="torch"),
    pytest.param(lambda: registry.make("compiled", "fp32", CPU), id="compiled", marks=has_kernel),
    pytest.param(lambda: inductor("fp32"), id="inductor", marks=without_checks),
]


@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("kind", FIELDS)
def test_every_backend_computes_the_same_field(kind: str, make: Callable[[], Backend]):
    model, other = fields(kind), fields(kind)
    registry.use(other, make())
    for a, b in zip(values(other), values(model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(gradients(other), gradients(model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * max(1.0, float(b.abs().max())))
    assert all(g.abs().max() > 0 for g in gradients(other))


@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("kind", FIELDS)
def test_a_checkpoint_made_with_one_backend_is_one_for_every_other(kind: str, make: Callable[[], Backend]):
    ours, theirs = fields(kind), fields(kind, seed=9)
    registry.use(ours, make())
    before = values(ours)
    assert not all(torch.allclose(a, b, atol=1e-3) for a, b in zip(values(theirs), before, strict=True))
    theirs.load_state_dict(ours.state_dict())
    for a, b in zip(values(theirs), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["torch", pytest.param("compiled", marks=has_kernel)])
@pytest.mark.parametrize("kind", FIELDS)
def test_bf16_is_the_same_field_to_two_digits(kind: str, name: str):
    if reason := registry.unavailable_reason(name, "bf16", CPU):
        pytest.skip(reason)
    model, other = fields(kind), fields(kind)
    registry.use(other, registry.make(name, "bf16", CPU))
    for a, b in zip(values(other), values(model), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 2e-2 * b.norm()


@pytest.mark.slow
@pytest.mark.skipif(
    backends_inductor.unavailable_reason() is not None, reason=f"{backends_inductor.unavailable_reason()}"
)
def test_the_tests_of_torch_compile_pass_in_a_process_without_checks_of_shapes():
    here = Path(__file__).resolve()
    command = [sys.executable, "-m", "pytest", "-q", "-k", "inductor", "-p", "no:cacheprovider", str(here)]
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    ran = subprocess.run(
        command, cwd=here.parents[3], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert "6 passed" in ran.stdout
