"""Tests of dense networks: the reference against a loop over neurons, and the compiled kernel against the reference."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core import cpu_build
from enerf.fields.backends import cpu_dense, dense
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.nerf import nerf_network

ROWS = [0, 1, 7, 8, 97, 1000]
light = settings(max_examples=60, deadline=None)
compiled = pytest.mark.skipif(cpu_dense.unavailable_reason() is not None, reason=f"{cpu_dense.unavailable_reason()}")
bf16 = pytest.mark.skipif(
    cpu_dense.unavailable_reason("bf16") is not None, reason=f"bf16: {cpu_dense.unavailable_reason('bf16')}"
)


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Case:
    """A network with weights, inputs and cotangents drawn from a seed, all exact in float32."""

    def __init__(self, network: Network, n: int, repeats: tuple[int, ...] | None = None, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.network, self.n = network, n
        wide = [sum(network.widths[s] for s in layer.sources) for layer in network.layers]
        self.weights = [drawn(layer.width, w) * (2 / w) ** 0.5 for layer, w in zip(network.layers, wide, strict=True)]
        self.biases = [0.3 * drawn(layer.width) for layer in network.layers]
        repeats = repeats or (1,) * len(network.inputs)
        self.inputs = [drawn(n // r, w) for w, r in zip(network.inputs, repeats, strict=True)]
        self.cotangents = [drawn(n, network.widths[s]) for s in network.outputs]

    def outputs(self, bind=dense.bind, precision: str = "fp32", dtype: torch.dtype = torch.float32) -> list[Tensor]:
        weights, biases, inputs = ([x.to(dtype) for x in xs] for xs in (self.weights, self.biases, self.inputs))
        with torch.no_grad():
            return list(bind(self.network, weights, biases, precision=precision)(inputs))

    def everything(self, bind=dense.bind, precision: str = "fp32", dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Outputs, then gradients of weights, biases and inputs; zeros where none comes."""
        trained = [x.to(dtype).requires_grad_() for x in (*self.weights, *self.biases, *self.inputs)]
        k = len(self.weights)
        outs = bind(self.network, trained[:k], trained[k : 2 * k], precision=precision)(trained[2 * k :])
        cotangents = [c.to(dtype) for c in self.cotangents]
        grads = torch.autograd.grad(outs, trained, cotangents, allow_unused=True, materialize_grads=True)
        return [*(out.detach() for out in outs), *grads]


class _Rounded(torch.autograd.Function):
    """To bf16 and back, the value on its way forward, the gradient on its way backward, each if requested."""

    @staticmethod
    def forward(ctx, x: Tensor, there: bool, back: bool) -> Tensor:
        ctx.back = back
        return x.bfloat16().to(x.dtype) if there else x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.bfloat16().to(grad.dtype) if ctx.back else grad, None, None


def kernel_in_float64(network: Network, weights, biases, precision: str) -> dense.Bound:
    """The kernel in bf16 with exact sums: only factors, buffers and gradients of buffers are rounded."""

    def run(inputs) -> tuple[Tensor, ...]:
        buffers = [_Rounded.apply(x, True, False) for x in dense.repeat_rows(inputs)]
        for i, (layer, weight, bias) in enumerate(zip(network.layers, weights, biases, strict=True)):
            sources: list[Tensor] = []
            for s in reversed(layer.sources):  # a buffer's gradient is added up reader by reader, the last layer first
                buffers[s] = _Rounded.apply(buffers[s], False, s >= len(network.inputs))
                sources.insert(0, buffers[s])
            x = torch.cat(sources, -1)
            z = torch.nn.functional.linear(x, _Rounded.apply(weight, True, False), bias)
            is_output = len(network.inputs) + i in network.outputs
            buffers.append(_Rounded.apply(torch.relu(z) if layer.relu else z, not is_output, is_output))
        return tuple(buffers[s] for s in network.outputs)

    return run


# input widths, layers, outputs, points, repeats, seed: plain values, as the shape checks draw random numbers themselves
Made = tuple[tuple[int, ...], list[tuple[tuple[int, ...], int, bool]], tuple[int, ...], int, tuple[int, ...], int]


@st.composite
def cases(draw: st.DrawFn) -> Made:
    """Networks of up to six layers; a buffer may be read by several of them, or by one twice; rays share input rows."""
    n = draw(st.sampled_from(ROWS))
    inputs = tuple(draw(st.lists(st.integers(1, 70), min_size=1, max_size=2)))
    repeats = [draw(st.sampled_from([r for r in (1, 4, 7, 97, 1000) if n and n % r == 0] or [1])) for _ in inputs]
    repeats[0] = 1
    layers: list[tuple[tuple[int, ...], int, bool]] = []
    hidden = list(range(len(inputs)))  # buffers that a layer may read
    outputs: list[int] = []
    count = draw(st.integers(1, 6))
    for i in range(count):
        latest = hidden[-1]
        sources = (latest, draw(st.sampled_from(hidden))) if draw(st.booleans()) else (draw(st.sampled_from(hidden)),)
        is_output = i == count - 1 or draw(st.integers(0, 3)) == 0
        layers.append((sources, draw(st.integers(1, 70)), not is_output and draw(st.booleans())))
        (outputs if is_output else hidden).append(len(inputs) + i)
    return inputs, layers, tuple(outputs), n, tuple(repeats), draw(st.integers(0, 2**31))


def case_of(made: Made) -> Case:
    inputs, layers, outputs, *rest = made
    return Case(Network(inputs, tuple(Layer(*layer) for layer in layers), outputs), *rest)


SKIPS = Network((3, 2), (Layer((0,), 4, True), Layer((2, 1), 5, False), Layer((3, 0), 3, True), Layer((4, 2), 2, False),
                         Layer((3,), 1, False)), (6, 5))  # fmt: skip


# the reference


def _slow(case: Case) -> list[list[list[float]]]:
    """Outputs by a loop over points, layers and neurons."""
    network, found = case.network, [[] for _ in case.network.outputs]
    for point in range(case.n):
        buffers = [x[point * len(x) // case.n].tolist() for x in case.inputs]
        for layer, weight, bias in zip(network.layers, case.weights, case.biases, strict=True):
            sources = [value for s in layer.sources for value in buffers[s]]
            values = [
                b + sum(w * v for w, v in zip(row, sources, strict=True))
                for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
            ]
            buffers.append([max(0.0, v) for v in values] if layer.relu else values)
        for i, buffer in enumerate(network.outputs):
            found[i].append(buffers[buffer])
    return found


@pytest.mark.parametrize("repeats", [(1, 1), (1, 3), (6, 1), (1, 6)])
def test_the_reference_computes_what_a_loop_over_neurons_does(repeats: tuple[int, int]):
    case = Case(SKIPS, 6, repeats)
    for out, slow in zip(case.outputs(dtype=torch.float64), _slow(case), strict=True):
        torch.testing.assert_close(out, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-13)


def test_the_reference_is_differentiable_in_weights_biases_and_inputs():
    case = Case(SKIPS, 6, (1, 3))
    trained = [x.double().requires_grad_() for x in (*case.weights, *case.biases, *case.inputs)]

    def outputs(*x: Tensor) -> tuple[Tensor, ...]:
        return dense.bind(SKIPS, x[:5], x[5:10])(x[10:])

    assert torch.autograd.gradcheck(outputs, trained)


def test_in_bf16_the_reference_rounds_factors_and_returns_float32():
    case = Case(SKIPS, 6)
    exact, low = case.outputs(dtype=torch.float64), case.outputs(precision="bf16")
    for a, b in zip(low, exact, strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < (a - b).norm() / b.norm() < 2e-2


def test_widths_and_products_are_counted():
    assert SKIPS.widths == (3, 2, 4, 5, 3, 2, 1)
    assert SKIPS.products == sum(w.numel() for w in Case(SKIPS, 1).weights)
    published = nerf_network(63, 27, 256, 8)
    assert published.products == 595_844 - sum(layer.width for layer in published.layers)  # without biases


# the compiled kernel


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm()) if exact.numel() else 0.0


@compiled
@given(made=cases())
@light
def test_the_kernel_is_as_exact_as_torch(made: Made):
    case = case_of(made)
    exact, ours = case.everything(dtype=torch.float64), case.everything(cpu_dense.bind)
    for a, b, reference in zip(ours, exact, case.everything(), strict=True):
        assert a.dtype == torch.float32
        assert a.shape == b.shape
        # sums over n points may nearly cancel: partial sums of about sqrt(n), each rounded, leave about n eps / 2
        allowed = 1e-6 * (float(b.norm()) + case.n**0.5) + torch.finfo(torch.float32).eps * case.n
        assert error(a, b) <= 4 * error(reference, b) + allowed
    for a, b in zip(case.outputs(cpu_dense.bind), ours, strict=False):
        assert torch.equal(a, b)  # with gradients or without


@compiled
@bf16
@given(made=cases())
@light
def test_in_bf16_the_kernel_rounds_factors_buffers_and_their_gradients_and_nothing_else(made: Made):
    case = case_of(made)
    exact = case.everything(kernel_in_float64, dtype=torch.float64)
    for a, b in zip(case.everything(cpu_dense.bind, "bf16"), exact, strict=True):
        assert a.dtype == torch.float32
        assert error(a, b) <= 1e-2 * float(b.norm())


@compiled
@bf16
@pytest.mark.parametrize("seed", range(4))
def test_in_bf16_nerfs_network_is_no_less_exact_than_by_torch(seed: int):
    case = Case(nerf_network(63, 27, 64, 8), 960, (1, 32), seed)
    exact = case.everything(dtype=torch.float64)
    ours, reference = case.everything(cpu_dense.bind, "bf16"), case.everything(precision="bf16")
    for a, b, c in zip(ours, reference, exact, strict=True):
        assert error(a, c) <= 2 * error(b, c)
    assert sum(error(a, c) for a, c in zip(ours, exact, strict=True)) <= 1.2 * sum(
        error(b, c) for b, c in zip(reference, exact, strict=True)
    )


PRECISIONS = [pytest.param("fp32", marks=compiled), pytest.param("bf16", marks=bf16)]
precisions = pytest.mark.parametrize("precision", PRECISIONS)
NERF = nerf_network(15, 9, 40, 6)


@precisions
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("threads")
def test_with_the_same_threads_it_repeats_bit_for_bit(precision: str, count: int):
    torch.set_num_threads(count)
    case = Case(NERF, 1000, (1, 8))
    first = case.everything(cpu_dense.bind, precision)
    for _ in range(3):
        assert all(map(torch.equal, case.everything(cpu_dense.bind, precision), first))


@precisions
@pytest.mark.usefixtures("threads")
def test_outputs_and_gradients_of_inputs_do_not_depend_on_threads(precision: str):
    case, found = Case(NERF, 1000, (1, 8)), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(case.everything(cpu_dense.bind, precision))
    k = len(NERF.layers)
    for again in found[1:]:
        assert all(map(torch.equal, again[:2], found[0][:2]))
        assert all(
            map(torch.equal, again[2 + 2 * k :][:1], found[0][2 + 2 * k :][:1])
        )  # of the input that is not shared
        for a, b in zip(again, found[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))


@precisions
def test_a_point_has_its_output_whatever_points_are_beside_it(precision: str):
    case = Case(NERF, 104, (1, 8))
    run = cpu_dense.bind(NERF, case.weights, case.biases, precision)
    whole = run(case.inputs)
    for n in (8, 40):
        part = run([case.inputs[0][:n], case.inputs[1][: n // 8]])
        assert all(torch.equal(a, b[:n]) for a, b in zip(part, whole, strict=True))


@precisions
def test_shared_rows_are_as_good_as_repeated_ones(precision: str):
    case = Case(NERF, 96, (1, 8))
    run = cpu_dense.bind(NERF, case.weights, case.biases, precision)
    repeated = run([case.inputs[0], case.inputs[1].repeat_interleave(8, 0)])
    assert all(map(torch.equal, run(case.inputs), repeated))


@precisions
def test_the_weights_are_those_of_when_it_was_bound(precision: str):
    case = Case(NERF, 24)
    run = cpu_dense.bind(NERF, case.weights, case.biases, precision)
    before = run(case.inputs)
    for x in (*case.weights, *case.biases):
        x.mul_(1.5)
    after, again = run(case.inputs), cpu_dense.bind(NERF, case.weights, case.biases, precision)(case.inputs)
    assert all(map(torch.equal, before, after))
    assert not any(map(torch.equal, before, again))
    assert all(map(torch.equal, again, case.outputs(cpu_dense.bind, precision)))


@precisions
def test_inputs_and_weights_may_lie_in_memory_as_they_like(precision: str):
    # Fails: _Evaluate.backward hands the kernel pointers to contiguous copies of the gradients that
    # are freed by then (dense_compiled.py, the list inside _pointers([g.float().contiguous() for g in grads])).
    case = Case(NERF, 24)
    plain = case.everything(cpu_dense.bind, precision)
    case.weights = [w.T.contiguous().T for w in case.weights]
    case.inputs = [torch.cat([x, x], 1)[:, : x.shape[1]] for x in case.inputs]
    case.cotangents = [c.T.contiguous().T for c in case.cotangents]
    assert all(map(torch.equal, case.everything(cpu_dense.bind, precision), plain))


@precisions
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("network", [SKIPS, NERF], ids=["skips", "nerf"])
def test_what_is_not_finite_in_an_input_is_not_finite_where_it_is_by_torch(
    precision: str, value: float, network: Network
):
    # Fails for nan: cpu_dense.cpp's ReLU (sums > 0 ? sums : 0) makes it 0, where torch's keeps it.
    case = Case(network, 16)
    case.inputs[0][3, 1] = value
    ours, reference = case.outputs(cpu_dense.bind, precision), case.outputs(precision=precision)
    for a, b in zip(ours, reference, strict=True):
        assert torch.equal(a.isfinite(), b.isfinite())
        assert b.isfinite().sum() == 15 * b.shape[1]


@precisions
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layer", [0, 2, 5])
def test_what_is_not_finite_in_a_weight_propagates(precision: str, value: float, layer: int):
    # Fails for nan, as above: a network whose weights diverged would look finite, and train on.
    case = Case(NERF, 16)
    case.weights[layer][2, 1] = value
    ours, reference = case.outputs(cpu_dense.bind, precision), case.outputs(precision=precision)
    assert all(torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(ours, reference, strict=True))


@precisions
def test_gradients_come_only_where_they_are_required(precision: str):
    case = Case(NERF, 16)
    case.weights[1].requires_grad_()
    case.biases[3].requires_grad_()
    case.inputs[1].requires_grad_()
    run = cpu_dense.bind(NERF, case.weights, case.biases, precision)
    with torch.no_grad():
        assert not run(case.inputs)[0].requires_grad
    torch.autograd.backward(run(case.inputs), case.cotangents)
    everything = [*case.weights, *case.biases, *case.inputs]
    assert [x.grad is not None for x in everything] == [x.requires_grad for x in everything]
    full = Case(NERF, 16).everything(cpu_dense.bind, precision)[2:]
    for x, exact in zip(everything, full, strict=True):
        assert x.grad is None or torch.equal(x.grad, exact)


@precisions
def test_one_output_alone_may_carry_the_gradient(precision: str):
    # The gradient of a sum is an expanded number: the kernel must not read a copy of it that is gone already.
    case = Case(NERF, 16)
    grads = []
    reference = dense.bind if precision == "fp32" else kernel_in_float64
    for bind, dtype in (
        (reference, torch.float64),
        (cpu_dense.bind, torch.float32),
    ):
        weights = [x.detach().to(dtype).requires_grad_() for x in case.weights]
        run = bind(NERF, weights, [x.to(dtype) for x in case.biases], precision=precision)
        density, _ = run([x.to(dtype) for x in case.inputs])
        grads.append(torch.autograd.grad(density.sum(), weights, allow_unused=True, materialize_grads=True))
    for a, b in zip(*grads, strict=True):
        assert error(b, a) <= (1e-5 if precision == "fp32" else 1e-2) * float(a.norm())
    assert not any(g.any() for g in grads[1][-3:])  # of the layers that color alone goes through


def test_without_a_compiler_there_is_a_reason_and_no_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu_build, "library", lambda source: None)
    for precision in ("fp32", "bf16"):
        assert cpu_dense.unavailable_reason(precision) == "its C++ kernel could not be compiled"
        case = Case(SKIPS, 4)
        with pytest.raises(RuntimeError, match=f"cannot be used in {precision}: its C.. kernel could not be compiled"):
            cpu_dense.bind(SKIPS, case.weights, case.biases, precision)


@compiled
def test_without_bf16_instructions_only_bf16_is_refused(monkeypatch: pytest.MonkeyPatch):
    library = cpu_build.library(cpu_dense.SOURCE)

    class Old:
        def __getattr__(self, name: str) -> object:
            return (lambda: 0) if name == "dense_has_bf16" else getattr(library, name)

    monkeypatch.setattr(cpu_build, "library", lambda source: Old())
    assert cpu_dense.unavailable_reason("fp32") is None
    assert "no bf16 products" in str(cpu_dense.unavailable_reason("bf16"))
    with pytest.raises(RuntimeError, match="cannot be used in bf16: this processor has no bf16"):
        Case(SKIPS, 4).outputs(cpu_dense.bind, "bf16")
