"""Muon of parameters that hold several matrices: each matrix is updated as torch updates it by itself."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from enerf.conditioning import WeightView, condition, matrix_views, parameter_groups
from enerf.core import device as core_device
from enerf.optim import matrix_optimizer
from enerf.optim import muon as muon_module
from enerf.optim.muon import Muon, orthogonalized
from enerf.optim.table import check_number

needs_torchs = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon needs torch 2.9")

LAYERS = {
    "kernel": lambda: nn.Conv2d(6, 8, 3),
    "groups": lambda: nn.Conv1d(6, 8, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "attention": lambda: nn.MultiheadAttention(8, 2),
    "linear": lambda: nn.Linear(7, 5),
    "bilinear": lambda: nn.Bilinear(3, 4, 5),
}


def weight_and_view(kind: str) -> tuple[nn.Parameter, WeightView]:
    torch.manual_seed(0)
    weight, view = next(iter(matrix_views(LAYERS[kind]()).items()))
    return weight, view


def stepped(optimizer: Optimizer, weight: nn.Parameter, seeds: range) -> torch.Tensor:
    for seed in seeds:
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        optimizer.step()
    return weight.detach().clone()


@pytest.fixture(params=["bf16", "fp32"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The type of factors, whatever this processor has."""
    monkeypatch.setattr(muon_module, "products_on", lambda device: request.param)
    return request.param


def torchs(parameters: list[nn.Parameter], decay: float) -> Optimizer:
    return torch.optim.Muon(parameters, lr=0.01, weight_decay=decay, adjust_lr_fn="match_rms_adamw")


@needs_torchs
@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("kind", LAYERS)
def test_each_matrix_is_updated_as_torch_updates_it_by_itself(kind: str, decay: float, products: str):
    weight, view = weight_and_view(kind)
    start = view.to_matrices(weight.detach()).reshape(-1, view.n_out, view.n_in).clone()
    apart = [nn.Parameter(each.clone()) for each in start]
    together = Muon([weight], 0.01, decay, {weight: view})
    single = torchs(apart, decay)
    for seed in range(3):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        for each, grad in zip(apart, view.to_matrices(weight.grad).reshape(start.shape), strict=True):
            each.grad = grad.clone()
        together.step()
        single.step()
    found = view.to_matrices(weight.detach()).reshape(start.shape)
    moved = (found - start).abs().max()
    assert moved > 0.003
    share = 0.01 if products == "bf16" else 0.03  # torch multiplies in bf16
    torch.testing.assert_close(found, torch.stack([p.detach() for p in apart]), rtol=0, atol=share * moved.item())


@given(
    batch=st.sampled_from([(), (1,), (3,), (2, 2)]),
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    seed=st.integers(0, 9),
    size=st.sampled_from([1e-6, 1.0, 1e6]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_singular_values_of_an_update_are_about_one_whatever_those_of_the_gradient(batch, n, m, seed, size, dtype):
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (
        torch.linalg.qr(torch.randn(*batch, k, k, generator=generator, dtype=torch.float64))[0] for k in (n, m)
    )
    values = torch.logspace(0, -2, min(n, m), dtype=torch.float64) * size  # a condition number of 100
    matrix = rows[..., : min(n, m)] * values @ columns[..., : min(n, m)].mT
    found = orthogonalized(matrix, dtype=dtype).double()
    assert found.shape == matrix.shape
    polar = rows[..., : min(n, m)] @ columns[..., : min(n, m)].mT
    singular = torch.linalg.svdvals(found)
    assert 0.6 < singular.min() <= singular.max() < 1.3
    assert (found * polar).sum((-1, -2)).min() > 0.6 * min(n, m)  # the same singular vectors


def test_zeros_stay_zeros_and_what_is_not_finite_is_not_hidden():
    assert not orthogonalized(torch.zeros(2, 3, 4)).any()
    assert orthogonalized(torch.full((2, 2), torch.nan)).isnan().all()


def test_the_order_of_values_in_memory_does_not_matter():
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        layer = nn.Conv2d(6, 8, 3).to(memory_format=memory_format)
        optimizer = matrix_optimizer("muon", [layer.weight], 0.01, views=matrix_views(layer))
        found.append(stepped(optimizer, layer.weight, range(3)))
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def test_a_saved_state_a_copy_and_a_pickle_go_on_alike():
    weight, view = weight_and_view("groups")
    optimizer = matrix_optimizer("muon", [weight], 0.01, views={weight: view})
    stepped(optimizer, weight, range(2))
    copied, copied_optimizer = copy.deepcopy((weight, optimizer))
    read, read_optimizer = pickle.loads(pickle.dumps((weight, optimizer)))
    restored = nn.Parameter(weight.detach().clone())
    restored_optimizer = matrix_optimizer("muon", [restored], 9.0, views={restored: view})
    restored_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    expected = stepped(optimizer, weight, range(2, 4))
    assert torch.equal(stepped(copied_optimizer, copied, range(2, 4)), expected)
    assert torch.equal(stepped(read_optimizer, read, range(2, 4)), expected)
    assert torch.equal(stepped(restored_optimizer, restored, range(2, 4)), expected)


def test_parameters_without_gradients_are_left_alone_and_a_closure_is_evaluated_once():
    weight, view = weight_and_view("kernel")
    other, calls = nn.Parameter(torch.ones(2, 2)), []
    optimizer = matrix_optimizer("muon", [weight, other], 0.01, weight_decay=0.5, views={weight: view})
    before = weight.detach().clone()

    def loss() -> float:
        calls.append(1)
        value = weight.square().sum()
        value.backward()
        return value.item()

    assert optimizer.step(loss) > 0
    assert len(calls) == 1
    assert torch.equal(other, torch.ones(2, 2))
    assert not torch.equal(weight, before)


def test_groups_are_added_whole_or_not_at_all():
    weight, view = weight_and_view("kernel")
    optimizer = Muon([weight], 0.01, views={weight: view})
    matrix = nn.Parameter(torch.eye(3))
    optimizer.add_param_group({"params": [matrix], "lr": 0.1})
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1]
    vector = nn.Parameter(torch.ones(4))
    with pytest.raises(ValueError, match=r"shape \(4,\) and no view; expected two axes"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.eye(2)), vector]})
    assert len(optimizer.param_groups) == 2
    vector.grad, weight.grad = torch.ones(4), torch.ones_like(weight)
    stepped(optimizer, matrix, range(1))
    assert not torch.equal(matrix, torch.eye(3))
    optimizer.param_groups.pop(0)  # as for a layer that is frozen later
    stepped(optimizer, matrix, range(1))


def test_named_parameters_and_tensors_as_rates_are_taken():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    optimizer = Muon(((name, p) for name, p in net.named_parameters() if p.dim() == 2), 0.1)
    optimizer.param_groups[0]["lr"] = torch.tensor([0.05])
    before = net[1].weight.detach().clone()
    stepped(optimizer, net[1].weight, range(1))
    assert not torch.equal(net[1].weight, before)


@needs_torchs
def test_matrices_are_left_to_torch_but_where_it_would_emulate_bf16(products: str):
    net = nn.Linear(3, 4)
    found = matrix_optimizer("muon", [net.weight], 0.1, views=matrix_views(net))
    assert type(found) is (torch.optim.Muon if products == "bf16" else Muon)
    expected = torch.optim.Muon([net.weight], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    (group,) = expected.state_dict()["param_groups"]
    assert found.state_dict()["param_groups"] == [{**group, "products": products}]
    mixed = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 4, 3))
    weights = [mixed[0].weight, mixed[1].weight]
    assert type(matrix_optimizer("muon", weights, 0.1, views=matrix_views(mixed))) is Muon
    net.weight.device_mesh = "mesh"  # as a DTensor has one
    assert type(matrix_optimizer("muon", [net.weight], 0.1)) is torch.optim.Muon


@needs_torchs
@pytest.mark.parametrize("options", [{}, {"nesterov": False, "momentum": 0.8}, {"adjust_lr_fn": "original"}], ids=str)
def test_a_state_of_torchs_goes_on_here_and_one_of_this_there(options: dict[str, object]):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 4))
    theirs = torch.optim.Muon([weight], **{"lr": 0.01, "adjust_lr_fn": "match_rms_adamw", **options})
    stepped(theirs, weight, range(2))
    copied = nn.Parameter(weight.detach().clone())
    ours = Muon([copied], 0.5)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    start = weight.detach().clone()
    expected = stepped(theirs, weight, range(2, 4))
    found = stepped(ours, copied, range(2, 4))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03 * (expected - start).abs().max().item())
    again = nn.Parameter(copied.detach().clone())
    theirs = torch.optim.Muon([again], lr=0.5)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    start = again.detach().clone()
    expected = stepped(ours, copied, range(4, 6))
    found = stepped(theirs, again, range(4, 6))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03 * (expected - start).abs().max().item())


def test_bf16_is_used_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch):
    assert (muon_module.products_on(torch.device("cpu")) == "bf16") == core_device.has_bf16(torch.device("cpu"))
    for name in muon_module.BF16_CPUS:
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert muon_module.products_on(torch.device("cpu")) == "fp32"
    assert muon_module.products_on(torch.device("cuda")) == "bf16"
    monkeypatch.setattr(torch.cpu, muon_module.BF16_CPUS[0], lambda: True, raising=False)
    assert muon_module.products_on(torch.device("cpu")) == "bf16"


def test_wrong_views_and_parameters_are_refused():
    weight, view = weight_and_view("kernel")
    other, matrix = nn.Parameter(torch.ones(4, 6, 3, 3)), nn.Parameter(torch.ones(2, 2))
    for make in (
        lambda p, views: matrix_optimizer("muon", [p], 0.1, views=views),
        lambda p, v: Muon([p], 0.1, views=v),
    ):
        with pytest.raises(ValueError, match=r"a parameter has shape \(4, 6, 3, 3\), and its view \(8, 6, 3, 3\)"):
            make(other, {other: view})
    with pytest.raises(ValueError, match=r"two axes, or with a view \(conditioning.matrix_views\)"):
        matrix_optimizer("muon", [other], 0.1)
    with pytest.raises(ValueError, match="the views are of other parameters"):
        matrix_optimizer("muon", [copy.deepcopy(weight)], 0.1, views={weight: view})
    with pytest.raises(ValueError, match="is complex"):
        Muon([nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))], 0.1)
    for options in ({"lr": -1.0}, {"lr": float("nan")}, {"lr": 0.1, "weight_decay": -1.0}):
        with pytest.raises(ValueError, match="expected a number of at least 0"):
            Muon([matrix], **options)
    with pytest.raises(ValueError, match="empty parameter list"):
        Muon([], 0.1)
    weight.device_mesh = "mesh"
    with pytest.raises(ValueError, match="distributed over processes"):
        matrix_optimizer("muon", [weight], 0.1, views={weight: view})
    matrix.grad = torch.ones(2, 2).to_sparse()
    with pytest.raises(RuntimeError, match="a gradient is sparse"):
        Muon([matrix], 0.1).step()


MISTAKES = """
import torch
from torch import nn
from enerf.conditioning import matrix_views, parameter_groups
from enerf.optim import Combined, matrix_optimizer
net = nn.Conv2d(3, 4, 3)
adam = torch.optim.Adam(net.parameters())
for make in (
    lambda: matrix_optimizer("muon", [net.weight], 0.1, views=matrix_views),
    lambda: matrix_optimizer("muon", [net.weight], 0.1, views=[*matrix_views(net).values()]),
    lambda: matrix_optimizer("muon", [{"params": [net.weight]}], 0.1),
    lambda: matrix_optimizer("muon", ["weight"], 0.1),
    lambda: Combined(adam),
    lambda: Combined({"a": adam}),
    lambda: Combined([None]),
    lambda: matrix_views([net]),
    lambda: parameter_groups(net.parameters()),
    lambda: matrix_optimizer(["muon"], [net.weight], 0.1),
    lambda: matrix_optimizer("muon", [net.weight], "0.1", views=matrix_views(net)),
    lambda: matrix_optimizer("muon", [net.weight], 0.1, weight_decay=None, views=matrix_views(net)),
):
    try:
        make()
    except TypeError as error:
        print(error)
"""


def test_mistakes_of_type_are_told():
    """In a process of its own, since tests check the types of arguments."""
    done = subprocess.run([sys.executable, "-c", MISTAKES], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "views are a function; expected conditioning.matrix_views(model)",
        "views are a list; expected conditioning.matrix_views(model)",
        "matrices hold parameter groups; expected parameters: make an optimizer for each, and combine them",
        "matrices are a list; expected parameters with two axes, in a list",
        "the parts are a Adam; expected optimizers, in a list",
        "the parts are a dict; expected optimizers, in a list",
        "the parts are a list; expected optimizers, in a list",
        "the model is a list; expected a torch.nn.Module",
        "the model is a generator; expected a torch.nn.Module",
        "optimizer is ['muon']; expected one of muon, soap",
        "lr is '0.1'; expected a number of at least 0",
        "weight_decay is None; expected a number of at least 0",
    ]


def test_a_number_may_be_a_tensor_or_an_array_with_one_element():
    for value in (0, 0.1, True, np.float32(0.1), np.array(0.1), np.array([2]), torch.tensor(0.1), torch.tensor([3])):
        check_number("lr", value)
    check_number("lr", torch.tensor(0.1, requires_grad=True))
    check_number("lr", torch.empty((), device="meta"))
    for value in ("0.1", np.array("0.1"), np.array([0.1, 0.2]), torch.ones(2), torch.tensor(1j), np.array(None), None):
        with pytest.raises(TypeError, match=r"^lr is .*; expected a number of at least 0$"):
            check_number("lr", value)
    for value in (np.array(-0.1), torch.tensor([torch.inf])):
        with pytest.raises(ValueError, match=r"^lr is .*; expected a number of at least 0, and finite$"):
            check_number("lr", value)


def test_numbers_of_each_group_are_checked_and_integers_are_refused():
    matrix, other = nn.Parameter(torch.eye(3)), nn.Parameter(torch.eye(2))
    for name, value in (("lr", -1.0), ("lr", float("inf")), ("weight_decay", -0.1), ("weight_decay", float("nan"))):
        group = {"params": [matrix], name: value}
        with pytest.raises(ValueError, match=f"{name} is {value:g}; expected a number of at least 0, and finite"):
            Muon([group], 0.1)
        optimizer = Muon([other], 0.1)
        with pytest.raises(ValueError, match=f"{name} is {value:g}; expected a number of at least 0"):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1
    with pytest.raises(TypeError, match="lr is 'a'; expected a number of at least 0"):
        Muon([{"params": [matrix], "lr": "a"}], 0.1)
    integers = nn.Parameter(torch.ones(2, 2, dtype=torch.int32), requires_grad=False)
    for make in (lambda: Muon([integers], 0.1), lambda: matrix_optimizer("muon", [integers], 0.1)):
        with pytest.raises(ValueError, match=r"of shape \(2, 2\) holds torch.int32; expected floating-point numbers"):
            make()
    Muon([{"params": [matrix], "lr": torch.tensor(0.1)}, {"params": [other], "lr": 0, "weight_decay": 0}], 0.1)


def test_integers_are_refused_where_torchs_is_used_too(products: str):
    weights = [
        nn.Parameter(torch.ones(2, 2, dtype=dtype), requires_grad=False) for dtype in (torch.int32, torch.cfloat)
    ]
    for weight, sentence in zip(weights, ("holds torch.int32", "is complex"), strict=True):
        with pytest.raises(ValueError, match=sentence):
            matrix_optimizer("muon", [weight], 0.1)


def test_raw_weights_are_taken_from_a_dictionary_and_computed_ones_are_refused():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    condition(net, "row", ["0"])
    groups = parameter_groups(net)
    optimizer = matrix_optimizer("muon", {**groups.matrices, **groups.scale_invariant}, 0.1)
    assert optimizer.param_groups[0]["params"] == [net[1].weight, net[0].parametrizations.weight.original]
    with pytest.raises(ValueError, match=r"shape \(4, 3\) is computed; expected raw ones, as of parameter_groups"):
        matrix_optimizer("muon", [net[0].weight], 0.1, views=matrix_views(net))


def test_soap_decays_weights_and_takes_matrices_alone():
    pytest.importorskip("pytorch_optimizer", reason="the extra soap is not installed")
    weight, view = weight_and_view("kernel")
    with pytest.raises(ValueError, match=r"soap takes parameters with two axes$"):
        matrix_optimizer("soap", [weight], 0.1, views={weight: view})
    packed, view = weight_and_view("attention")
    optimizer = matrix_optimizer("soap", [packed], 0.1, weight_decay=0.25, views={packed: view})
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25]


def test_conditioned_convolutions_are_trained_by_muon():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(8, 2))
    condition(net, "row", ["2"])
    raw = net[2].parametrizations.weight.original
    optimizer = matrix_optimizer("muon", [raw], 0.05, views=matrix_views(net))
    images, labels = torch.randn(16, 3, 5, 5), torch.randint(2, (16,))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
