"""Tests of the Triton backend of dense networks against the reference: on a GPU, or in Triton's interpreter.

The interpreter must be enabled before Triton is first imported, so its tests run in a separate process.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from enerf.fields.backends import dense, triton_dense, triton_kernels
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.backends.triton_plan import Plan, numbers
from tests.fields.backends import kernel_compiler

HERE = Path(__file__).resolve()
INTERPRETED = triton_kernels.interpreted()
DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")

requires_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="needs triton, and a GPU or the interpreter (which another test of this file starts)",
)


def nerf(width: int, points: int = 63, views: int = 27) -> Network:
    """NeRF's 8 layers with the skip at layer 5, its heads, and its viewing directions."""
    trunk = [Layer((0, 6) if i == 5 else (i + 1 if i else 0,), width, True) for i in range(8)]
    heads = [Layer((9,), 1, False), Layer((9,), width, False), Layer((11, 1), width // 2, True), Layer((12,), 3, False)]
    return Network((points, views), (*trunk, *heads), (10, 13))


NETWORKS = {
    "nerf of 32": (nerf(32, 15, 9), 132, (1, 6)),
    "nerf of 256": (nerf(256), 36, (1, 4)),
    "nerf of 64": (nerf(64), 30, (1, 1)),
    "one layer": (Network((5,), (Layer((0,), 3, False),), (1,)), 7, (1,)),
    "hidden buffers that skip layers": (
        Network((20, 3), (Layer((1, 0), 24, True), Layer((2,), 40, False), Layer((3, 2, 1), 17, True),
                          Layer((4, 2), 5, False)), (5,)), 40, (1, 40)),
    "wider than a tile": (Network((3,), (Layer((0,), 300, True), Layer((1,), 2, False)), (2,)), 33, (1,)),
}  # fmt: skip


def _case(name: str) -> tuple[Network, list[Tensor], list[Tensor], list[Tensor]]:
    network, n, repeats = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    wide = [sum(network.widths[s] for s in layer.sources) for layer in network.layers]
    scales = [(2 / w) ** 0.5 for w in wide]
    shapes = [(layer.width, w) for layer, w in zip(network.layers, wide, strict=True)]
    weights = [torch.randn(s, generator=generator) * k for s, k in zip(shapes, scales, strict=True)]
    biases = [torch.randn(layer.width, generator=generator) * 0.3 for layer in network.layers]
    pairs = zip(network.inputs, repeats, strict=True)
    return network, [torch.randn(n // r, w, generator=generator) for w, r in pairs], weights, biases


Values = tuple[list[Tensor], list[Tensor]]


def _both(
    bind: object, name: str, precision: str, dtype: torch.dtype = torch.float32, needs_inputs: bool = True
) -> Values:
    """Outputs, and the gradients of a fixed linear function of them: inputs, weights, biases."""
    network, inputs, weights, biases = _case(name)
    tensors = [t.to(DEVICE, dtype) for t in (*inputs, *weights, *biases)]
    leaves = [t.requires_grad_(needs_inputs or i >= len(inputs)) for i, t in enumerate(tensors)]
    first, second = len(inputs), len(inputs) + len(weights)
    outs = bind(network, leaves[first:second], leaves[second:], precision)(leaves[:first])  # type: ignore[operator]
    generator = torch.Generator().manual_seed(1)
    total = sum((o * torch.randn(o.shape, generator=generator).to(o)).sum() for o in outs)
    wanted = [t for t in leaves if t.requires_grad]
    return [o.detach() for o in outs], list(torch.autograd.grad(total, wanted))


def _error(result: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """Largest relative error in the 2-norm."""
    return max(float((s - t).norm() / (t.norm() + 1e-6)) for s, t in zip(result, true, strict=True))


def _whole(values: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat([v.flatten() for v in values])]


@requires_triton
@pytest.mark.parametrize("name", NETWORKS)
def test_in_fp32_values_and_all_gradients_are_those_of_the_reference(name: str):
    result, grads = _both(triton_dense.bind, name, "fp32")
    true, true_grads = _both(dense.bind, name, "fp32", torch.float64)
    assert [o.dtype for o in result] == [torch.float32] * len(true)
    assert [o.shape for o in result] == [o.shape for o in true]
    assert _error(result, true) < 1e-5
    assert _error(grads, true_grads) < 1e-5


@requires_triton
@pytest.mark.parametrize("name", NETWORKS)
def test_in_bf16_it_is_as_near_the_truth_as_the_reference_in_bf16(name: str):
    result, grads = _both(triton_dense.bind, name, "bf16")
    reference, reference_grads = _both(dense.bind, name, "bf16")
    true, true_grads = _both(dense.bind, name, "fp32", torch.float64)
    room = 4  # the interpreter cuts where bf16 should round
    assert 0 < _error(result, true) < room * _error(reference, true)
    assert 0 < _error(_whole(grads), _whole(true_grads)) < room * _error(_whole(reference_grads), _whole(true_grads))


@requires_triton
def test_inputs_that_need_no_gradient_get_none_and_change_no_other():
    some, all_of_them = (_both(triton_dense.bind, "nerf of 32", "fp32", needs_inputs=n)[1] for n in (False, True))
    assert len(all_of_them) == len(some) + 2
    assert all(torch.equal(a, b) for a, b in zip(some, all_of_them[2:], strict=True))


@requires_triton
@pytest.mark.parametrize("n", [0, 1, 128, 600])
def test_without_gradients_any_number_of_points_gives_the_same_values(n: int):
    network, _, weights, biases = _case("nerf of 32")
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(n, width, generator=generator).to(DEVICE) for width in network.inputs]
    parameters = [[t.to(DEVICE).requires_grad_() for t in group] for group in (weights, biases)]
    bound = triton_dense.bind(network, *parameters, "bf16")
    with torch.no_grad():
        short = bound(inputs)
    assert not any(o.requires_grad for o in short)
    kept = bound(inputs)
    assert all(torch.equal(a, b) for a, b in zip(short, kept, strict=True))
    torch.autograd.backward([o.sum() for o in kept])
    assert all(t.grad is not None and t.grad.isfinite().all() for group in parameters for t in group)


@requires_triton
def test_tensors_that_the_kernel_cannot_read_are_refused():
    network, inputs, weights, biases = _case("one layer")
    with pytest.raises(TypeError, match="float32"):
        triton_dense.bind(network, [w.double().to(DEVICE) for w in weights], biases)
    with pytest.raises(ValueError, match="layer 0"):
        triton_dense.bind(network, [w[:, 1:].to(DEVICE) for w in weights], biases)
    network, inputs, weights, biases = ([*x] if isinstance(x, list) else x for x in _case("nerf of 32"))
    bound = triton_dense.bind(network, [w.to(DEVICE) for w in weights], [b.to(DEVICE) for b in biases])
    with pytest.raises(ValueError, match="divide"):
        bound([inputs[0].to(DEVICE), inputs[1][:7].to(DEVICE)])
    with pytest.raises(TypeError, match="float32"):
        bound([x.double().to(DEVICE) for x in inputs])


@requires_triton
def test_a_second_derivative_is_refused():
    network, inputs, weights, biases = _case("one layer")
    inputs, weights, biases = ([x.to(DEVICE).requires_grad_() for x in xs] for xs in (inputs, weights, biases))
    (out,) = triton_dense.bind(network, weights, biases, "fp32")(inputs)
    (slope,) = torch.autograd.grad(out.sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="a second derivative of a network, encoding or rendering was needed"):
        torch.autograd.grad(slope.sum(), weights)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_buffer_that_is_still_to_be_read_is_never_overwritten(name: str, dtype: torch.dtype):
    network = NETWORKS[name][0]
    steps, end = Plan(network, dtype).forward(train=False)
    holds: dict[int, int] = {}
    for buffer, step in enumerate(steps):
        for column in range(step.column, step.column + step.padded):
            assert column < end
        if buffer >= len(network.inputs):
            layer = network.layers[buffer - len(network.inputs)]
            for source, term in zip(layer.sources, step.terms, strict=True):
                assert term.fresh or {holds[c] for c in range(term.source, term.source + term.length)} == {source}
        if step.keep:
            holds.update(dict.fromkeys(range(step.column, step.column + step.padded), buffer))


def test_a_reason_is_one_line_that_says_what_works_without_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = triton_dense.unavailable_reason()
    assert reason == "triton is not installed: pip install triton; the torch backend works without it"
    network, _, weights, biases = _case("one layer")
    with pytest.raises(RuntimeError, match="pip install triton"):
        triton_dense.bind(network, weights, biases)


def test_importing_the_backend_imports_no_triton():
    code = (
        "import sys; from enerf.fields.backends import triton_dense, triton_hashgrid; "
        "print('triton.language' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


FLOATS = ("*fp32", "*fp32")
NARROW = Network((63, 27), (Layer((0,), 64, True), Layer((2,), 256, True), Layer((3, 1), 3, False)), (4,))


@kernel_compiler.requires_compiler
@pytest.mark.parametrize("train", [True, False])
def test_the_chain_compiles_for_a_gpu_that_need_not_be_there(train: bool, tmp_path: Path):
    plan = Plan(NARROW, torch.bfloat16)
    steps, columns = plan.forward(True) if train else plan.backward((True, True))
    known = dict(zip(("STEPS", "TERMS"), numbers(steps), strict=True))
    known |= {"COLUMNS": columns, "SAVED": plan.column[-1], "ROWS": plan.rows, "DEEP": plan.deep, "BY_BLOCK": True}
    known["FACTORS"] = triton_kernels.factors(plan.dtype)
    kinds = dict.fromkeys(("work", "saved", "weights"), "*bf16") | dict.fromkeys(("n", "blocks"), "i32")
    kinds |= {"reads": FLOATS, "writes": FLOATS, "repeats": ("i32", "i32"), "biases": "*fp32", "sums": "*fp32"}
    made = kernel_compiler.compiled("chain", kinds, known, plan.warps, tmp_path)
    assert "wgmma" in made.asm["ptx"]  # the tensor cores are used
    assert made.metadata.shared <= 227 * 1024


@kernel_compiler.requires_compiler
def test_the_gradient_of_weights_compiles_for_a_gpu_that_need_not_be_there(tmp_path: Path):
    plan = Plan(NARROW, torch.bfloat16)
    wide, deep = plan.padded[3], plan.padded[2]
    known = {"Z_COLUMNS": plan.z_column[-1], "X_COLUMNS": plan.column[-1], "OUT": wide, "IN": deep}
    known |= {"TILE_OUT": min(wide, plan.tile), "TILE_IN": min(deep, plan.tile), "ROWS": plan.rows}
    known["FACTORS"] = triton_kernels.factors(plan.dtype)
    kinds = {"dz": "*bf16", "x": "*bf16", "out": "*fp32", "z_at": "i32", "x_at": "i32", "blocks": "i32"}
    made = kernel_compiler.compiled("outer", kinds, known, plan.warps, tmp_path)
    assert "wgmma" in made.asm["ptx"]
    assert made.metadata.shared <= 227 * 1024


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_the_tests_pass_in_tritons_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=HERE.parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
