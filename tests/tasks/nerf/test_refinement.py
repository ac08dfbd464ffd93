"""Pose refinement: rigid motions, their preconditioner, windows from coarse to fine, runs, and evaluation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.config import parser
from enerf.core import rng
from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import alignment, pixels, rigid_motions, synthetic, transforms_json
from enerf.datasets.scenes.scene import Scene
from enerf.engine import checkpoint
from enerf.engine.probe import ProbeSettings
from enerf.tasks.nerf import build, evaluate, poses_file, probe, refinement, setup, train, views
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.refinement import PoseRefinement
from tests.contents import refusal, same, saved
from tests.datasets.scenes import photographed
from tests.datasets.scenes.test_bounds import ahead, inwards, scene

light = settings(max_examples=25, deadline=None)
SMALL = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 8 --N_importance 8"
QUIET = "--i_print 0 --i_eval 0 --i_img 0 --i_video 0 --i_testset 0 --i_spectrum 0 --eval_rays 20 --device cpu"
HASHED = "--encoding hash --hash_levels 4 --hash_log2_entries 12 --hash_finest 64 --density exp --sampler proposal"
QUIET += " --backend torch --precision fp32"
BASE = f"{SMALL} {QUIET} --factor 1 --llffhold 3 --N_iters 4 --coarse_to_fine 3 --lrate_poses 1e-3"


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=6, width=16, height=12, supersample=1, progress=False)


@pytest.fixture
def make(toy, tmp_path):
    """Options of a run that refines poses; the name of the experiment first."""

    def make(name: str, *words: str) -> NerfConfig:
        line = [*BASE.split(), "--refine_poses", "--pose_eval_iters", "3", "--datadir", str(toy)]
        line += ["--basedir", str(tmp_path / "logs"), "--expname", name, *words]
        return parser.parse(NerfConfig, line)[0]

    return make


def moved(made: PoseRefinement, seed: int, size: float = 0.3) -> PoseRefinement:
    with torch.no_grad():
        made.values += size * torch.randn(made.values.shape, generator=torch.Generator().manual_seed(seed))
    return made


def of_scene(seed: int = 0) -> tuple[Scene, PoseRefinement]:
    found = scene(inwards(seed), 2.0, 6.0)
    found = replace(found, c2w=found.c2w.double(), train=(0, 2, 4), test=(1, 3, 5))
    return found, PoseRefinement(found, found.train).double()


# motions


@given(st.integers(0, 1000))
@light
def test_refined_rays_are_those_of_refined_poses(seed):
    found, motions = of_scene(seed)
    moved(motions, seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = pixels.PixelSampler(found, range(6)).draw(20, generator)
    rays = motions(pixels.rays_of(found, drawn, 0.5), drawn.view)
    there = replace(found, c2w=motions.poses(found.c2w))
    expected = pixels.rays_of(there, drawn, 0.5)
    for name in ("origins", "directions", "viewdirs"):
        torch.testing.assert_close(getattr(rays, name), getattr(expected, name))
    assert torch.equal(there.c2w[1::2], found.c2w[1::2])
    rotations = there.c2w[:, :, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(6, 3, 3))


def test_no_motion_changes_no_ray():
    found, motions = of_scene()
    drawn = pixels.PixelSampler(found, range(6)).draw(20, torch.Generator().manual_seed(0))
    rays = pixels.rays_of(found, drawn, 0.5)
    assert all(
        torch.equal(a, b) for a, b in zip(vars(motions(rays, drawn.view)).values(), vars(rays).values(), strict=True)
    )
    assert torch.equal(motions.poses(found.c2w), found.c2w)


# preconditioner


@given(st.integers(0, 1000), st.sampled_from([0.01, 1.0, 300.0]))
@light
def test_the_preconditioner_does_not_depend_on_the_unit_of_length(seed, scale):
    one = scene(ahead(seed), 1.0, 20.0, forward_facing=True)
    other = replace(one, bounds=one.bounds * scale)
    first, second = (refinement.preconditioner(each, 0) for each in (one, other))
    units = torch.tensor([1.0, 1, 1, scale, scale, scale], dtype=torch.float64)
    covariances = [torch.linalg.inv(each @ each) for each in (first, second)]
    torch.testing.assert_close(covariances[1], covariances[0] / units / units[:, None], rtol=1e-4, atol=1e-7 / scale**2)


@pytest.mark.parametrize("far", [6.0, 1e30])
def test_a_unit_step_moves_what_the_camera_sees_by_about_a_radian(far):
    found = scene(inwards(0), 2.0, far)
    basis = refinement.preconditioner(found, 0)
    assert basis.isfinite().all()
    view, generator = torch.zeros(500, dtype=torch.long), torch.Generator().manual_seed(0)
    x, y, share = (torch.rand(500, generator=generator, dtype=torch.float64) for _ in range(3))
    camera = found.cameras.camera(0)
    points = found.cameras.directions(view, x * camera.width, y * camera.height, 0, torch.float64)
    points = points / ((1 - share) / 2.0 + share / far)[:, None]
    for k in range(6):
        motion = 1e-4 * basis[:, k]
        axis, along = motion[:3].expand(500, 3), motion[3:].expand(500, 3)
        there = rigid_motions.rotated(-axis, points - rigid_motions.shifted(axis, along))
        directions = [torch.nn.functional.normalize(each, dim=-1) for each in (points, there)]
        size = float((directions[0] - directions[1]).square().sum(-1).mean().sqrt()) / 1e-4
        assert 0.2 < size < 1.2


# windows


def test_windows_open_from_coarse_to_fine():
    fields = build.plain_fields(build.ModelOptions(encoding="hash", hash_levels=4, hash_log2_entries=8), True, True)
    refinement.add_windows(fields)
    points = torch.rand(5, 3)
    plain = fields.fine.hashed(points)
    refinement.open_windows(fields, 0.0)
    coarse = fields.fine.hashed(points)
    assert torch.equal(coarse[:, :4], plain[:, :4])
    assert not coarse[:, 4:].any()
    refinement.open_windows(fields, 1.0)
    assert torch.equal(fields.fine.hashed(points), plain)
    assert fields.coarse.hashed.window.shape == (10,)
    assert not any("window" in name for name in fields.state_dict())


def test_windows_of_frequencies_leave_the_coordinates():
    fields = build.plain_fields(build.ModelOptions(netdepth_fine=2, netwidth_fine=8, multires=4), True)
    refinement.add_windows(fields)
    refinement.open_windows(fields, 0.0)
    points = torch.rand(5, 3)
    found = fields.fine._encoded(points)
    assert torch.equal(found[:, :3], points)
    assert found[:, 3:9].any()
    assert not found[:, 9:].any()


# steps


@pytest.mark.parametrize("words", [[], HASHED.split()], ids=["hierarchical", "proposal"])
def test_the_gradient_of_poses_is_that_of_the_photometric_loss(words, make):
    """Finite differences of the mean squared error by z, in double precision; samples do not move with the poses."""
    run = setup.prepare(make("run", *words, "--perturb", "0"))
    run.fields.double()
    with torch.no_grad():  # so that something is seen
        run.fields.coarse.density_head.bias += 1.0
    moved(run.fields.poses, 0, 0.01)
    plain = replace(run.scene, c2w=run.scene.c2w.double(), ndc=False)
    drawn = pixels.PixelSampler(plain, plain.train).draw(16, torch.Generator().manual_seed(0))
    rays = pixels.rays_of(plain, drawn, 0.5)
    target = pixels.colors_of(plain, drawn).double()
    views = nerf_step.ViewTerms(drawn.view, None, 0.0, run.scene.camera)
    sampling = replace(setup.sampling_config(run.config, run.scene), n_importance=0) if not words else None
    sampling = sampling or setup.sampling_config(run.config, run.scene)

    def figures() -> torch.Tensor:
        run.fields.zero_grad()
        options = {"jitter": False, "interlevel": 0.0, "views": views}
        return nerf_step.gradient(run.fields, rays, target, sampling, torch.Generator(), **options)

    figures()
    found = run.fields.poses.values.grad.clone()
    assert found.abs().max() > 1e-8
    if words:  # the proposal's resampling moves with the poses, which the gradient leaves out
        return
    step = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = []
    for size in (1e-6, -2e-6):
        with torch.no_grad():
            run.fields.poses.values += size * step
        losses.append(float(figures()[0]))
    assert float((found * step).sum()) == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-3)


def test_the_interlevel_loss_moves_no_camera(make):
    run = setup.prepare(make("run", *HASHED.split()))
    batches = train.Batches(run, torch.Generator())
    batch = batches.batch(*batches.draw(0))
    found = []
    for weight in (0.0, 10.0):
        run.fields.zero_grad()
        options = {"jitter": False, "interlevel": weight, "views": batch.views}
        sampling = setup.sampling_config(run.config, run.scene)
        nerf_step.gradient(run.fields, batch.rays, batch.target, sampling, torch.Generator(), **options)
        found.append(run.fields.poses.values.grad.clone())
    assert torch.equal(*found)


# runs


@pytest.mark.parametrize(
    "words",
    [[], HASHED.split(), ["--no_ndc", *HASHED.split(), "--exposure", "affine"]],
    ids=["positional", "hash", "exposure"],
)
def test_two_and_resume_and_two_steps_are_four_to_the_last_bit(words, make):
    whole, parts = (make(name, "--no_final_eval", *words) for name in ("whole", "parts"))
    train.train(whole)
    for n in (2, 4):
        train.train(parser.replace(parts, N_iters=n))
    assert same(saved(whole.folder), saved(parts.folder))
    assert saved(whole.folder)["model"]["poses.values"].abs().max() > 1e-4
    files = [json.loads((each.folder / poses_file.NAME).read_text()) for each in (whole, parts)]
    assert files[0] == files[1]


def test_off_draws_the_same_numbers_and_saves_the_same_keys(make):
    """With motions that stay zero, and all levels from the beginning."""
    off = make("off", "--no_final_eval", "--refine_poses", "False", "--no_ndc")
    still = make("still", "--no_final_eval", "--lrate_poses", "1e-30", "--coarse_to_fine", "0", "--no_ndc")
    for config in (off, still):
        train.train(config)
    without, with_poses = saved(off.folder)["model"], saved(still.folder)["model"]
    assert not any("poses" in name or "window" in name for name in without)
    fields = {name: value for name, value in with_poses.items() if not name.startswith("poses.")}
    assert same(fields, without)
    assert not (off.folder / poses_file.NAME).exists()


def test_a_new_run_starts_where_key_points_agree_and_a_resumed_one_does_not_match_again(tmp_path, monkeypatch, caplog):
    folder = synthetic.write_scene(tmp_path / "demo", views=8, width=160, height=120, supersample=1, progress=False)
    rows = np.load(folder / "poses_bounds.npy")
    rows[:, :15] = _turned(rows[:, :15].reshape(-1, 3, 5)).reshape(-1, 15)
    np.save(folder / "poses_bounds.npy", rows)
    line = [*BASE.split(), "--refine_poses", "--no_final_eval", "--llffhold", "8", "--datadir", str(folder)]
    line += ["--N_iters", "1", "--basedir", str(tmp_path), "--no_pose_check", "--expname"]
    with caplog.at_level("INFO"):
        train.train(parser.parse(NerfConfig, [*line, "matched"])[0])
    assert "matches of key points agree: images move by" in caplog.text
    found = saved(tmp_path / "matched")["model"]["poses.values"].norm(dim=1).rad2deg()
    assert 0.3 < found.mean() < 1.5  # degrees: the poses were turned by one
    train.train(parser.parse(NerfConfig, [*line, "given", "--no_pose_matches"])[0])
    assert saved(tmp_path / "given")["model"]["poses.values"].abs().max() == 0
    monkeypatch.setattr(refinement.matched_poses, "matches_of", None)
    train.train(parser.parse(NerfConfig, [*line, "matched", "--N_iters", "2"])[0])
    assert saved(tmp_path / "matched")["step"] == 2


def _turned(matrices: np.ndarray) -> np.ndarray:
    """LLFF's matrices of cameras that are turned about their vertical axes by a degree, to either side."""
    moved, angle = matrices.copy(), np.deg2rad(1.0) * (-1.0) ** np.arange(len(matrices))[:, None]
    down, back = matrices[:, :, 0], matrices[:, :, 2]  # LLFF: down, right, back
    right = matrices[:, :, 1]
    moved[:, :, 1] = np.cos(angle) * right + np.sin(angle) * back
    moved[:, :, 2] = np.cos(angle) * back - np.sin(angle) * right
    assert np.allclose(np.einsum("ni,ni->n", moved[:, :, 1], down), 0, atol=1e-6)
    return moved


def test_few_matches_leave_the_poses_as_given(make, caplog):
    with caplog.at_level("INFO"):
        train.train(make("few", "--no_final_eval", "--N_iters", "1"))
    assert "poses start as given: found 0 matches of key points in 4 views" in caplog.text
    assert saved(make("few").folder)["model"]["poses.values"].abs().max() == 0


def test_both_numbers_are_told_and_the_aligned_one_is_the_headline(make):
    result = train.train(make("run"))
    assert result["poses"]["psnr_aligned"] == result["mean"]["psnr"]
    assert result["poses"]["psnr_refined"] is not None
    assert 0 < result["poses"]["moved_degrees"] < 10
    assert "3 steps" in result["protocol"]["poses"]
    again = evaluate.evaluate_folder(make("run").folder, "cpu")
    assert again["poses"] == result["poses"]
    assert "poses" not in train.train(make("plain", "--refine_poses", "False"))


@pytest.mark.parametrize("words", [[], HASHED.split()], ids=["positional", "hash"])
def test_a_run_that_ends_from_coarse_to_fine_is_evaluated_as_it_is_opened(words, make, caplog):
    config = make("run", *words, "--coarse_to_fine", "9", "--lrate", "1e-2", "--i_eval", "4")
    result = train.train(config)
    assert "step 4: the run ended within --coarse_to_fine 9" in caplog.text
    again = evaluate.evaluate_folder(config.folder, "cpu")
    for name in ("mean", "poses", "fit_psnr"):
        assert again[name] == result[name], name
    run = setup.open_run(config.folder, "cpu")
    pixels_of_test = views.psnr_of_pixels(views.renderer_of(run), run.present_scene, run.scene.test, 20)
    assert run.state.curve == [[4, pixels_of_test]]


def test_cameras_that_the_file_of_poses_cannot_express_are_warned_of(tmp_path, make, caplog):
    camera = Camera(24, 18, 21.0, 20.0, 12.0, 9.0, "FOV", (0.3,))
    posed = photographed.described(tmp_path / "scene", (camera,) * 5, photographed.around(5))
    photographed.write(posed, "colmap")
    result = train.train(make("run", "--datadir", str(tmp_path / "scene")))
    assert result["poses"]["psnr_refined"] > 0
    assert "the refined poses are not stored" in caplog.text
    assert "cannot express the camera model FOV" in caplog.text


def test_the_saved_poses_are_those_of_the_run_in_world_coordinates(make):
    config = make("run", "--no_final_eval", "--lrate_poses", "1e-2")
    train.train(config)
    run = setup.open_run(config.folder, "cpu")
    content = json.loads((config.folder / poses_file.NAME).read_text())
    matrices = np.array([frame["transform_matrix"] for frame in content["frames"]])[:, :3]
    assert transforms_json.is_number(content["fl_x"])
    assert [frame["file_path"] for frame in content["frames"]] == list(run.scene.image_names)
    given = synthetic.poses(6)
    train_ids = list(run.scene.train)
    assert alignment.differences(matrices, given)[0].max() > 1e-3
    np.testing.assert_allclose(poses_file.world_poses(run.scene), given, atol=1e-5)
    np.testing.assert_allclose(poses_file.world_poses(run.present_scene), matrices, atol=1e-6)
    aligned = alignment.between(given[train_ids], matrices[train_ids]).apply(given)[list(run.scene.test)]
    np.testing.assert_allclose(matrices[list(run.scene.test)], aligned, atol=1e-5)
    assert setup.open_run(config.folder, "cpu").fields.poses.values.abs().max() > 0


def test_a_changed_option_is_refused_and_old_runs_have_given_poses(make):
    config = make("run", "--no_final_eval", "--refine_poses", "False")
    train.train(config)
    path = checkpoint.checkpoints(config.folder)[-1]
    content = checkpoint.read(path)
    for name in ("refine_poses", "lrate_poses", "coarse_to_fine", "pose_eval_iters"):
        del content["config"][name]
    torch.save(content, path)
    assert "refine_poses (saved False, requested True)" in refusal(train.train, make("run", "--no_final_eval"))


def test_a_pose_that_is_slightly_wrong_is_corrected_with_the_field_known():
    """Rays of refined poses against the true field: an analytic one, whose rendering is exact."""
    found, motions = of_scene()
    wrong = moved(PoseRefinement(found, found.train).double(), 1, 0.02).poses(found.c2w)
    motions = PoseRefinement(replace(found, c2w=wrong), found.train).double()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(motions.parameters(), lr=2e-3)

    def seen(rays: Rays) -> torch.Tensor:  # a smooth colored ball: the colors of the points nearest to the origin
        along = -(rays.origins * rays.directions).sum(-1) / rays.directions.square().sum(-1)
        return torch.sin(3 * (rays.origins + along[:, None] * rays.directions))

    for step in range(400):
        optimizer.param_groups[0]["lr"] = 2e-3 * 0.01 ** (step / 400)
        drawn = pixels.PixelSampler(found, found.train).draw(200, generator)
        target = seen(pixels.rays_of(found, drawn, 0.5))
        rays = pixels.rays_of(replace(found, c2w=wrong), drawn, 0.5)
        optimizer.zero_grad()
        (seen(motions(rays, drawn.view)) - target).square().mean().backward()
        optimizer.step()
    ids = list(found.train)
    true, before = found.c2w[ids].numpy(), wrong[ids].numpy()
    after = motions.poses(wrong)[ids].numpy()
    assert alignment.differences(after, true)[0].max() < 0.1 * alignment.differences(before, true)[0].max()
    assert alignment.differences(after, true)[1].max() < 0.1 * alignment.differences(before, true)[1].max()


def test_the_probe_sees_what_the_training_sees(make):
    """Refined poses and exposure maps are applied, and are no parameters of the loss."""
    config = make("run", "--no_final_eval", "--exposure", "affine", "--perturb", "0", "--raw_noise_std", "0")
    train.train(config)
    path = checkpoint.checkpoints(config.folder)[-1]
    content = checkpoint.read(path)
    found = probe.open_probe(content["config"], ProbeSettings("", 64, 0, "", "cpu")).at(path).objective
    run = setup.open_run(config.folder, "cpu")
    fields, plain = run.fields, replace(run.scene, ndc=False)
    drawn = pixels.PixelSampler(run.scene, run.scene.train).draw(64, rng.generator_for(0, 0))
    views = nerf_step.ViewTerms(drawn.view, None, 0.0, run.scene.camera)
    figures = nerf_step.gradient(
        fields, pixels.rays_of(plain, drawn, 0.5), pixels.colors_of(run.scene, drawn),
        setup.sampling_config(run.config, run.scene), torch.Generator(), jitter=False, views=views,
    )  # fmt: skip
    assert found.value() == pytest.approx(float(figures[0]), rel=1e-4)
    both = [*fields.coarse.parameters(), *fields.fine.parameters()]
    assert len(found.free_parameters()) == len(both)
