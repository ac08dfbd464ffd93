"""The region covered by a grid contains what the rays of a scene pass through."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core.types import Camera, Space
from enerf.datasets.scenes import bounds as scenes_bounds
from enerf.datasets.scenes import llff, rays, synthetic
from enerf.datasets.scenes.scene import Scene
from enerf.fields.contraction import contract

CAMERA = Camera(12, 9, 11.0, 13.0, 5.0, 4.0)
SEEDS = st.integers(0, 2**31)
light = settings(max_examples=20, deadline=None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A forward-facing capture in NDC, as it is loaded."""
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    return llff.load(synthetic.write_scene(folder, views=5, width=40, height=30, supersample=1, progress=False), 1)


def scene(c2w: Tensor, near: float, far: float, *, ndc: bool = False, forward_facing: bool = False) -> Scene:
    n = len(c2w)
    bounds = torch.tensor([[near, far]]).repeat(n, 1)
    names, images = tuple(map(str, range(n))), torch.zeros(n, CAMERA.height, CAMERA.width, 3)
    return Scene(
        "made", images, c2w.float(), CAMERA, bounds, names, tuple(range(n)), (), *((0.0, 1.0) if ndc else (near, far)),
        ndc, forward_facing, torch.eye(4, dtype=torch.float64),
    )  # fmt: skip


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ahead(seed: int, n: int = 6, tilt: float = 0.1) -> Tensor:
    """Cameras near z = 0 that look down −z, nearly."""
    noise = 2 * drawn(seed, n, 3, 4) - 1
    q, r = torch.linalg.qr(torch.eye(3, dtype=torch.float64) + tilt * noise[:, :, :3])
    return torch.cat([q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None], 0.3 * noise[:, :, 3:]], -1)


def inwards(seed: int, n: int = 6, distance: float = 4.0, spread: float = 0.0) -> Tensor:
    """Cameras all around that look at the origin."""
    back = 2 * drawn(seed, n, 3) - 1
    back = back / back.norm(dim=-1, keepdim=True)
    right = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(back), back)
    right = right / right.norm(dim=-1, keepdim=True)
    centers = back * (distance + spread * (2 * drawn(seed + 1, n, 1) - 1))
    return torch.stack([right, torch.linalg.cross(back, right), back, centers], -1)


def points(of: Scene, pixel_centers: float, steps: int = 9) -> Tensor:
    """On all rays of a scene, at values of t from near to far, both included."""
    made = [rays.of_image(of.camera, c2w, of.near, of.far, pixel_centers) for c2w in of.c2w]
    made = [rays.to_ndc(r, of.camera) if of.ndc else r for r in made]
    share = torch.linspace(0, 1, steps)
    return torch.stack([r.at(r.near[:, None] * (1 - share) + r.far[:, None] * share) for r in made])


def box(space: Space) -> tuple[Tensor, Tensor]:
    return torch.tensor(space.low), torch.tensor(space.high)


def inside(space: Space, points: Tensor) -> bool:
    low, high = box(space)
    return bool(((points >= low) & (points <= high)).all())


# NDC


@pytest.mark.parametrize("pixel_centers", [0.5, 0.0])
def test_all_rays_of_a_forward_facing_capture_lie_in_the_box(demo: Scene, pixel_centers: float):
    assert demo.ndc
    space = scenes_bounds.space_of(demo)
    assert not space.contracted
    assert inside(space, points(demo, pixel_centers))


@given(seed=SEEDS)
@light
def test_all_rays_of_cameras_that_look_ahead_lie_in_the_box(seed: int):
    made = scene(ahead(seed), 1.2, 30.0, ndc=True, forward_facing=True)
    assert rays.all_forward(made.cameras, made.c2w)
    assert inside(scenes_bounds.space_of(made), points(made, 0.5))


def test_the_box_is_no_larger_than_the_corner_rays_and_their_margin(demo: Scene):
    low, high = box(scenes_bounds.space_of(demo))
    n = len(demo.c2w)
    corners = points(demo, 0.0)[:, [0, 39, -40, -1]]  # one pixel short of the picture's corners
    assert corners.shape[:2] == (n, 4)
    tight = corners.reshape(-1, 3).amax(0) - corners.reshape(-1, 3).amin(0)
    assert ((high - low) <= (1 + 2 * scenes_bounds.MARGIN) * tight * 1.05).all()
    assert low[2] == pytest.approx(-1 - 2 * scenes_bounds.MARGIN, abs=1e-5)
    assert high[2] == pytest.approx(1 + 2 * scenes_bounds.MARGIN, abs=1e-5)


def test_it_does_not_depend_on_the_order_of_views(demo: Scene):
    again = dataclasses.replace(demo, c2w=demo.c2w.flip(0), bounds=demo.bounds.flip(0))
    assert scenes_bounds.space_of(again) == scenes_bounds.space_of(demo)


# objects


@given(seed=SEEDS)
@light
def test_an_object_is_where_the_middle_rays_of_its_cameras_end(seed: int):
    space = scenes_bounds.space_of(scene(inwards(seed), 2.0, 6.0))  # NeRF's synthetic objects
    assert not space.contracted
    assert space.low == pytest.approx((-2.0,) * 3, abs=1e-5)
    assert space.high == pytest.approx((2.0,) * 3, abs=1e-5)


@given(seed=SEEDS, near=st.floats(0.5, 3.9), far=st.floats(4.1, 7.9))
@light
def test_rays_through_the_middle_lie_in_the_objects_box_from_near_to_far(seed: int, near: float, far: float):
    c2w = inwards(seed)
    space = scenes_bounds.space_of(scene(c2w, near, far))
    assert not space.contracted
    t = torch.linspace(near, far, 9, dtype=torch.float64)
    passed = c2w[:, None, :, 3] - t[:, None] * c2w[:, None, :, 2]  # unit directions
    low, high = box(space)
    assert ((passed >= low - 1e-5) & (passed <= high + 1e-5)).all()
    assert float(high.max()) == pytest.approx(max(far - 4, 4 - near), abs=1e-5)


@pytest.mark.parametrize("far", [8.5, 20.0, 1e4])
def test_around_an_object_with_a_background_all_of_space_is_contracted_about_the_cameras(far: float):
    space = scenes_bounds.space_of(scene(inwards(0, spread=0.3), 0.5, far))
    assert space.contracted
    low, high = box(space)
    assert torch.equal(low, -high)
    distance = float(inwards(0, spread=0.3)[:, :, 3].norm(dim=-1).mean())
    assert high.tolist() == pytest.approx([distance] * 3, rel=1e-5)
    unit = contract(points(scene(inwards(0), 0.5, far), 0.5) / high)
    assert (unit.norm(dim=-1) <= 2 + 1e-6).all()


# cameras that look ahead or outwards, without NDC


@given(seed=SEEDS)
@light
def test_without_ndc_a_ball_holds_the_cameras_and_the_nearest_that_they_see(seed: int):
    c2w = ahead(seed)
    made = scene(c2w, 1.2, 30.0, forward_facing=True)
    space = scenes_bounds.space_of(made)
    assert space.contracted
    low, high = box(space)
    middle, radius = (low + high) / 2, float((high - low).min()) / 2
    assert (high - low).tolist() == pytest.approx([2 * radius] * 3, rel=1e-5)
    centers = made.c2w[:, :, 3]
    torch.testing.assert_close(middle, centers.mean(0), rtol=1e-5, atol=1e-5)
    nearest = centers - 1.2 * made.c2w[:, :, 2]  # straight ahead
    for seen in (centers, nearest):
        assert ((seen - middle).norm(dim=-1) <= radius * (1 + 1e-5)).all()


def test_a_scene_moves_with_its_cameras_without_ndc():
    c2w, offset = ahead(0), torch.tensor([5.0, -7.0, 100.0])
    here = scenes_bounds.space_of(scene(c2w, 1.2, 30.0, forward_facing=True))
    c2w[:, :, 3] += offset
    there = scenes_bounds.space_of(scene(c2w, 1.2, 30.0, forward_facing=True))
    for a, b in zip(box(here), box(there), strict=True):
        torch.testing.assert_close(b, a + offset, rtol=0, atol=1e-4)


@pytest.mark.parametrize("ndc", [True, False])
@pytest.mark.parametrize("forward_facing", [True, False])
def test_spaces_are_boxes_of_plain_finite_numbers(ndc: bool, forward_facing: bool):
    space = scenes_bounds.space_of(scene(ahead(0), 1.2, 30.0, ndc=ndc, forward_facing=forward_facing))
    for low, high in zip(space.low, space.high, strict=True):
        assert type(low) is type(high) is float
        assert math.isfinite(low)
        assert low < high < math.inf
