"""Options: how one is declared, and the tables that several tasks share.

Each field of an option table is one option: its name, type, default, help, bounds and what it affects stand in one
place. The parser, the saved ``config.txt``, the rules of resuming and ``docs/options.md`` are made from them. The
docstring of a table is the title of its group in ``--help``. Names that nerf-pytorch users know keep their meaning and
their defaults. Imports no torch.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

from enerf.core.errors import InputError

METHODS = ("row", "column", "row_column", "jacobi", "ruiz")
SCALES = ("fixed", "kept", "constant", "learned")
INITS = ("default", "glorot", "he", "unit_row")

# What an option decides. model: the weights' names, shapes or meaning, so that a checkpoint made with another value
# does not fit. data: what is learned and measured. training: how it is learned. neutral: none of these.
Effect = Literal["model", "data", "training", "neutral"]


def option(
    default: Any, help: str, *, affects: Effect, model_key: Callable[[Any], Any] | None = None, **bounds: Any
) -> Any:
    """Return a dataclass field that is also a command-line option.

    Parameters
    ----------
    default, help
        The default value, and the text for ``--help``.
    affects
        What the option decides; see ``Effect``.
    model_key
        The part of the value that decides the weights, for options that do so in part: ``bool`` for a count that adds
        a network when it is above 0.
    bounds
        ``choices``, ``at_least``, ``at_most``, ``above``; ``bare``: the value of the option given without one.

    Raises
    ------
    ValueError
        If ``affects`` is none of the effects.
    """
    if affects not in get_args(Effect):
        raise ValueError(f"affects is {affects!r}; it must be one of {', '.join(get_args(Effect))}")
    return field(default=default, metadata={"help": help, "affects": affects, "model_key": model_key, **bounds})


def inherited(table: type, name: str, default: Any) -> Any:
    """Return the option ``name`` of another table with another default."""
    return field(default=default, metadata=table.__dataclass_fields__[name].metadata)  # type: ignore[attr-defined]


class RunConfig(ABC):
    """Base of the configurations of runs: a dataclass whose fields are option tables.

    Attributes
    ----------
    run
        The table with ``basedir`` and ``expname``.
    train
        The table with ``N_iters``, ``lrate``, ``seed``.
    kind
        The task: ``nerf``, ``shape`` or ``classifier``.
    """

    run: Any
    train: Any
    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    @abstractmethod
    def scene(self) -> str:
        """Name of the data, and of the experiment if ``--expname`` is not given."""

    @property
    def folder(self) -> Path:
        """Folder of the results: ``basedir/expname``."""
        return Path(self.run.basedir) / (self.run.expname or self.scene)

    def check(self) -> None:  # noqa: B027
        """Raise ``InputError`` for the first combination of options that has no meaning; the base accepts all."""


def declared(config: type[RunConfig]) -> dict[str, "dataclasses.Field[Any]"]:
    """Return all options of a kind of run by name.

    Each value is the dataclass field, whose metadata holds help, bounds and effect.
    """
    tables = [table.type for table in dataclasses.fields(config)]
    return {item.name: item for table in tables for item in dataclasses.fields(table)}  # type: ignore[arg-type]


def affecting(config: type[RunConfig], *effects: Effect) -> list[str]:
    """Return the names of the options with one of these effects, in the order of their declaration."""
    return [name for name, item in declared(config).items() if item.metadata["affects"] in effects]


@runtime_checkable
class MapOptions(Protocol):
    """Options of the equilibration map, common to the option tables of fields and classifiers."""

    @property
    def equilibrate(self) -> str:
        """The map."""

    @property
    def equilibrate_gradient(self) -> str:
        """``through`` or ``detached``."""

    @property
    def equilibrate_scale(self) -> str:
        """One of ``SCALES``."""

    @property
    def equilibrate_p(self) -> float:
        """Order of the norm: 1, 2 or inf."""


@dataclass(frozen=True)
class GridOptions:
    """Hash grid."""

    hash_levels: int = option(8, "levels of the hash grid", at_least=1, at_most=32, affects="model")
    hash_features: int = option(4, "features an entry", choices=(1, 2, 4, 8), affects="model")
    hash_log2_entries: int = option(
        16, "at most two to that power entries a level", at_least=4, at_most=26, affects="model"
    )
    hash_coarsest: int = option(16, "cells a side of the coarsest level", at_least=1, affects="model")
    hash_finest: int = option(768, "cells a side of the finest level", at_least=1, affects="model")

    def check(self) -> None:
        """Refuse a grid that grows coarser.

        Raises
        ------
        InputError
            If it does.
        """
        if self.hash_finest < self.hash_coarsest:
            raise InputError(
                f"option --hash_finest: found {self.hash_finest}, expected at least --hash_coarsest, "
                f"{self.hash_coarsest}"
            )


@dataclass(frozen=True)
class ConditioningOptions:
    """Conditioning (E-NeRF) and its scale-matched controls."""

    equilibrate: str = option(
        "none",
        "equilibrate the weights; bare: row, the paper's choice",
        choices=("none", *METHODS),
        bare="row",
        affects="model",
    )
    equilibrate_layers: str = option(
        "hidden",
        "which layers are conditioned, weight-normalised or started by --init: hidden (every linear layer with more "
        "than one output that is not an output head), trunk, or names such as trunk.0,feature",
        bare="hidden",
        affects="model",
    )
    equilibrate_gradient: str = option(
        "through",
        "the gradient passes through the norms, or takes them as constants",
        choices=("through", "detached"),
        affects="model",
    )
    equilibrate_scale: str = option(
        "fixed",
        "the size of an equilibrated matrix: fixed by the map as in the paper, kept as the raw weights' at every step, "
        "constant as at the start, or a learned gain from there (with --init he: He's variance)",
        choices=SCALES,
        affects="model",
    )
    equilibrate_p: float = option(
        2.0, "norm of rows and columns: 1, 2 or inf", choices=(1.0, 2.0, math.inf), affects="model"
    )
    weight_norm: bool = option(False, "control: weight normalisation of the same layers", affects="model")
    init: str = option(
        "default",
        "control: start of the same layers: PyTorch's, Glorot's, He's, or rows of unit norm",
        choices=INITS,
        affects="training",
    )

    def check(self) -> None:
        """Refuse two answers to one question.

        Raises
        ------
        InputError
            If both are given.
        """
        if self.weight_norm and self.equilibrate != "none":
            raise InputError(
                "options --weight_norm and --equilibrate are two answers to one question: give one of them"
            )


@dataclass(frozen=True)
class StepOptions:
    """Training, by whatever optimizer."""

    N_iters: int = option(200_000, "steps", at_least=0, affects="training")
    max_seconds: float = option(
        0.0, "end after that many seconds of training, evaluation aside; 0: never", at_least=0, affects="training"
    )
    lrate: float = option(5e-4, "learning rate", above=0, affects="training")
    lrate_decay: int = option(
        250, "the learning rate falls to a tenth in that many thousand steps", at_least=1, affects="training"
    )
    lrate_schedule: str = option(
        "decay",
        "decay: as lrate_decay says; cosine: from lrate to a hundredth of it over the whole run, by steps or by "
        "max_seconds, whichever ends first; constant: lrate; milestones: a tenth of it from half of the run on, a "
        "hundredth from three quarters",
        choices=("decay", "cosine", "constant", "milestones"),
        affects="training",
    )
    lrate_warmup: int = option(
        0, "steps over which the learning rate rises to its value", at_least=0, affects="training"
    )
    adam_beta2: float = option(0.999, "Adam's decay of squared gradients", above=0, at_most=0.99999, affects="training")
    adam_eps: float = option(1e-8, "Adam's epsilon", above=0, affects="training")
    seed: int = option(0, "fixes start, batches and noise", at_least=0, at_most=2**63 - 1, affects="training")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...", affects="neutral")
    precision: str = option(
        "auto",
        "of the factors of products inside networks; auto: bf16 where the machine multiplies in it",
        choices=("auto", "fp32", "bf16"),
        affects="training",
    )


@dataclass(frozen=True)
class FitOptions(StepOptions):
    """Training, whatever field is trained."""

    lrate_grid: float = option(0.0, "learning rate of hash grids; 0: lrate", at_least=0, affects="training")
    backend: str = option(
        "auto",
        "what evaluates networks and grids",
        choices=("auto", "torch", "compiled", "triton", "tinycudann"),
        affects="neutral",
    )


@dataclass(frozen=True)
class RecordOptions:
    """Experiment and its records, whatever is trained."""

    expname: str = option("", "name of the experiment; empty: the name of what it is trained on", affects="neutral")
    basedir: str = option("./logs", "results go to basedir/expname", affects="neutral")
    no_reload: bool = option(
        False, "start anew even if the experiment has checkpoints (they are kept aside)", affects="neutral"
    )
    ft_path: str = option(
        "",
        "start from this checkpoint (.pt, or nerf-pytorch's .tar) unless the experiment has its own: weights, "
        "optimiser and step; with --no_reload its weights only, at step 0",
        affects="training",
    )
    i_print: int = option(100, "steps between lines of train.jsonl", at_least=0, affects="neutral")
    i_weights: int = option(10_000, "steps between checkpoints; 0: at the end only", at_least=0, affects="neutral")
    i_eval: int = option(
        1000, "steps between points of the curve of test figures; 0: never", at_least=0, affects="neutral"
    )
    i_img: int = option(500, "steps between small test renders in TensorBoard; 0: never", at_least=0, affects="neutral")
    i_spectrum: int = option(
        1000, "steps between records of κ(W) and row norms; 0: never", at_least=0, affects="neutral"
    )
    no_final_eval: bool = option(False, "do not measure the result at the end", affects="neutral")
