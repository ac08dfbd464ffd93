"""Tests of exposure maps: their mean is the identity; they are trained and resumed, and scored on half images."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enerf.config import parser
from enerf.core import images
from enerf.core.types import Rendering
from enerf.datasets.scenes import exif_exposure, splits, synthetic, transforms_writer
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.engine import checkpoint
from enerf.tasks.nerf import evaluate, exposure, losses, report, setup, train, views
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.exposure import Exposure
from tests.contents import refusal, same, saved

KINDS = pytest.mark.parametrize("kind", ["gain", "affine"])
SMALL = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 6 --N_importance 6"
QUIET = "--i_print 0 --i_eval 0 --i_img 0 --i_video 0 --i_testset 0 --i_spectrum 0 --eval_rays 20 --device cpu"
QUIET += " --backend torch --precision fp32 --factor 1 --llffhold 3"
BASE = f"{SMALL} {QUIET} --raw_noise_std 1 --N_iters 4".split()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=6, width=16, height=12, supersample=1, progress=False)


def random_maps(kind: str, seed: int, scale: float = 0.3, n: int = 5) -> Exposure:
    made = Exposure(kind, range(0, 2 * n, 2), 2 * n).double()
    with torch.no_grad():
        made.values += scale * torch.randn(made.values.shape, generator=torch.Generator().manual_seed(seed))
    return made


def colors(n: int = 7) -> torch.Tensor:
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# maps


@given(st.integers(0, 1000), st.floats(0, 3))
def test_the_mean_gain_is_one(seed, scale):
    maps, rgb = random_maps("gain", seed, scale), colors()
    mapped = torch.stack([maps(rgb, torch.full((7,), view)) for view in range(0, 10, 2)])
    torch.testing.assert_close(mapped.log().mean(0), rgb.log(), rtol=1e-12, atol=1e-12)


@given(st.integers(0, 1000), st.floats(0, 3))
def test_the_mean_affine_map_is_the_identity(seed, scale):
    maps, rgb = random_maps("affine", seed, scale), colors()
    mapped = torch.stack([maps(rgb, torch.full((7,), view)) for view in range(0, 10, 2)])
    torch.testing.assert_close(mapped.mean(0), rgb, rtol=1e-12, atol=1e-12)


@KINDS
def test_they_begin_as_the_identity_and_leave_other_views_alone(kind):
    rgb = colors()
    assert torch.equal(Exposure(kind, [0, 2], 4).double()(rgb, torch.tensor([0, 1, 2, 3, 0, 1, 2])), rgb)
    held = torch.tensor([1, 3, 5, 7, 9, 1, 3])
    assert torch.equal(random_maps(kind, 0)(rgb, held), rgb)
    assert not torch.equal(random_maps(kind, 0)(rgb, held - 1), rgb)


@KINDS
def test_a_common_change_of_all_maps_has_no_gradient(kind):
    maps, rgb = random_maps(kind, 0), colors()
    maps(rgb, torch.tensor([0, 2, 4, 6, 8, 0, 2])).square().sum().backward()
    torch.testing.assert_close(maps.values.grad.sum(0), torch.zeros(exposure.NUMBERS[kind], dtype=torch.float64))
    assert maps.values.grad.abs().max() > 1e-3


@KINDS
def test_colors_behind_transparent_photographs_are_not_mapped(kind):
    maps, view = random_maps(kind, 0), torch.tensor([0, 2, 4])
    opacity = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    none = torch.zeros(3, 1, dtype=torch.float64)
    over_black = Rendering(colors(3) * opacity[:, None], opacity, opacity, none, none)
    for gray in (0.0, 1.0):
        over = losses.over(over_black, torch.full((3, 3), gray, dtype=torch.float64))
        mapped = losses.exposed(over, maps, view, gray).rgb
        expected = maps(colors(3), view) * opacity[:, None] + gray * (1 - opacity)[:, None]
        torch.testing.assert_close(mapped, expected)


@KINDS
def test_training_recovers_the_exposures_of_photographs(kind):
    truth, maps, rgb = random_maps(kind, 3, 0.1), Exposure(kind, range(0, 10, 2), 10).double(), colors(100)
    optimizer = torch.optim.Adam(maps.parameters(), lr=1e-2)
    view = 2 * torch.randint(5, (100,), generator=torch.Generator().manual_seed(2))
    for _ in range(600):
        optimizer.zero_grad()
        (maps(rgb, view) - truth(rgb, view).detach()).square().mean().backward()
        optimizer.step()
    assert (maps.centered() - truth.centered()).abs().max() < 0.01


# evaluation


@KINDS
def test_a_map_of_the_left_half_brings_back_the_right_half(kind):
    truth = random_maps(kind, 0, 0.05)
    rgb = 0.4 + 0.2 * torch.rand(12, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    photo = truth(rgb.reshape(-1, 3), torch.zeros(240, dtype=torch.long)).reshape(12, 20, 3).detach()
    found = exposure.half_scores(rgb, photo, None, kind)
    assert found["fitted"] > 80
    assert found["right_half"] < 40
    masked = photo.clone()
    masked[:, :5] = 0.7  # wrong colors, but masked
    mask = torch.ones(12, 20, dtype=torch.bool)
    mask[:, :5] = False
    assert exposure.half_scores(rgb, masked, mask, kind)["fitted"] > 80


@KINDS
def test_a_fit_to_nothing_or_to_one_color_is_finite(kind):
    for n in (0, 1, 4):
        matrix, offset = exposure.fit(torch.full((n, 3), 0.5), torch.full((n, 3), 0.25), kind)
        assert matrix.isfinite().all()
        expected = torch.full((3,), 0.25 if n else 0.5, dtype=torch.float64)
        torch.testing.assert_close(matrix @ (0 * expected + 0.5) + offset, expected, rtol=1e-3, atol=1e-3)


# runs


@KINDS
def test_two_and_resume_and_two_steps_are_four_to_the_last_bit(kind, make):
    words = ("--exposure", kind, "--no_final_eval")
    whole, parts = make("whole", *words), make("parts", *words)
    train.train(whole)
    for n in (2, 4):
        train.train(parser.replace(parts, N_iters=n))
    assert same(saved(whole.folder), saved(parts.folder))
    values = saved(whole.folder)["model"]["exposure.values"]
    assert values.shape == (4, exposure.NUMBERS[kind])
    assert values.abs().max() > 1e-4


def test_off_draws_the_same_numbers_and_saves_the_same_keys(make):
    off, still = make("off", "--no_final_eval"), make("still", "--no_final_eval", "--exposure", "gain")
    train.train(off)
    train.train(parser.replace(still, lrate_exposure=1e-30))
    without, with_maps = saved(off.folder), saved(still.folder)
    assert not any("exposure" in name for name in without["model"])
    assert len(without["optimiser"]["param_groups"]) == 1
    moved = with_maps["model"].pop("exposure.values")
    assert moved.abs().max() < 1e-20
    assert same(with_maps["model"], without["model"])


def test_both_numbers_are_told_and_the_plain_one_stays_the_headline(make):
    result = train.train(make("run", "--exposure", "gain"))
    assert result["protocol"]["exposure"].startswith("gain: ")
    assert set(result["exposure"]) == {"psnr_right_half", "psnr_fitted"}
    of_views = [view["halves"]["fitted"] for view in result["views"]]
    assert result["exposure"]["psnr_fitted"] == pytest.approx(sum(of_views) / len(of_views))
    assert result["mean"]["psnr"] == pytest.approx(sum(view["psnr"] for view in result["views"]) / len(of_views))
    plain = train.train(make("plain"))
    assert "exposure" not in plain
    assert "exposure" not in plain["protocol"]
    again = evaluate.evaluate_folder(make("run").folder, "cpu")
    assert again["exposure"] == result["exposure"]


def test_exposures_of_exif_data_and_who_computed_the_cameras_are_told(scene, tmp_path, make, caplog):
    """A scene of JPEG files, of which every second one has a shorter exposure time, made by ``enerf process``."""
    lens, c2w = synthetic.camera(16, 12), synthetic.poses(6)
    files = tuple(tmp_path / "made" / f"images/{i}.jpg" for i in range(6))
    files[0].parent.mkdir(parents=True)
    for i, (file, png) in enumerate(zip(files, sorted((scene / "images").iterdir()), strict=True)):
        exif = Image.Exif()
        exif.get_ifd(exif_exposure.EXIF_IFD).update({exif_exposure.TIME: 0.01 * (1 + i % 2), exif_exposure.ISO: 50})
        Image.fromarray(images.to_uint8(images.read(png))).save(file, exif=exif)
    target = tmp_path / "made" / "transforms.json"
    transforms_writer.write(target, PosedImages(target, tuple(f.name for f in files), files, (lens,) * 6, c2w))
    (tmp_path / "made" / "report.json").write_text('{"made_by": "enerf process"}')
    words = ["--datadir", str(target.parent), "--dataset_type", "auto", "--near", "1", "--far", "12"]
    with caplog.at_level("INFO"):
        result = train.train(make("run", "--exposure", "gain", *words))
    assert set(result["exposure"]) == {"psnr_right_half", "psnr_fitted", "psnr_by_exif"}
    of_views = [view["psnr_by_exif"] for view in result["views"]]
    assert result["exposure"]["psnr_by_exif"] == pytest.approx(sum(of_views) / len(of_views))
    assert "with the color maps of training views of the same exposure by EXIF data" in caplog.text
    assert "made: the cameras were computed from all photographs, the test views among them" in caplog.text
    assert splits.WITH_TEST_VIEWS in report.protocol_description(result)


def maps_of(gains: list[float]) -> exposure.Exposure:
    """Gains of four training views, 1 … 4, of five."""
    maps = exposure.Exposure("gain", [1, 2, 3, 4], 5)
    with torch.no_grad():
        maps.values[:] = torch.tensor(gains)[:, None].log()
    return maps


def test_a_test_view_takes_the_maps_of_training_views_of_its_exposure():
    maps, rgb, opacity = maps_of([2.0, 0.5, 2.0, 0.5]), torch.rand(3, 4, 3), torch.ones(3, 4)
    stops = torch.tensor([1.01, 1.0, 0.0, 1.0, float("nan")], dtype=torch.float64)
    torch.testing.assert_close(maps.by_exposure(rgb, 0, stops, opacity), 2 * rgb)
    stops[0] = -3.0  # the nearest is taken
    torch.testing.assert_close(maps.by_exposure(rgb, 0, stops, opacity), 0.5 * rgb)
    stops[0] = float("nan")
    assert maps.by_exposure(rgb, 0, stops, opacity) is rgb
    unknown = torch.tensor([1.0, *[float("nan")] * 4], dtype=torch.float64)
    assert maps.by_exposure(rgb, 0, unknown, opacity) is rgb


def test_affine_maps_by_exposure_are_those_of_the_training_views():
    maps, rgb = exposure.Exposure("affine", [0, 2], 3), torch.rand(2, 5, 3)
    with torch.no_grad():
        maps.values[:] = 0.1 * torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    stops = torch.tensor([0.0, 2.0, 2.0], dtype=torch.float64)
    expected = maps(rgb.reshape(-1, 3), torch.full((10,), 2)).reshape(rgb.shape)
    torch.testing.assert_close(maps.by_exposure(rgb, 1, stops, torch.ones(2, 5)), expected)


def test_training_views_are_scored_in_the_colors_of_their_photographs(make, scene, tmp_path):
    run = setup.prepare(make("run", "--exposure", "gain"))
    renderer = views.renderer_of(run)
    before = views.psnr_of_pixels(renderer, run.scene, run.scene.train, 0)
    with torch.no_grad():
        run.fields.exposure.values[0] += 1.0
    renderer = views.renderer_of(run)
    assert views.psnr_of_pixels(renderer, run.scene, run.scene.train, 0) != before
    plain = views.psnr_of_pixels(renderer, run.scene, run.scene.test, 0)
    in_parts = views.psnr_of_pixels(views.Renderer(renderer.render, 99), run.scene, run.scene.test, 0)
    assert plain == pytest.approx(in_parts, rel=1e-6)


def test_another_kind_of_map_is_refused_at_resume(make):
    train.train(make("run", "--no_final_eval"))
    assert "exposure (saved off, requested gain)" in refusal(train.train, make("run", "--exposure", "gain"))


def test_a_run_without_the_option_is_one_without_maps(make):
    config = make("run", "--no_final_eval")
    train.train(config)
    path = checkpoint.checkpoints(config.folder)[-1]
    content = checkpoint.read(path)
    for name in ("exposure", "lrate_exposure", "exposure_weight"):
        del content["config"][name]
    torch.save(content, path)
    train.train(parser.replace(config, N_iters=6))
    assert saved(config.folder)["step"] == 6
    assert "exposure" in refusal(train.train, make("run", "--exposure", "gain", "--N_iters", "8"))


def test_photographs_of_other_exposure_are_fitted_better_with_maps(scene, tmp_path):
    """Every second photograph is darker: the fit of training views without maps is limited by that."""
    folder = tmp_path / "uneven"
    (folder / "images").mkdir(parents=True)
    (folder / "poses_bounds.npy").write_bytes((scene / "poses_bounds.npy").read_bytes())
    for i, path in enumerate(sorted((scene / "images").glob("*.png"))):
        photo = images.read(path) * (0.35 if i % 2 else 1.0)
        images.write_png(folder / "images" / path.name, photo)
    words = f"--N_iters 150 --lrate 5e-3 --raw_noise_std 0 --datadir {folder} --basedir {tmp_path}".split()
    found = {}
    for kind in ("off", "gain"):
        line = [*BASE, *words, "--expname", kind, "--exposure", kind, "--lrate_exposure", "1e-2", "--final_pixels"]
        found[kind] = train.train(parser.parse(NerfConfig, line)[0])["fit_psnr"]
    assert found["gain"] > found["off"] + 1
    metrics = json.loads((tmp_path / "gain" / "metrics.json").read_text())
    assert "exposure" not in metrics  # no images were rendered


def test_views_of_which_a_half_is_ignored_are_left_out_of_the_half_scores():
    rgb, mask = torch.rand(4, 6, 3), torch.ones(4, 6, dtype=torch.bool)
    mask[:, 3:] = False
    nothing = exposure.half_scores(rgb, rgb, mask, "gain")
    assert nothing == {} == exposure.half_scores(rgb, rgb, ~mask, "gain")
    whole = exposure.half_scores(rgb, (rgb + 0.1).clamp(0, 1), None, "gain")
    assert exposure.summary([{"halves": nothing}, {"halves": whole}])["psnr_right_half"] == whole["right_half"]
