"""Tests of whole views: an exact renderer of the scene reproduces its photographs."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from enerf.core import images
from enerf.core.types import Camera, Rays, Rendering
from enerf.datasets.scenes import llff, rays, synthetic
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.tasks.nerf import image_metrics as nerf_image_metrics
from enerf.tasks.nerf import views as nerf_views
from enerf.tasks.nerf.views import Renderer


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    """The generated scene, each pixel of its photographs one ray through the pixel's center."""
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    synthetic.write_scene(folder, views=4, width=24, height=18, supersample=1, progress=False)
    return llff.load(folder, factor=1, llffhold=2, ndc=False)


def rendering(rgb: torch.Tensor, depth: torch.Tensor) -> Rendering:
    return Rendering(rgb, depth, torch.ones_like(depth), torch.ones(len(rgb), 1), depth[:, None])


def oracle(scene: Scene):
    """Renderer that calls the ray tracer, for rays in scene coordinates."""
    to_world = np.linalg.inv(scene.world_to_scene.double().numpy())

    def render(asked: Rays) -> Rendering:
        origins = asked.origins.double().numpy() @ to_world[:3, :3].T + to_world[:3, 3]
        rgb, t = synthetic.trace(origins, asked.directions.double().numpy() @ to_world[:3, :3].T)
        return rendering(torch.from_numpy(rgb).float(), torch.from_numpy(t).float())

    return render


def constant(color=(0.25, 0.5, 0.75)):
    def render(asked: Rays) -> Rendering:
        return rendering(torch.tensor(color).expand(len(asked), 3), torch.zeros(len(asked)))

    return render


def close_pixels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).abs().amax(-1) < 1.5 / 255).float().mean())


def test_the_true_field_gives_back_the_photograph_upright(scene):
    renderer = Renderer(oracle(scene), 50)
    for view in range(4):
        rgb = renderer.picture(scene, scene.c2w[view], scene.camera).rgb
        photograph = scenes_pixels.view_image(scene, view)
        assert rgb.shape == photograph.shape == (18, 24, 3)
        assert close_pixels(rgb, photograph) > 0.99  # all but what lies on an edge
        for turned in (rgb.flip(0), rgb.flip(1), rgb.flip(0, 1), scenes_pixels.view_image(scene, view - 1)):
            assert close_pixels(turned, photograph) < 0.8


def test_rays_go_through_the_centres_that_are_asked_for(scene):
    corner = Renderer(oracle(scene), 50, pixel_centers=0.0).picture(scene, scene.c2w[0], scene.camera).rgb
    assert close_pixels(corner, scenes_pixels.view_image(scene, 0)) < 0.9


def test_depth_and_opacity_lie_where_their_colors_lie(scene):
    picture = Renderer(oracle(scene), 50).picture(scene, scene.c2w[0], scene.camera)
    c2w = synthetic.poses(4)[0]
    _, depth = synthetic.render(synthetic.camera(24, 18), c2w, 1)
    scale = np.cbrt(np.linalg.det(scene.world_to_scene.double().numpy()[:3, :3]))
    assert picture.opacity.shape == picture.depth.shape == (18, 24)
    assert np.median(np.abs(picture.depth.numpy() / (depth * scale) - 1)) < 1e-4


@pytest.mark.parametrize("rays_at_once", [50, 431, 10_000])
def test_the_number_of_rays_at_once_changes_nothing(scene, rays_at_once):
    whole, parts = (Renderer(oracle(scene), n).picture(scene, scene.c2w[1], scene.camera) for n in (432, rays_at_once))
    assert torch.equal(whole.rgb, parts.rgb)
    assert torch.equal(whole.depth, parts.depth)


def test_a_scene_in_ndc_is_rendered_along_ndc_rays(scene):
    seen: list[Rays] = []

    def spy(asked: Rays) -> Rendering:
        seen.append(asked)
        return constant()(asked)

    Renderer(spy, 10_000).picture(replace(scene, ndc=True), scene.c2w[0], scene.camera)
    made = rays.of_image(scene.camera, scene.c2w[0], scene.near, scene.far, 0.5)
    assert torch.equal(seen[0].directions, rays.to_ndc(made, scene.camera).directions)


def test_colors_are_clipped(scene):
    rgb = Renderer(constant((-1.0, 0.5, 3.0)), 1000).picture(scene, scene.c2w[0], scene.camera).rgb
    assert rgb[0, 0].tolist() == [0.0, 0.5, 1.0]


# figures


def test_all_pixels_give_the_psnr_of_the_picture(scene):
    renderer = Renderer(constant(), 100)
    rendered = {v: renderer.picture(scene, scene.c2w[v], scene.camera).rgb for v in (0, 2)}
    pictures = [nerf_image_metrics.psnr(rgb, scenes_pixels.view_image(scene, v)) for v, rgb in rendered.items()]
    for n in (0, 432, 9999):
        assert nerf_views.psnr_of_pixels(renderer, scene, (0, 2), n) == pytest.approx(sum(pictures) / 2, rel=1e-6)


def test_some_pixels_are_the_fixed_ones_of_each_view(scene):
    renderer = Renderer(constant(), 100)
    pixels = scenes_pixels.fixed_pixels(scene, 2, 10)
    colors = torch.stack([scenes_pixels.view_image(scene, 2)[y, x] for x, y in zip(pixels.x, pixels.y, strict=True)])
    expected = nerf_image_metrics.psnr(torch.tensor([0.25, 0.5, 0.75]).expand(10, 3), colors)
    assert nerf_views.psnr_of_pixels(renderer, scene, (2,), 10) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(nerf_views.psnr_of_pixels(renderer, scene, (), 10))


def test_views_are_measured_one_by_one_and_written(scene, tmp_path):
    renderer = Renderer(constant(), 100)
    measured = nerf_views.measure(renderer, scene, scene.test, tmp_path / "test")
    assert (
        [m["name"] for m in measured] == [scene.image_names[v] for v in scene.test] == ["image000.png", "image002.png"]
    )
    gray = torch.tensor([0.25, 0.5, 0.75]).expand(18, 24, 3)
    for m, view in zip(measured, scene.test, strict=True):
        assert m["psnr"] == pytest.approx(
            nerf_image_metrics.psnr(gray, scenes_pixels.view_image(scene, view)), rel=1e-6
        )
        assert m["ssim"] == pytest.approx(
            nerf_image_metrics.ssim(gray, scenes_pixels.view_image(scene, view)), abs=1e-6
        )
        assert set(m) == {"name", "psnr", "ssim", "lpips"}
        written = images.read(tmp_path / "test" / m["name"])
        assert np.array_equal(written, np.broadcast_to(np.float32([64, 128, 191]) / np.float32(255), written.shape))
    assert len(list((tmp_path / "test").iterdir())) == 2


def test_measuring_writes_nothing_unless_asked(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nerf_views.measure(Renderer(constant(), 100), scene, scene.test, None)
    assert list(tmp_path.iterdir()) == []


def test_the_mean_is_of_the_views_figures():
    measured = [{"psnr": 20.0, "ssim": 0.5, "lpips": None}, {"psnr": 30.0, "ssim": None, "lpips": 0.5}]
    assert nerf_views.means(measured) == {"psnr": 25.0, "ssim": None, "lpips": None}


def test_the_best_constant_color_is_that_of_the_training_views(scene):
    half = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 18, 24, 3)
    made = replace(scene, images=torch.cat([half, torch.full((2, 18, 24, 3), 0.6)]), train=(0, 1), test=(2, 3))
    assert nerf_views.constant_psnr(made) == pytest.approx(20.0, abs=1e-4)
    assert math.isnan(nerf_views.constant_psnr(replace(made, test=())))


def test_bytes_are_measured_as_the_floats_that_they_mean(scene):
    floats = replace(scene, images=torch.stack([scenes_pixels.view_image(scene, v) for v in range(4)]))
    assert (scene.images.dtype, floats.images.dtype) == (torch.uint8, torch.float32)
    renderer = Renderer(constant(), 100)
    assert nerf_views.measure(renderer, scene, (0, 3), None) == nerf_views.measure(renderer, floats, (0, 3), None)
    assert nerf_views.psnr_of_pixels(renderer, scene, (0, 3), 50) == nerf_views.psnr_of_pixels(
        renderer, floats, (0, 3), 50
    )
    assert nerf_views.constant_psnr(scene) == nerf_views.constant_psnr(floats)
    best = floats.images[list(scene.train)].double().mean((0, 1, 2)).float()
    wanted = [nerf_image_metrics.psnr(best.expand(18, 24, 3), floats.images[v]) for v in scene.test]
    assert nerf_views.constant_psnr(scene) == pytest.approx(sum(wanted) / 2, abs=1e-4)


class _Sizes(TorchFunctionMode):
    """Notes the most values that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.largest = max(self.largest, result.numel() if isinstance(result, torch.Tensor) else 0)
        return result


def test_the_best_constant_color_never_asks_for_more_than_one_photograph(scene):
    with _Sizes() as sizes:
        nerf_views.constant_psnr(scene)
    assert sizes.largest == 18 * 24 * 3


@pytest.mark.parametrize("pixels", [100, 1200, 10_000, 10**9])
def test_a_preview_is_small_and_of_the_same_shape(pixels):
    camera = Camera(400, 300, 390.0, 380.0, 200.0, 150.0)
    small = nerf_views.preview_camera(camera, pixels)
    assert small.width * small.height <= 1.1 * pixels
    assert small.width / small.height == pytest.approx(4 / 3, rel=0.1)
    assert small.fx / small.width == pytest.approx(390 / 400)
    if pixels > 120_000:
        assert small == camera
