"""Runs with deferred shading: colors of points, planes, skipping, and a proposal that is not trained in every step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.config import parser
from enerf.core.types import FeatureOutput
from enerf.datasets.scenes import frusta, synthetic
from enerf.engine import trainer
from enerf.fields.backends import registry
from enerf.rendering import cpu_rays
from enerf.rendering.planes import storage
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import mesh, planes, setup, train, views
from tests.contents import same, saved

SMALL = "--netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 6 --N_importance 6 --factor 1 --llffhold 3"
QUIET = "--i_print 0 --i_eval 0 --i_img 0 --i_video 0 --i_testset 0 --i_spectrum 0 --eval_rays 20 --no_final_eval"
HASHED = "--encoding hash --hash_levels 4 --hash_log2_entries 12 --hash_finest 64 --density exp"
DEFERRED = "--shading ray --ray_features 5 --netdepth_color 2 --netwidth_color 16 --use_viewdirs"
OWN = "--device cpu --backend torch --precision fp32 --N_iters 10 --lrate 5e-3"
BASE = f"{SMALL} {QUIET} {HASHED} {DEFERRED} {OWN}".split()
PROPOSAL = ("--sampler", "proposal")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=6, width=16, height=12, supersample=1, progress=False)


@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_five_steps_resumed_are_ten_where_the_proposal_is_trained_in_some(backend, make, monkeypatch):
    if backend == "compiled" and not cpu_rays.available():
        pytest.skip("there is no C++ compiler")
    monkeypatch.setattr(nerf_config, "PROPOSAL_FIRST", 2)
    words = (*PROPOSAL, "--proposal_every", "4", "--backend", backend)
    whole, parts = make("whole", *words), make("parts", *words)
    train.train(whole)
    for n in (5, 10):
        train.train(parser.replace(parts, N_iters=n))
    assert same(saved(whole.folder), saved(parts.folder))
    assert not same(saved(whole.folder)["model"], saved(_trained(make("every", *PROPOSAL)))["model"])


def _trained(config) -> Path:
    train.train(config)
    return config.folder


def test_the_proposal_stands_still_in_the_steps_that_do_not_train_it(make, monkeypatch):
    monkeypatch.setattr(nerf_config, "PROPOSAL_FIRST", 2)
    run = setup.prepare(make("run", *PROPOSAL, "--proposal_every", "4"))
    step, moved = train.step_function(run), []
    for _ in range(10):
        before = [p.detach().clone() for p in run.fields.coarse.parameters()]
        trainer.one_step(run.state, step)
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, run.fields.coarse.parameters(), strict=True)))
    assert moved == [True, True, False, False, True, False, False, False, True, False]


def test_gradients_that_are_kept_leave_the_parameters_alone_and_come_back_as_zeros():
    layer = torch.nn.Linear(2, 3)
    adam, kept = torch.optim.Adam(layer.parameters()), train.KeptGradients(layer)
    layer(torch.ones(1, 2)).sum().backward()
    adam.step()
    addresses, before = [p.grad.data_ptr() for p in layer.parameters()], layer.weight.detach().clone()
    for _ in range(2):
        kept.set_aside()
        adam.step()
    assert torch.equal(layer.weight, before)
    kept.put_back()
    assert [p.grad.data_ptr() for p in layer.parameters()] == addresses
    assert all((p.grad == 0).all() for p in layer.parameters())
    kept.put_back()
    assert all(p.grad is not None for p in layer.parameters())


def test_planes_of_a_run_are_baked_and_tuned(make):
    folder = _trained(make("run", *PROPOSAL))
    stack = storage.load(planes.bake_folder(folder, 8, 0.2, device="cpu"))
    assert stack.metadata["scene"]


def test_colors_of_points_are_those_of_their_features(make, tmp_path):
    run = setup.open_run(_trained(make("run")), "cpu")
    points = np.random.default_rng(0).normal(size=(20, 3)) * 0.1 + np.array([0.0, 0.0, -1.0])
    normals = np.tile([0.0, 0.0, 1.0], (20, 1))
    field, scene = run.fields.fine, run.scene
    found = mesh._colors(field, scene, torch.device("cpu"), points, normals)
    assert found.shape == (20, 3)
    assert 0 <= found.min() <= found.max() <= 1
    toward = torch.from_numpy(frusta.most_frontal_directions(scene, points, normals)).float()
    at = torch.from_numpy(mesh.coordinates.from_world(scene, points)).float()
    out = field(at[3:4, None], toward[3:4])
    assert isinstance(out, FeatureOutput)
    alone = field.color(out.features[:, 0], toward[3:4])
    np.testing.assert_allclose(found[3], alone[0].detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("words", [(), PROPOSAL])
def test_skipping_changes_nothing(words, make):
    run = setup.open_run(_trained(make("run", *words)), "cpu")
    assert not views.can_skip(run.fields, setup.sampling_config(run.config))
    pictures = [
        views.renderer_of(run, skip).picture(run.scene, run.scene.c2w[0], run.scene.camera).rgb for skip in (0.0, 0.1)
    ]
    assert torch.equal(*pictures)


@pytest.mark.skipif(not cpu_rays.available(), reason="there is no C++ compiler")
def test_pictures_by_compiled_operations_on_rays_are_those_of_torch(make, monkeypatch):
    folder, found = _trained(make("run", *PROPOSAL, "--N_iters", "40", "--backend", "compiled")), []
    run = setup.open_run(folder, "cpu")
    assert setup.run_sampling(run).compiled
    for sampling in (setup.run_sampling(run), setup.sampling_config(run.config, run.scene)):
        monkeypatch.setattr(setup, "run_sampling", lambda run, sampling=sampling: sampling)
        found.append(views.renderer_of(run).picture(run.scene, run.scene.c2w[0], run.scene.camera).rgb)
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


@pytest.mark.skipif(not cpu_rays.available(), reason="there is no C++ compiler")
def test_the_self_test_finds_operations_on_rays_that_are_wrong(monkeypatch):
    device = torch.device("cpu")
    backend = registry.make("compiled", "fp32", device)
    assert registry.self_test(backend, device) is None
    right = cpu_rays._call

    def wrong(name, *arguments):
        right(name, *arguments)
        if name == "rays_resample":
            arguments[2][-1].mul_(0.5)  # the result

    monkeypatch.setattr(cpu_rays, "_call", wrong)
    assert "differs" in registry.self_test(backend, device) or "failed" in registry.self_test(backend, device)
