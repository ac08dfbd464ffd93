"""The options as frozen dataclasses, by subject.

Each field of a dataclass below is one option: its name, type, default, help and bounds stand in one place, and the
parser, the saved ``config.txt`` and the reader are made from them (``config.py``). A class's docstring is the title of
its group in ``--help``. Names that nerf-pytorch users know mean what they mean there, with its defaults.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from enerf.core.errors import InputError


class Placed(ABC):
    """A configuration with a name for what is learned, and a folder for the results.

    Attributes
    ----------
    run
        Its table of records, with ``basedir`` and ``expname``.
    train
        Its table of training, with ``N_iters``, ``lrate``, ``seed``.
    kind
        The task: ``nerf``, ``shape`` or ``classifier``.
    """

    run: Any
    train: Any
    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]  # every configuration is a dataclass of option tables

    def check(self) -> None:
        """Refuse combinations that cannot mean anything; nothing is refused here."""

    @property
    @abstractmethod
    def scene(self) -> str:
        """The name of what is learned."""

    @property
    def folder(self) -> Path:
        """``basedir/expname``; without a name of the experiment, that of what is learned."""
        return Path(self.run.basedir) / (self.run.expname or self.scene)


METHODS = ("row", "column", "row_column", "jacobi", "ruiz")
SCALES = ("fixed", "kept", "constant", "learned")
INITS = ("default", "glorot", "he", "unit_row")


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


def option(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field that is also an option; ``more``: choices, at_least, at_most, above, bare."""
    return field(default=default, metadata={"help": help, **more})


def as_in(table: type, name: str, default: Any) -> Any:
    """An option as another table has it, with another default."""
    return field(default=default, metadata=table.__dataclass_fields__[name].metadata)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class GridOptions:
    """Hash grid."""

    hash_levels: int = option(8, "levels of the hash grid", at_least=1, at_most=32)
    hash_features: int = option(4, "features an entry", choices=(1, 2, 4, 8))
    hash_log2_entries: int = option(16, "at most two to that power entries a level", at_least=4, at_most=26)
    hash_coarsest: int = option(16, "cells a side of the coarsest level", at_least=1)
    hash_finest: int = option(768, "cells a side of the finest level", at_least=1)

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
        "none", "equilibrate the weights; bare: row, the paper's choice", choices=("none", *METHODS), bare="row"
    )
    equilibrate_layers: str = option(
        "hidden",
        "which layers are conditioned, weight-normalised or started by --init: hidden (every linear layer with more "
        "than one output that is not an output head), trunk, or names such as trunk.0,feature",
        bare="hidden",
    )
    equilibrate_gradient: str = option(
        "through", "the gradient passes through the norms, or takes them as constants", choices=("through", "detached")
    )
    equilibrate_scale: str = option(
        "fixed",
        "the size of an equilibrated matrix: fixed by the map as in the paper, kept as the raw weights' at every step, "
        "constant as at the start, or a learned gain from there (with --init he: He's variance)",
        choices=SCALES,
    )
    equilibrate_p: float = option(2.0, "norm of rows and columns: 1, 2 or inf", choices=(1.0, 2.0, math.inf))
    weight_norm: bool = option(False, "control: weight normalisation of the same layers")
    init: str = option(
        "default", "control: start of the same layers: PyTorch's, Glorot's, He's, or rows of unit norm", choices=INITS
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
    """Training, by whatever optimiser."""

    N_iters: int = option(200_000, "steps", at_least=0)
    max_seconds: float = option(0.0, "end after that many seconds of training, evaluation aside; 0: never", at_least=0)
    lrate: float = option(5e-4, "learning rate", above=0)
    lrate_decay: int = option(250, "the learning rate falls to a tenth in that many thousand steps", at_least=1)
    lrate_schedule: str = option(
        "decay",
        "decay: as lrate_decay says; cosine: from lrate to a hundredth of it over the whole run, by steps or by "
        "max_seconds, whichever ends first; constant: lrate; milestones: a tenth of it from half of the run on, a "
        "hundredth from three quarters",
        choices=("decay", "cosine", "constant", "milestones"),
    )
    lrate_warmup: int = option(0, "steps over which the learning rate rises to its value", at_least=0)
    adam_beta2: float = option(0.999, "Adam's decay of squared gradients", above=0, at_most=0.99999)
    adam_eps: float = option(1e-8, "Adam's epsilon", above=0)
    seed: int = option(0, "fixes start, batches and noise", at_least=0, at_most=2**63 - 1)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...")
    precision: str = option(
        "auto",
        "of the factors of products inside networks; auto: bf16 where the machine multiplies in it",
        choices=("auto", "fp32", "bf16"),
    )


@dataclass(frozen=True)
class FitOptions(StepOptions):
    """Training, whatever field is trained."""

    lrate_grid: float = option(0.0, "learning rate of hash grids; 0: lrate", at_least=0)
    backend: str = option(
        "auto", "what evaluates networks and grids", choices=("auto", "torch", "compiled", "triton", "tinycudann")
    )


@dataclass(frozen=True)
class RecordOptions:
    """Experiment and its records, whatever is trained."""

    expname: str = option("", "name of the experiment; empty: the name of what it is trained on")
    basedir: str = option("./logs", "results go to basedir/expname")
    no_reload: bool = option(False, "start anew even if the experiment has checkpoints (they are kept aside)")
    ft_path: str = option(
        "",
        "start from this checkpoint (.pt, or nerf-pytorch's .tar) unless the experiment has its own: weights, "
        "optimiser and step; with --no_reload its weights only, at step 0",
    )
    i_print: int = option(100, "steps between lines of train.jsonl", at_least=0)
    i_weights: int = option(10_000, "steps between checkpoints; 0: at the end only", at_least=0)
    i_eval: int = option(1000, "steps between points of the curve of test figures; 0: never", at_least=0)
    i_img: int = option(500, "steps between small test renders in TensorBoard; 0: never", at_least=0)
    i_spectrum: int = option(1000, "steps between records of κ(W) and row norms; 0: never", at_least=0)
    no_final_eval: bool = option(False, "do not measure the result at the end")
