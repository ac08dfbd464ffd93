"""What Python passes to the C++ kernels: mistakes are refused before memory is read, and lack of memory is an error."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core import cpu_build
from enerf.core.device import is_out_of_memory
from enerf.fields.backends import cpu_amx, cpu_dense, cpu_hashgrid, dense, hashgrid
from enerf.fields.backends.dense import Layer, Network

pytestmark = pytest.mark.skipif(cpu_dense.unavailable_reason() is not None, reason=f"{cpu_dense.unavailable_reason()}")
SHARED = Network((3, 2), (Layer((0,), 4, True), Layer((2, 1), 5, False)), (3,))


def parameters(network: Network) -> tuple[list[Tensor], list[Tensor]]:
    wide = [sum(network.widths[s] for s in layer.sources) for layer in network.layers]
    weights = [torch.randn(layer.width, w) for layer, w in zip(network.layers, wide, strict=True)]
    return weights, [torch.randn(layer.width) for layer in network.layers]


def run(*inputs: Tensor) -> tuple[Tensor, ...]:
    return cpu_dense.bind(SHARED, *parameters(SHARED))(inputs)


@pytest.mark.parametrize(
    ("inputs", "error", "sentence"),
    [
        ((torch.ones(5, 3), torch.ones(2, 2)), ValueError, r"inputs of \[5, 2\] rows: each must divide the largest"),
        ((torch.ones(5, 3), torch.ones(0, 2)), ValueError, r"inputs of \[5, 0\] rows"),
        ((torch.ones(0, 3), torch.ones(4, 2)), ValueError, r"inputs of \[0, 4\] rows"),
        ((torch.ones(5, 2), torch.ones(5, 2)), ValueError, r"expected \(rows, width\) of widths \[3, 2\]"),
        ((torch.ones(5, 4), torch.ones(5, 2)), ValueError, r"expected \(rows, width\) of widths \[3, 2\]"),
        ((torch.ones(15), torch.ones(5, 2)), ValueError, r"expected \(rows, width\)"),
        ((torch.ones(5, 3),), ValueError, r"expected \(rows, width\)"),
        ((torch.ones(5, 3),) * 3, ValueError, r"expected \(rows, width\)"),
        ((torch.ones(5, 3, device="meta"), torch.ones(5, 2)), ValueError, "inputs on meta; expected cpu"),
        ((torch.ones(5, 3, dtype=torch.cfloat), torch.ones(5, 2)), TypeError, "inputs of torch.complex64; expected"),
        ((torch.ones(5, 3, dtype=torch.long), torch.ones(5, 2)), TypeError, "inputs of torch.int64"),
    ],
)
def test_inputs_that_do_not_match_are_refused(inputs: tuple[Tensor, ...], error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        run(*inputs)


def test_the_reference_refuses_rows_that_cannot_be_shared_too():
    with pytest.raises(ValueError, match=r"inputs of \[5, 2\] rows"):
        dense.bind(SHARED, *parameters(SHARED))([torch.ones(5, 3), torch.ones(2, 2)])


def _without_last(weights: list[Tensor], biases: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return weights[:-1], biases[:-1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w, b: ([w[0][:, :2], w[1]], b), r"layer 0: weight \(4, 2\) and bias \(4,\) for \(4, 3\)"),
        (lambda w, b: (w, [b[0], b[1][:1]]), "layer 1: weight"),
        (lambda w, b: ([w[0].T, w[1]], b), "layer 0: weight"),
        (_without_last, "1 weights and 1 biases for 2 layers"),
        (lambda w, b: ([w[0].to("meta"), w[1]], b), "weights and biases on meta; expected cpu"),
    ],
)
def test_parameters_that_do_not_match_are_refused(change: Callable, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        cpu_dense.bind(SHARED, *change(*parameters(SHARED)))


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Network((3,), (Layer((0,), 4, False), Layer((3,), 2, False)), (2,)), r"layer 1 reads buffers \[3\]"),
        (Network((3,), (Layer((1,), 4, False),), (1,)), "layer 0 reads buffers"),
        (Network((3,), (Layer((-1,), 4, False),), (1,)), "layer 0 reads buffers"),
        (Network((3,), (Layer((), 4, False),), (1,)), "layer 0 reads buffers"),
        (Network((3,), (Layer((0,), 4, False), Layer((1,), 2, False)), (1, 2)), "expected earlier ones, no outputs"),
        (Network((3,), (Layer((0,), 4, True),), (1,)), "layer 0 is an output; expected one without ReLU"),
        (Network((3, 2), (Layer((0,), 4, False),), (1,)), r"outputs \[1\]; expected different layers' buffers, from 2"),
        (Network((3,), (Layer((0,), 4, False),), ()), r"outputs \[\]; expected"),
        (Network((3,), (Layer((0,), 4, False),), (1, 1)), r"outputs \[1, 1\]; expected"),
        (Network((0,), (Layer((0,), 4, False),), (1,)), r"widths \[0, 4\]; expected"),
        (Network((), (Layer((0,), 4, False),), (0,)), "expected inputs and layers"),
    ],
)
def test_networks_that_are_none_are_refused(network: Network, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        cpu_dense.bind(network, [torch.ones(4, 3)], [torch.ones(4)])


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_inputs_of_any_shape_are_evaluated_as_by_the_reference_or_refused(data: st.DataObject):
    sizes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 8]), min_size=1, max_size=3)
    inputs = [torch.randn(data.draw(sizes)) for _ in range(data.draw(st.integers(1, 3)))]
    if data.draw(st.booleans()):
        inputs = [x.transpose(0, -1) for x in inputs]  # not contiguous
    weights, biases = parameters(SHARED)
    with contextlib.suppress(ValueError, TypeError):
        (found,) = cpu_dense.bind(SHARED, weights, biases)(inputs)
        (expected,) = dense.bind(SHARED, weights, biases)(inputs)
        torch.testing.assert_close(found, expected)


@pytest.fixture(params=["dtype", "device"])
def _defaults(request: pytest.FixtureRequest) -> Iterator[None]:
    """Another default dtype or device of new tensors."""
    if request.param == "dtype":
        torch.set_default_dtype(torch.float64)
    else:
        torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("_defaults")
def test_the_defaults_of_the_process_do_not_matter():
    like = {"dtype": torch.float32, "device": "cpu", "requires_grad": True}
    weights = [torch.ones(4, 3, **like), torch.ones(5, 6, **like)]
    biases = [torch.ones(4, **like), torch.ones(5, **like)]
    inputs = [torch.ones(6, 3, **like), torch.ones(2, 2, **like)]
    for bind in (cpu_dense.bind, dense.bind):
        (out,) = bind(SHARED, weights, biases)(inputs)
        found = torch.autograd.grad(out.sum(), [*weights, *biases, *inputs])
        # all inputs and weights are 1: the hidden units are 3 + 1, the outputs 2 + 4 · 4 + 1
        assert torch.equal(out, torch.full((6, 5), 19.0, dtype=torch.float32, device="cpu"))
        assert [float(g.sum()) for g in found] == [360.0, 30.0 * 18, 120.0, 30.0, 360.0, 60.0]
    grid = hashgrid.make_grid(2, 2, 9, 4, 16)
    table = torch.ones(grid.offsets[-1], 2, **like)
    points = torch.full((7, 3), 0.3, **like)
    features = cpu_hashgrid.encode(points, table, grid)
    features.sum().backward()
    torch.testing.assert_close(features.detach(), torch.ones(7, 4, dtype=torch.float32, device="cpu"))
    assert points.grad.abs().max() < 1e-4
    assert abs(float(table.grad.sum()) - 28) < 1e-4


# lack of memory

FAILING = """
#include <cstdlib>
#include <new>
static std::size_t limit = ~std::size_t(0);
static void* allocated(std::size_t n) {
    if (n >= limit) throw std::bad_alloc();
    return std::malloc(n);
}
void* operator new(std::size_t n) { return allocated(n); }
void* operator new[](std::size_t n) { return allocated(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
extern "C" void fail_from(long bytes) { limit = bytes; }
#include "%s"
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, pytest.MonkeyPatch], Callable]]:
    """A kernel in which allocations of at least so many bytes fail."""
    folder = tmp_path_factory.mktemp("failing")

    def load(module: object, patch: pytest.MonkeyPatch) -> Callable[[int], None]:
        source = folder / f"failing_{module.SOURCE.name}"
        source.write_text(FAILING % module.SOURCE, encoding="utf-8")
        patch.setenv("ENERF_CACHE", str(folder / "cache"))
        patch.setattr(cpu_build, "FLAGS", ("-O1", *cpu_build.FLAGS[1:], "-Wl,-Bsymbolic"))
        library = cpu_build.library(source)
        if library is None:
            pytest.skip("this compiler does not let a library have an allocator of its own")
        patch.setattr(module, "SOURCE", source)
        library.fail_from.argtypes = [ctypes.c_long]
        return library.fail_from

    yield load
    cpu_build.library.cache_clear()


@pytest.mark.usefixtures("two_threads")
def test_lack_of_memory_in_dense_networks_is_an_error_and_the_next_call_works(failing, monkeypatch):
    fail_from = failing(cpu_dense, monkeypatch)
    weights, biases = parameters(SHARED)
    weights = [w.requires_grad_() for w in weights]
    inputs = [torch.randn(500, 3), torch.randn(500, 2)]
    network = cpu_dense.bind(SHARED, weights, biases)
    fail_from(4000)  # the tiles of each thread, but not the lists of layers
    with pytest.raises(MemoryError, match="the kernel cpu_dense could not allocate memory") as found, torch.no_grad():
        network(inputs)
    assert is_out_of_memory(found.value)
    (out,) = network(inputs)
    with pytest.raises(MemoryError) as found:
        out.sum().backward()
    assert is_out_of_memory(found.value)
    fail_from(1)
    with pytest.raises(MemoryError):
        cpu_dense.bind(SHARED, weights, biases)
    fail_from(2**62)
    expected = torch.autograd.grad(dense.bind(SHARED, weights, biases)(inputs)[0].sum(), weights)
    for a, b in zip(torch.autograd.grad(network(inputs)[0].sum(), weights), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not cpu_amx.is_available(), reason="this processor has no AMX with bf16")
@pytest.mark.usefixtures("two_threads")
def test_lack_of_memory_in_networks_of_tiles_is_an_error_and_the_next_call_works(failing, monkeypatch):
    fail_from = failing(cpu_amx, monkeypatch)
    weights, biases = parameters(SHARED)
    weights = [w.requires_grad_() for w in weights]
    inputs = [torch.randn(500, 3), torch.randn(500, 2)]
    network = cpu_amx.bind(SHARED, weights, biases)
    fail_from(4000)
    with pytest.raises(MemoryError, match="the kernel cpu_amx could not allocate memory"), torch.no_grad():
        network(inputs)
    fail_from(2**62)
    (out,) = network(inputs)
    fail_from(4000)
    with pytest.raises(MemoryError):
        out.sum().backward()
    fail_from(2**62)
    expected = torch.autograd.grad(dense.bind(SHARED, weights, biases, "bf16")(inputs)[0].sum(), weights)
    for a, b in zip(torch.autograd.grad(network(inputs)[0].sum(), weights), expected, strict=True):
        assert float((a - b).norm()) <= 2e-2 * float(b.norm())


@pytest.mark.usefixtures("two_threads")
def test_lack_of_memory_in_hash_encodings_is_an_error_and_the_next_call_works(failing, monkeypatch):
    fail_from = failing(cpu_hashgrid, monkeypatch)
    grid = hashgrid.make_grid(2, 2, 9, 4, 16)
    table = torch.rand(grid.offsets[-1], 2).requires_grad_()
    points = torch.rand(3000, 3)
    out = cpu_hashgrid.encode(points, table, grid)
    fail_from(2000)
    with pytest.raises(MemoryError, match="the kernel cpu_hashgrid could not allocate memory"):
        out.sum().backward()
    fail_from(1)
    with pytest.raises(MemoryError):
        cpu_hashgrid.encode(points, table, grid)
    fail_from(2**62)
    cpu_hashgrid.encode(points, table, grid).sum().backward()
    torch.testing.assert_close(table.grad.sum(), torch.tensor(3000.0 * grid.width))
