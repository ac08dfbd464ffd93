"""A fourth task, registered from outside: it trains, resumes, compares and evaluates through the same commands."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from enerf.cli import compare, evaluate, train
from enerf.cli import main as command_line
from enerf.config.methods import Methods
from enerf.config.options import FitOptions, RecordOptions, RunConfig, inherited, option
from enerf.core import io, rng
from enerf.core.errors import InputError
from enerf.engine import checkpoint, optimizers, resume, trainer
from enerf.reporting import tables
from enerf.tasks import registry


# The task: fit a line y = slope · x + 1 to noisy samples.
@dataclass(frozen=True)
class LineOptions:
    """Line."""

    slope: float = option(2.0, "slope of the line", affects="data")


@dataclass(frozen=True)
class LineTrainOptions(FitOptions):
    """Training."""

    N_iters: int = inherited(FitOptions, "N_iters", 200)
    lrate: float = inherited(FitOptions, "lrate", 0.1)


@dataclass(frozen=True)
class LineConfig(RunConfig):
    """Options of a run that fits a line."""

    run: RecordOptions
    data: LineOptions
    train: LineTrainOptions
    kind: ClassVar[str] = "line"
    scene: ClassVar[str] = "line"  # type: ignore[assignment]


@dataclass
class Report:
    loss: float

    @classmethod
    def averaged(cls, reports):
        return {"loss": sum(report.loss for report in reports) / len(reports)}


def step(config, state):
    x = torch.randn(64, 1, generator=rng.generator_for(config.train.seed, state.step))
    loss = (state.model(x) - config.data.slope * x - 1).square().mean()
    loss.backward()
    return Report(float(loss.detach()))


def prepare(config):
    torch.manual_seed(config.train.seed)
    model = nn.Linear(1, 1)
    return resume.begin(config, model, optimizers.adam(model, config.train.lrate), resume.last_checkpoint(config))


def measured(config, state):
    error = abs(float(state.model.weight.detach()) - config.data.slope)
    metrics = {"steps": state.step, "error": error, "seed": config.train.seed, "seconds": {"train": state.seconds}}
    io.write_json(config.folder / "metrics.json", metrics)
    return metrics


def fit(config):
    state = prepare(config)
    trainer.fit(config, state, partial(step, config), lambda journal: [], unit="samples", per_step=64)
    return measured(config, state)


def measure_again(folder, device, source):
    content, _ = checkpoint.newest(folder, ["line"])
    config = resume.reopened(LineConfig, content["config"], folder, device, "slope", source)
    return measured(config, prepare(config))


def table(runs):
    return [["steps", "error"], *([str(run["steps"]), f"{run['error']:.6f}"] for run in runs)]


def write(variants, base):
    io.write_json(base.folder / "comparison.json", variants)
    return tables.as_text(table([run for runs in variants.values() for run in runs]))


LINE = registry.Task(
    *("line", "line", "fit a line", LineConfig, Methods({"plain": {}, "slow": {"lrate": 1e-3}})),
    *(fit, measure_again, table, write),
)
# The end of the task.


@pytest.fixture(autouse=True)
def line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry.register(LINE)
    yield
    registry.unregister("line")


def test_the_task_is_less_than_sixty_lines_without_blank_ones_and_imports():
    lines = Path(__file__).read_text(encoding="utf-8").split("# The task:")[1].split("# The end of the task.")[0]
    assert sum(bool(each.strip()) for each in lines.splitlines()) < 60


def test_it_trains_through_the_command_and_its_options_are_checked(capsys):
    command_line.main(["line", "--slope", "3"])
    out = capsys.readouterr().out
    assert "results: logs/line" in out
    assert float(out.splitlines()[2].split()[1]) < 0.05
    assert ["line", "fit", "a", "line"] in [row.split() for row in command_line.usage().splitlines()]
    with pytest.raises(InputError, match="unknown option 'slop'; nearest known: slope"):
        command_line.main(["line", "--slop", "3"])


def test_it_resumes_to_the_same_weights(caplog):
    caplog.set_level("INFO", "enerf")
    train.main("line", ["--N_iters", "20", "--expname", "whole"])
    for n in ("7", "20"):
        train.main("line", ["--N_iters", n, "--expname", "parts"])
    assert "resuming from logs/parts/checkpoints/000007.pt" in caplog.messages
    whole, parts = (checkpoint.newest(Path("logs", name), ["line"])[0]["model"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_it_is_compared_and_evaluated(capsys):
    compare.main("line", ["--methods", "plain,slow", "--seeds", "0,1"])
    runs = json.loads(Path("logs/line/comparison.json").read_text())
    assert [run["seed"] for run in runs["slow"]] == [0, 1]
    assert max(run["error"] for run in runs["plain"]) < min(run["error"] for run in runs["slow"])
    capsys.readouterr()
    evaluate.main(["logs/line/plain_seed0", "logs/line/slow_seed0"])
    errors = [float(row.split()[1]) for row in capsys.readouterr().out.splitlines()[2:]]
    assert errors == [pytest.approx(runs[name][0]["error"], abs=1e-6) for name in ("plain", "slow")]


def test_it_has_no_mesh_and_that_is_one_sentence():
    train.main("line", ["--N_iters", "1"])
    with pytest.raises(InputError, match="found a run of kind 'line', expected one of nerf, shape"):
        registry.with_part("mesh_source", Path("logs/line"))
