"""Tests of steps of several processes, without them: what each adds to the gradient sums up to that of one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from enerf.config import parser
from enerf.datasets.labelled.loader import Batches
from enerf.engine import distributed
from enerf.engine.distributed import Team
from enerf.engine.joint_step import Part
from enerf.tasks.classifier import setup as classifier_setup
from enerf.tasks.classifier import train as classifier_train
from enerf.tasks.classifier.config import ClassifierConfig
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape import loss_terms
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape.config import ShapeConfig
from tests.tasks import config_steps

ROUNDING = 2e-5  # of sums in single precision
WORDS = ["--device", "cpu", "--precision", "fp32"]
FIELD = [*WORDS, "--backend", "torch", "--netwidth", "16"]
SHAPE = [*FIELD, "--N_points", "131", "--pool", "1024", "--background", "none", "--hash_finest", "24"]
SHAPES = {
    "occupancy": ["--mesh", "plate.ply", "--far", "0.2"],
    "balanced occupancy": ["--mesh", "plate.ply", "--far", "0", "--balanced"],
    "distance": ["--mesh", "plate.ply", "--representation", "sdf", "--eikonal", "0.1", "--normals", "0.1"],
    "cloud": ["--cloud", "cloud.ply"],
    "image": ["--image", "image.png"],
    "volume": ["--volume", "ball.npy"],
}
NERF = [*FIELD, "--N_rand", "61", "--N_samples", "8", "--N_importance", "8", "--factor", "1", "--raw_noise_std", "0.5"]
NERFS = {
    "hierarchical": ["--netdepth", "3", "--chunk", "20"],
    "compiled": [
        *["--backend", "compiled", "--sampler", "proposal", "--encoding", "hash", "--use_viewdirs", "--perturb", "1"]
    ],
    "proposal": ["--sampler", "proposal", "--encoding", "hash", "--exposure", "gain", "--refine_poses"],
}
SIZES = pytest.mark.parametrize("size", [2, 3])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    config_steps.write_data(folder)
    return folder


@contextmanager
def _as_process(rank: int, size: int) -> Iterator[None]:
    distributed._team.append(Team(rank, size))
    try:
        yield
    finally:
        distributed._team.pop()


def _require_sums(state, step, size: int) -> None:
    """``step`` makes a step function of the present process."""

    def found() -> tuple[torch.Tensor, object]:
        state.optimizer.zero_grad()
        report = step()(state)
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in state.model.parameters()]
        return torch.cat([grad.double().flatten() for grad in grads]), report

    whole, report = found()
    total, sums, parts = torch.zeros_like(whole), torch.zeros(0), []
    for rank in range(size):
        with _as_process(rank, size):
            gradient, part = found()
        assert isinstance(part, Part)
        total += gradient
        parts.append(torch.tensor(part.numbers, dtype=torch.float64))
    sums = torch.stack(parts).sum(0).tolist()
    assert float(whole.norm()) > 0
    assert float((total - whole).norm()) <= ROUNDING * float(whole.norm())
    joint = part.report(sums)
    assert type(joint) is type(report)
    for name, value in vars(report).items():
        assert vars(joint)[name] == pytest.approx(value, rel=1e-4), name


@SIZES
@pytest.mark.parametrize("kind", SHAPES)
def test_of_shapes(data, tmp_path, kind, size):
    words = [str(data / word) if (data / word).exists() else word for word in SHAPES[kind]]
    config = parser.parse(ShapeConfig, [*SHAPE, *words, "--basedir", str(tmp_path)])[0]
    run = shape_setup.prepare(config)
    with loss_terms.of_run(run) as terms_at:

        def step():
            gradient = shape_step.share_step if distributed.current().is_joint else shape_step.gradient_step
            return lambda state: gradient(run.field, lambda: terms_at(3))

        _require_sums(run.state, step, size)


@SIZES
@pytest.mark.parametrize("kind", NERFS)
def test_of_radiance_fields(data, tmp_path, kind, size):
    words = [*NERF, *NERFS[kind], "--datadir", str(data / "forward"), "--basedir", str(tmp_path)]
    run = nerf_setup.prepare(parser.parse(NerfConfig, words)[0])
    if run.fields.exposure is not None:
        torch.nn.init.normal_(run.fields.exposure.values, std=0.1, generator=torch.Generator().manual_seed(1))
    _require_sums(run.state, lambda: nerf_train.step_function(run), size)


@SIZES
@pytest.mark.parametrize("words", [["--mixup", "0.4", "--l1", "1e-3"], ["--label_smoothing", "0.1"]])
def test_of_classifiers(data, tmp_path, words, size):
    told = ["--images", str(data / "cifar"), "--model", "vit_s", "--depth", "2", "--width", "0.1", "--N_batch", "13"]
    config = parser.parse(ClassifierConfig, [*WORDS, *told, *words, "--basedir", str(tmp_path)])[0]
    run = classifier_setup.prepare(config)
    with Batches(run.data.train, 13, 0, "shift_flip") as batches:

        def step():
            function = classifier_train.share_step if distributed.current().is_joint else classifier_train.step
            return lambda state: function(run, batches, state)

        _require_sums(run.state, step, size)
