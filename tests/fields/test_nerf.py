"""Tests of NeRF's network, against a loop through all its weights, and of weights that come from nerf-pytorch."""

import math

import pytest
import torch
from torch import Tensor

from enerf.fields.nerf import NeRF, from_nerf_pytorch

Vector = list[float]


def _field(
    use_viewdirs: bool = True, multires: int = 2, multires_views: int = 1, depth: int = 6, skip: int = 5
) -> NeRF:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = NeRF(depth, 8, multires, multires_views, use_viewdirs, skip_at=skip).double()
    with torch.no_grad():
        field.density_head.weight *= 20  # densities of both signs
    return field


def _inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(4, 5, 3, generator=generator, dtype=dtype)
    viewdirs = torch.randn(4, 3, generator=generator, dtype=dtype)
    return points, viewdirs / viewdirs.norm(dim=-1, keepdim=True)


def _affine(weights: dict[str, Tensor], layer: str, x: Vector) -> Vector:
    rows, biases = weights[f"{layer}.weight"].tolist(), weights[f"{layer}.bias"].tolist()
    return [b + sum(w * v for w, v in zip(row, x, strict=True)) for row, b in zip(rows, biases, strict=True)]


def _relu(x: Vector) -> Vector:
    return [max(0.0, v) for v in x]


def _waves(x: Vector, bands: int) -> Vector:
    return x + [wave(2**k * v) for k in range(bands) for wave in (math.sin, math.cos) for v in x]


def _slow(field: NeRF, point: Vector, viewdir: Vector) -> tuple[float, Vector]:
    """Density and color at one point, neuron by neuron."""
    weights = field.state_dict()
    x = _waves(point, field.multires)
    h = x
    for i in range(6):
        h = _relu(_affine(weights, f"trunk.{i}", x + h if 0 < i == field.trunk.skip_at else h))
    density = max(0.0, _affine(weights, "density_head", h)[0])
    if field.use_viewdirs:
        towards = _waves(viewdir, field.multires_views)
        h = _relu(_affine(weights, "view", _affine(weights, "feature", h) + towards))
    return density, [1 / (1 + math.exp(-v)) for v in _affine(weights, "rgb_head", h)]


@pytest.mark.parametrize(("use_viewdirs", "skip"), [(True, 5), (False, 5), (True, 0), (True, 2)])
def test_it_computes_what_a_loop_through_all_weights_does(use_viewdirs: bool, skip: int):
    field, (points, viewdirs) = _field(use_viewdirs, skip=skip), _inputs()
    with torch.no_grad():
        outputs = field(points, viewdirs)
    for i in range(4):
        for j in range(5):
            density, rgb = _slow(field, points[i, j].tolist(), viewdirs[i].tolist())
            assert math.isclose(outputs.density[i, j], density, abs_tol=1e-13)
            assert outputs.rgb[i, j].tolist() == pytest.approx(rgb, abs=1e-13)
    if skip == 5:
        assert (outputs.density == 0).any()
        assert (outputs.density > 0).any()


def test_the_published_model_has_595_844_parameters():
    assert sum(p.numel() for p in NeRF(8, 256, 10, 4, True).parameters()) == 595_844


def test_density_does_not_depend_on_the_viewing_direction_but_color_does():
    field, (points, viewdirs) = _field(), _inputs()
    one, other = field(points, viewdirs), field(points, -viewdirs)
    assert torch.equal(one.density, other.density)
    assert (one.rgb != other.rgb).any(-1).all()


def test_without_viewing_directions_nothing_depends_on_them():
    field, (points, viewdirs) = _field(use_viewdirs=False), _inputs()
    one, other = field(points, viewdirs), field(points, -viewdirs)
    assert torch.equal(one.density, other.density)
    assert torch.equal(one.rgb, other.rgb)


def test_a_negative_number_of_bands_leaves_its_input_as_it_is():
    field, (points, viewdirs) = _field(multires=-1, multires_views=-1), _inputs()
    assert field.trunk[0].in_features == 3
    assert field.view.in_features == 8 + 3
    bare = _field(multires=0, multires_views=0)
    bare.load_state_dict(field.state_dict())
    assert torch.equal(field(points, viewdirs).rgb, bare(points, viewdirs).rgb)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_added_to_the_density_before_its_relu_and_to_nothing_else(dtype: torch.dtype):
    field, inputs = _field().to(dtype), _inputs(dtype)
    quiet = field(*inputs)
    noisy = field(*inputs, noise_std=3, generator=torch.Generator().manual_seed(7))
    drawn = torch.randn(4, 5, generator=torch.Generator().manual_seed(7), dtype=dtype)
    raw = field.density_head(field.trunk(_encoded(field, inputs[0])))[..., 0]
    assert torch.equal(noisy.rgb, quiet.rgb)
    assert torch.equal(noisy.density, torch.relu(raw + 3 * drawn))
    assert torch.equal(quiet.density, torch.relu(raw))


def _encoded(field: NeRF, points: Tensor) -> Tensor:
    return torch.cat([points, points.sin(), points.cos(), (2 * points).sin(), (2 * points).cos()], -1)


def test_without_noise_the_generator_is_left_alone():
    generator = torch.Generator().manual_seed(7)
    _field()(*_inputs(), noise_std=0.0, generator=generator)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(7).get_state())


@pytest.mark.parametrize("use_viewdirs", [True, False])
def test_gradients_reach_every_parameter(use_viewdirs: bool):
    field = _field(use_viewdirs)
    outputs = field(*_inputs())
    (outputs.density.sum() + outputs.rgb.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in field.parameters())


# nerf-pytorch's weights


def _theirs(field: NeRF, output_rows: int = 5) -> dict[str, Tensor]:
    """The state dict that nerf-pytorch would save for a field."""
    weights = field.state_dict()
    theirs = {name.replace("trunk", "pts_linears"): w for name, w in weights.items() if "trunk" in name}
    generator = torch.Generator().manual_seed(5)
    unused = torch.randn(output_rows - 4, 8, generator=generator, dtype=torch.float64)
    for kind in ("weight", "bias"):
        if field.use_viewdirs:
            theirs[f"views_linears.0.{kind}"] = weights[f"view.{kind}"]
            theirs[f"feature_linear.{kind}"] = weights[f"feature.{kind}"]
            theirs[f"alpha_linear.{kind}"] = weights[f"density_head.{kind}"]
            theirs[f"rgb_linear.{kind}"] = weights[f"rgb_head.{kind}"]
        else:
            more = unused if kind == "weight" else unused[:, 0]
            parts = [weights[f"rgb_head.{kind}"], weights[f"density_head.{kind}"], more]
            theirs[f"output_linear.{kind}"] = torch.cat(parts)
            theirs[f"views_linears.0.{kind}"] = more  # always there, never used
    return theirs


@pytest.mark.parametrize(("use_viewdirs", "output_rows"), [(True, 5), (False, 5), (False, 4)])
def test_weights_survive_the_way_from_nerf_pytorch(use_viewdirs: bool, output_rows: int):
    field = _field(use_viewdirs)
    with torch.no_grad():
        theirs = {name: w.clone() for name, w in _theirs(field, output_rows).items()}
        copy = _field(use_viewdirs)
        for parameter in copy.parameters():
            parameter.zero_()
        copy.load_state_dict(from_nerf_pytorch(theirs))  # strict: every name, and no other
        expected, found = field(*_inputs()), copy(*_inputs())
    assert torch.equal(found.density, expected.density)
    assert torch.equal(found.rgb, expected.rgb)


@pytest.mark.parametrize("name", ["views_linears.1.weight", "trunk.0.weight", "output_linear2.weight", "output_linear"])
def test_a_weight_that_is_not_nerf_pytorchs_is_refused_by_name(name: str):
    with pytest.raises(ValueError, match=f"'{name}' is not one of nerf-pytorch's"):
        from_nerf_pytorch({**_theirs(_field()), name: torch.zeros(3)})


def test_no_weights_are_no_weights():
    assert from_nerf_pytorch({}) == {}


@pytest.mark.parametrize(("use_viewdirs", "skip"), [(True, 5), (False, 5), (True, 0)])
def test_density_alone_is_that_of_the_whole_network_as_it_was_when_it_was_requested(use_viewdirs: bool, skip: int):
    field = _field(use_viewdirs, skip=skip)
    points, viewdirs = _inputs()
    density = field.densities()
    with torch.no_grad():
        assert torch.equal(density(points.reshape(-1, 3)), field(points, viewdirs).density.reshape(-1))
        assert (density(points.reshape(-1, 3)) > 0).any()
