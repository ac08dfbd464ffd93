"""Training with the compiled operations on rays: the losses of the reference, and where they are used."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from enerf.datasets.scenes import synthetic
from enerf.engine import trainer
from enerf.rendering import cpu_rays
from enerf.tasks.nerf import setup, train

SMALL = "--netdepth_fine 2 --netwidth_fine 16 --N_rand 64 --N_samples 12 --N_importance 8 --factor 1 --llffhold 3"
HASHED = "--encoding hash --hash_levels 4 --hash_log2_entries 12 --hash_finest 64 --density exp --sampler proposal"
BASE = f"{SMALL} {HASHED} --use_viewdirs --device cpu --precision fp32 --lrate 5e-3 --N_iters 30".split()

compiled = pytest.mark.skipif(not cpu_rays.available(), reason="no C++ compiler made the kernel")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=6, width=16, height=12, supersample=1, progress=False)


@compiled
@pytest.mark.parametrize(
    "words", [[], ["--shading", "ray"], ["--distortion", "0.01"], ["--no_ndc", "--spacing", "disparity"]]
)
def test_both_kinds_of_operations_train_alike(words, make, monkeypatch):
    chosen, curves = setup.run_sampling, []
    for use in (True, False):
        monkeypatch.setattr(setup, "run_sampling", lambda run, use=use: replace(chosen(run), compiled=use))
        run = setup.prepare(make(f"run_{use}", "--backend", "torch", *words))
        step = train.step_function(run)
        curves.append([trainer.one_step(run.state, step).loss for _ in range(30)])
    assert curves[0] != curves[1]  # they are different operations
    assert sum(curves[0][-10:]) < sum(curves[0][:10])
    torch.testing.assert_close(*map(torch.tensor, curves), rtol=2e-3, atol=1e-5)


@compiled
def test_the_compiled_backend_trains_with_compiled_operations_and_torch_does_not(make):
    for backend, expected in (("compiled", True), ("torch", False)):
        run = setup.prepare(make(backend, "--backend", backend))
        assert setup.run_sampling(run).compiled is expected
        assert not setup.sampling_config(run.config, run.scene).compiled
