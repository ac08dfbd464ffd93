"""A baked field looks like the field; textures that are tuned look like the photographs."""

from dataclasses import replace

import pytest
import torch

from enerf.core.types import Camera, FieldOutput
from enerf.datasets.scenes import llff, pixels, rays, synthetic
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.planes import bake, blocks, kernel, layout, tune
from enerf.rendering.planes.bake import BakeSettings
from enerf.rendering.planes.stack import CELLS, ray_lines
from enerf.rendering.planes.tune import TuneSettings

WALL = 0.4  # NDC z of an opaque wall


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    synthetic.write_scene(folder, views=5, width=48, height=36, supersample=1, progress=False)
    return llff.load(folder, factor=1, llffhold=4)


def painted(points: torch.Tensor) -> torch.Tensor:
    """Smooth colors of points in NDC."""
    x, y = points[..., 0], points[..., 1]
    return torch.stack(
        [0.5 + 0.4 * torch.sin(3 * x), 0.5 + 0.4 * torch.cos(2 * y), 0.5 + 0.3 * torch.sin(2 * x * y)], -1
    )


def wall(points: torch.Tensor, viewdirs: torch.Tensor) -> FieldOutput:
    return FieldOutput((points[..., 2] > WALL) * 1e4, painted(points))


def fog(points: torch.Tensor, viewdirs: torch.Tensor) -> FieldOutput:
    return FieldOutput(torch.full_like(points[..., 0], 0.5), torch.full_like(points, 0.6))


def of_view(scene: Scene, view: int):
    """NDC rays of a view, and a picture of a stack from there."""
    found, _ = bake.view_rays(scene, view)
    return rays.to_ndc(found, scene.camera), lambda stack: kernel.render(stack, found)


def test_a_wall_is_seen_where_it_is_from_every_view(scene):
    stack = bake.bake(wall, scene)
    for view in range(len(scene.c2w)):
        ndc, picture = of_view(scene, view)
        t = (WALL - ndc.origins[:, 2]) / ndc.directions[:, 2]
        found, expected = picture(stack), painted(ndc.at(t[:, None])[:, 0])
        inside = found.opacity > 0.99
        assert float((found.rgb - expected)[inside].abs().max()) < 0.02
        torch.testing.assert_close(found.depth[inside], t[inside], rtol=0, atol=1 / 128)
        if view in scene.train:
            assert float(inside.float().mean()) == 1.0


def test_what_is_behind_a_wall_is_left_out(scene):
    stack = bake.bake(wall, scene)
    assert float(stack.t_vals.max()) < (1 + WALL) / 2 + 0.15
    assert len(stack.tiles) < 3 * stack.index[0].numel()
    assert stack.index.shape[0] == len(stack.t_vals)


def test_alpha_is_integrated_over_the_slabs(scene):
    """A homogeneous medium has the same opacity with any number of planes; the last interval is opaque."""
    for planes in (8, 16):
        stack = bake.bake(fog, scene, BakeSettings(planes=planes, samples=64))
        assert len(stack.t_vals) == planes
        center = stack.dense()[:-1, stack.camera.height // 2, stack.camera.width // 2, 3].double() / 255
        left = float((1 - center).prod())
        directions = torch.tensor([0.0, 0.0, 2.0])
        assert left == pytest.approx(float(torch.exp(-0.5 * directions.norm() * (planes - 1) / planes)), abs=0.02)


def test_the_number_of_planes_bounds_the_parallax_between_neighbors(scene):
    arranged = layout.of_scene(scene)
    step = float(arranged.edges.diff().max())
    found, most = arranged.empty(), 0.0
    for view in scene.train:
        line, _ = ray_lines(found, *_corners(scene, view))
        most = max(most, float(line[:, 2:].norm(dim=1).max()))
    assert most * step <= layout.PARALLAX or len(arranged.edges) - 1 == layout.FEWEST


def _corners(scene: Scene, view: int):
    found, width = bake.view_rays(scene, view)
    chosen = torch.tensor([0, width - 1, -width, -1])
    return found.origins[chosen], found.directions[chosen]


def test_the_grid_covers_all_training_frusta(scene):
    arranged = layout.of_scene(scene)
    nearest = 1 / float(scene.bounds[list(scene.train)].min())
    for view in scene.train:
        line, _ = ray_lines(arranged.empty(), *_corners(scene, view))
        for disparity in (0.0, nearest):
            at = line[:, :2] + disparity * line[:, 2:]
            assert bool((at >= 0).all())
            assert bool((at <= torch.tensor([arranged.camera.width - 1, arranged.camera.height - 1])).all())
    assert (arranged.camera.width - 1) % CELLS == 0


def test_color_of_transparent_texels_is_that_of_visible_neighbors():
    tiles = torch.zeros(1, 32, 32, 4, dtype=torch.uint8)
    tiles[0, 5, 5] = torch.tensor([200, 100, 50, 255])
    found = bake.filled(tiles)
    assert found[0, 4, 6].tolist() == [200, 100, 50, 0]
    assert found[0, 30, 30].tolist() == [200, 100, 50, 0]
    assert torch.equal(found[..., 3], tiles[..., 3])


# tuning


def error_of(stack, scene: Scene, views) -> float:
    parts = []
    for view in views:
        found = kernel.render(stack, bake.view_rays(scene, view)[0]).rgb
        parts.append(float((found - pixels.view_image(scene, view).reshape(-1, 3)).square().mean()))
    return sum(parts) / len(parts)


def test_tuned_textures_are_nearer_to_the_photographs_and_reproducible(scene):
    stack = bake.bake(fog, scene, BakeSettings(planes=12, samples=24))
    tuned, again = (tune.tune(stack, scene, TuneSettings(steps=30)) for _ in range(2))
    assert error_of(tuned, scene, scene.train) < 0.4 * error_of(stack, scene, scene.train)
    assert torch.equal(tuned.tiles, again.tiles)


def test_texels_that_tiles_share_stay_equal(scene):
    stack = bake.bake(fog, scene, BakeSettings(planes=8, samples=16))
    tuned = tune.tune(stack, scene, TuneSettings(steps=8, negligible=(0.0, 0.0), layers=99.0))
    assert len(tuned.tiles) == len(stack.tiles)
    for row, column in ((tuned.index[:, :, :-1].flatten(), tuned.index[:, :, 1:].flatten()),):
        both = (row >= 0) & (column >= 0)
        assert torch.equal(tuned.tiles[row[both].long()][:, :, -1], tuned.tiles[column[both].long()][:, :, 0])


def test_layers_are_limited(scene):
    stack = bake.bake(fog, scene, BakeSettings(planes=12, samples=24))
    tuned = tune.tune(stack, scene, TuneSettings(steps=10, layers=5.0))
    assert blocks.layers(stack, blocks.visible(stack), scene.camera) > 10
    drawn = blocks.visible(tuned)
    assert 3 < blocks.layers(tuned, drawn, scene.camera) <= 5
    assert not tuned.tiles[..., 3][blocks.closed_texels(tuned, drawn)].any()


def test_seconds_in_which_the_process_is_stopped_do_not_count(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 4.0, 1004.0, 1005.0])
    monkeypatch.setattr(tune.time, "perf_counter", lambda: next(now))
    clock = tune._Clock()
    assert [clock.spent() for _ in range(5)] == [1.0, 3.0, 4.0, 14.0, 15.0]


def test_masked_pixels_are_not_followed(scene):
    stack = bake.bake(fog, scene, BakeSettings(planes=8, samples=16))
    masked = replace(scene, masks=torch.zeros(len(scene.c2w), 36, 48, 1, dtype=torch.bool))
    tuned = tune.tune(stack, masked, TuneSettings(steps=4, sparsity=0.0, color=0.0, alpha=0.0, negligible=(0.0, 0.0)))
    assert torch.equal(tuned.tiles, stack.tiles)


def test_progress_ends_at_one(scene):
    shares = []
    bake.bake(wall, scene, BakeSettings(planes=8, samples=16), shares.append)
    assert shares[-1] == pytest.approx(1.0)
    assert shares == sorted(shares)


def test_a_camera_of_another_size_is_rendered(scene):
    stack = bake.bake(wall, scene, BakeSettings(planes=8, samples=64))
    camera = Camera(24, 18, scene.camera.fx / 2, scene.camera.fy / 2, 12, 9)
    found = kernel.render(stack, rays.of_image(camera, torch.eye(3, 4), 0, 1))
    assert found.rgb.shape == (432, 3)
    assert float(found.opacity.min()) > 0.99
