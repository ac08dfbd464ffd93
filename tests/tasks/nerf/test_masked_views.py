"""Metrics of views with masks and of several cameras: masked pixels never count, each view has its own camera."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core import images
from enerf.core.types import Rays, Rendering
from enerf.datasets.scenes import formats
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.settings import SceneSettings
from enerf.tasks.nerf import image_metrics
from enerf.tasks.nerf import views as nerf_views
from enerf.tasks.nerf.views import Renderer
from tests.datasets.scenes import photographed
from tests.tasks.nerf.test_image_metrics import picture
from tests.tasks.nerf.test_views import close_pixels, constant, oracle

N = 5
FULL = SceneSettings(factor=1, llffhold=2, pose_check=False, near=2.0, far=20.0)


def _loaded(folder, cameras) -> Scene:
    posed = photographed.described(folder, cameras, photographed.forward(len(cameras)), n_points=2)
    photographed.write(replace(posed, points=None), "transforms")
    return formats.load("transforms", folder, FULL)


@pytest.fixture(scope="module")
def different(tmp_path_factory) -> Scene:
    """Cameras of several sizes and models, off-center, in NDC."""
    sizes = photographed.of_sizes(photographed.OFF_CENTER, 3)
    return _loaded(tmp_path_factory.mktemp("different"), (photographed.OPENCV, *sizes, replace(sizes[0], fx=25.0)))


def _masked(scene: Scene, seed: int = 0) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(*scene.size(view), 1, generator=generator) < 0.7 for view in range(len(scene.c2w))]
    return replace(scene, masks=PackedImages.of(masks))


# of one image


@given(seed=st.integers(0, 2**31), height=st.integers(1, 14), width=st.integers(1, 14), share=st.floats(0.05, 1))
@settings(max_examples=40)
def test_psnr_is_of_the_squared_errors_of_pixels_that_count(seed, height, width, share):
    a, b = picture(seed, height, width), picture(seed + 1, height, width)
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    squares = [
        (float(a[y, x, c]) - float(b[y, x, c])) ** 2
        for y in range(height)
        for x in range(width)
        for c in range(3)
        if mask[y, x]
    ]
    found = image_metrics.psnr(a, b, mask)
    if squares:
        assert found == pytest.approx(-10 * math.log10(sum(squares) / len(squares)), rel=1e-12)
    else:
        assert math.isnan(found)
    wild = torch.where(mask[..., None], a, torch.full_like(a, math.nan))
    assert image_metrics.psnr(wild, b, mask) == pytest.approx(found, nan_ok=True)


def _slow_ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float | None:
    """Wang et al. 2004, equation 13, in the windows whose center counts."""
    axis = np.arange(-5, 6)
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    values = []
    for y, x in np.argwhere(mask[5:-5, 5:-5]):
        for c in range(3):
            u, v = a[y : y + 11, x : x + 11, c], b[y : y + 11, x : x + 11, c]
            mu, mv = (kernel * u).sum(), (kernel * v).sum()
            uu, vv = (kernel * (u - mu) ** 2).sum(), (kernel * (v - mv) ** 2).sum()
            uv = (kernel * (u - mu) * (v - mv)).sum()
            top = (2 * mu * mv + 0.01**2) * (2 * uv + 0.03**2)
            values.append(top / ((mu**2 + mv**2 + 0.01**2) * (uu + vv + 0.03**2)))
    return float(np.mean(values)) if values else None


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_ssim_is_the_slow_mean_over_windows_whose_center_counts(share):
    a, b = picture(0, 16, 19), picture(1, 16, 19)
    mask = torch.rand(16, 19, generator=torch.Generator().manual_seed(3)) < share
    found, slow = image_metrics.ssim(a, b, mask), _slow_ssim(a.numpy(), b.numpy(), mask.numpy())
    assert found == (None if slow is None else pytest.approx(slow, abs=1e-9))
    assert image_metrics.ssim(a, b, torch.ones(16, 19, dtype=torch.bool)) == image_metrics.ssim(a, b)


# of a scene's views


def _vandal(scene: Scene, view: int):
    """Renderer of a gray view that is wild at masked pixels, given the rays of the whole view in order."""
    mask = scenes_pixels.view_mask(scene, view).reshape(-1)

    def render(asked: Rays) -> Rendering:
        rendered = constant()(asked)
        wild = torch.where(mask[:, None], rendered.rgb, 1 - rendered.rgb)
        return replace(rendered, rgb=wild)

    return render


def test_what_is_rendered_at_masked_pixels_changes_no_metric(different):
    scene = _masked(different)
    for view in scene.test:
        calm = nerf_views.measure(Renderer(constant(), 10**6), scene, (view,), None)
        assert nerf_views.measure(Renderer(_vandal(scene, view), 10**6), scene, (view,), None) == calm
        whole = nerf_views.measure(Renderer(_vandal(scene, view), 10**6), different, (view,), None)
        assert whole[0]["psnr"] != calm[0]["psnr"]
        every = nerf_views.psnr_of_pixels(Renderer(constant(), 100), scene, (view,), 0)
        assert calm[0]["psnr"] == pytest.approx(every, rel=1e-6)


def test_what_was_photographed_at_masked_pixels_changes_no_metric(different):
    scene = _masked(different)
    wild = [torch.where(scene.masks[view], scene.images[view], 255 - scene.images[view]) for view in range(N)]
    other = replace(scene, images=PackedImages.of(wild))
    renderer = Renderer(constant(), 10**6)
    for n in (0, 50):
        assert nerf_views.psnr_of_pixels(renderer, scene, scene.test, n) == nerf_views.psnr_of_pixels(
            renderer, other, scene.test, n
        )
    assert nerf_views.constant_psnr(scene) == nerf_views.constant_psnr(other)
    assert [m["psnr"] for m in nerf_views.measure(renderer, scene, scene.test, None)] == [
        m["psnr"] for m in nerf_views.measure(renderer, other, scene.test, None)
    ]


def test_views_without_pixels_that_count_are_left_out_of_means(different):
    masks = [torch.ones(*different.size(view), 1, dtype=torch.bool) for view in range(N)]
    masks[1][:], masks[2][:] = False, False
    scene = replace(different, masks=PackedImages.of(masks))
    renderer = Renderer(constant(), 100)
    some = nerf_views.psnr_of_pixels(renderer, scene, (0, 2, 4), 30)
    assert some == nerf_views.psnr_of_pixels(renderer, scene, (0, 4), 30)
    assert math.isnan(nerf_views.psnr_of_pixels(renderer, scene, (2,), 30))
    assert nerf_views.constant_psnr(replace(scene, test=(0, 4))) == nerf_views.constant_psnr(
        replace(scene, train=(3,), test=(0, 4))
    )


def test_the_true_field_gives_back_the_photograph_of_each_camera(different):
    scene = replace(different, ndc=False)
    for view in range(N):
        camera = scene.cameras.camera(view)
        rgb = Renderer(oracle(scene), 10**6).picture(scene, scene.c2w[view], camera).rgb
        assert rgb.shape[:2] == scene.size(view)
        assert close_pixels(rgb, scenes_pixels.view_image(scene, view)) > 0.98


def test_views_are_rendered_along_the_rays_that_they_are_trained_on(different):
    """In the NDC of the scene's camera, whatever the camera of a view is."""
    assert different.ndc
    seen: list[Rays] = []

    def spy(asked: Rays) -> Rendering:
        seen.append(asked)
        return constant()(asked)

    for view in range(N):
        camera = different.cameras.camera(view)
        Renderer(spy, 10**6).picture(different, different.c2w[view], camera)
        trained = scenes_pixels.rays_of(different, scenes_pixels.fixed_pixels(different, view, 0), 0.5)
        for name, value in vars(trained).items():
            assert torch.allclose(getattr(seen[-1], name), value, atol=1e-6), (view, name)


def test_views_of_one_stem_have_files_of_their_own(different, tmp_path):
    names = ("left/0.png", "right/0.png", "1.png", "left/2.jpg", "left/2.png")
    scene = replace(different, image_names=names)
    nerf_views.measure(Renderer(constant(), 10**6), scene, range(N), tmp_path)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert found == ["1.png", "left/0.png.png", "left/2.jpg.png", "left/2.png.png", "right/0.png.png"]
    for view in range(N):
        written = images.read(tmp_path / nerf_views.picture_name(scene, view))
        assert written.shape[:2] == scene.size(view)
