"""Finished runs from Python: what they refuse; docs/api.md shows and executes the rest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.experiments import open_run as opened
from enerf.tasks import registry


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A run of any kind, without files."""

    def of(kind: str) -> opened.OpenedRun:
        content = {"step": 7, "config": {"kind": kind, "seed": 3}}
        monkeypatch.setattr(registry, "with_part", lambda part, folder: (registry.task(kind), content))
        return opened.open_run(tmp_path / "run")

    return of


def test_kind_step_and_options_are_those_of_the_checkpoint(run, tmp_path):
    found = run("shape")
    assert (found.kind, found.step, found.options["seed"], found.folder) == ("shape", 7, 3, tmp_path / "run")


@pytest.mark.parametrize("kind", ["shape", "classifier"])
def test_a_run_without_views_is_refused_in_one_sentence(run, kind):
    with pytest.raises(InputError, match=f"found a run of kind '{kind}', expected one that renders views"):
        run(kind).render(torch.eye(4))


@pytest.mark.parametrize("pose", [torch.eye(3, 4)[:2], torch.full((3, 4), float("nan")), np.eye(4)[:, :4][:2]])
def test_a_pose_that_is_none_is_refused(run, pose):
    with pytest.raises(InputError, match=r"pose: found shape .* expected a finite 3×4 or 4×4 matrix"):
        run("nerf").render(pose)


def test_a_factor_below_one_is_refused(run):
    with pytest.raises(InputError, match=r"factor: found 0\.5, expected at least 1"):
        run("nerf").render(torch.eye(4), factor=0.5)


def test_metrics_that_were_not_measured_are_one_sentence(run):
    with pytest.raises(InputError, match=r"metrics\.json: not found"):
        run("nerf").metrics  # noqa: B018


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path):
    with pytest.raises(InputError, match=r"found no checkpoints/\*\.pt, expected the folder of a training run"):
        opened.open_run(tmp_path)
