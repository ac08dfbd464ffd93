"""Declaration of options, and the option tables that several tasks share.

Each field of an option table declares one option: name, type, default, help, bounds and effect. The parser, the saved
``config.txt``, the rules of resuming and ``docs/options.md`` are generated from it. The first line of a table's
docstring is the title of its group in ``--help``. Options of nerf-pytorch keep their names, meaning and defaults.
Imports no torch.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

from enerf.config import conditionings
from enerf.core import files
from enerf.core.errors import InputError
from enerf.optim.table import MATRIX_OPTIMIZERS

METHODS = conditionings.MAPS
SCALES = conditionings.SCALES
INITS = ("default", "glorot", "he", "unit_row")
LARGEST = 2**63 - 1  # of whole numbers: torch and numpy hold them in 64 bits

# Largest values of options that size networks: far above any use, far below what cannot be built or counted.
WIDEST, DEEPEST, BANDS, FINEST = 1 << 16, 1000, 100, 1 << 20
STEPS = 10**12  # largest number of steps
INSTEAD_OF_OPTIMISER = (
    f"it is Adam, and with --conditioning {' or '.join(MATRIX_OPTIMIZERS)} another one for the hidden matrices"
)

# Effect of an option. model: names, shapes or meaning of the weights, so that a checkpoint made with another value does
# not fit. data: training and test data. training: the optimization. neutral: none of these.
Effect = Literal["model", "data", "training", "neutral"]


def option(
    default: Any,
    help: str,
    *,
    affects: Effect,
    model_key: Callable[[Any], Any] | None = None,
    is_length: bool = False,
    is_source: bool = False,
    absent: Any = None,
    automatic: Any = "auto",
    is_path: bool = False,
    is_name: bool = False,
    **bounds: Any,
) -> Any:
    """Return a dataclass field that is also a command-line option.

    Parameters
    ----------
    default, help
        The default value, and the text for ``--help``.
    affects
        The effect of the option; see ``Effect``.
    model_key
        Function of the value, for options that also decide the model in part: checkpoints fit if its results are equal.
        ``bool`` for a count that adds a network when it is above 0.
    is_length
        Whether it sets the length of the run, which affects the training only if the learning rate depends on it.
    is_source
        Whether it is the path of the data, which may be moved: the files' content is compared, not their path.
    absent
        What runs that were started before the option existed were trained with, if that is not the default.
    automatic
        The value that stands for one that the program chooses; runs record what was chosen.
    is_path
        Whether it is the path of a file or folder: ``~`` is expanded.
    is_name
        Whether it is a name inside of the folder of results, which it must not leave.
    bounds
        ``choices``, ``at_least``, ``at_most``, ``above`` (exclusive); ``bare``: the value if the option is given
        without one. Whole numbers are at most ``LARGEST`` in any case.

    Raises
    ------
    ValueError
        If ``affects`` is not an effect.
    """
    if affects not in get_args(Effect):
        raise ValueError(f"affects is {affects!r}; it must be one of {', '.join(get_args(Effect))}")
    return field(
        default=default,
        metadata={
            **{"help": help, "affects": affects, "model_key": model_key, "is_length": is_length},
            **{
                "is_source": is_source,
                "absent": absent,
                "automatic": automatic,
                "is_path": is_path,
                "is_name": is_name,
            },
            **bounds,
        },
    )


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
    source_expected: ClassVar[str] = "a file or a folder"  # what the path of the data names
    instead: ClassVar[dict[str, str]] = {}  # options of other tasks, with what this one has in their place
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
        """Raise ``InputError`` for the first invalid combination of options; the base accepts all."""

    def check_given(self, on_line: set[str], in_file: set[str]) -> None:  # noqa: B027
        """Raise ``InputError`` if an option has no effect that a command line or its file gives, even its default.

        A file that a run has written gives all options, and so does a line that repeats one.
        """

    def require_source(self) -> None:
        """Check that there is something at the paths of the data; their content is checked where it is read.

        Raises
        ------
        InputError
            If there is nothing.
        """
        for table in dataclasses.fields(self):
            values = getattr(self, table.name)
            for item in dataclasses.fields(values):
                path = getattr(values, item.name)
                if (
                    item.metadata["is_source"]
                    and path
                    and files.is_missing(files.expanded(path, f"option --{item.name}"))
                ):
                    raise InputError(f"option --{item.name}: {path} does not exist, expected {self.source_expected}")


def name_of(path: str) -> str:
    """Return the last name of a path; for one that ends in ``..`` that of the real folder, since it names results.

    >>> name_of("data/fern/"), name_of("data/horns/images/.."), name_of("")
    ('fern', 'horns', '')
    """
    return Path(path).resolve().name if Path(path).name == ".." else Path(path).name


def declared(config: type[RunConfig]) -> dict[str, "dataclasses.Field[Any]"]:
    """Return all options of a configuration class by name.

    Each value is the dataclass field, whose metadata contains help, bounds and effect.
    """
    tables = [table.type for table in dataclasses.fields(config)]
    return {item.name: item for table in tables for item in dataclasses.fields(table)}  # type: ignore[arg-type]


def title(table: type) -> str:
    """Return the title of a table's group in the help: the first line of its docstring."""
    return (table.__doc__ or table.__name__).strip().split("\n")[0].rstrip(".")


@runtime_checkable
class MapOptions(Protocol):
    """Options of the equilibration map, common to the option tables of fields and classifiers."""

    @property
    def equilibrate(self) -> str:
        """The map: ``none`` or one of ``METHODS``."""

    @property
    def equilibrate_gradient(self) -> str:
        """Whether the gradient passes ``through`` the norms, or they are ``detached``."""

    @property
    def equilibrate_scale(self) -> str:
        """Scale of the equilibrated matrix: one of ``SCALES``."""

    @property
    def equilibrate_p(self) -> float:
        """Order of the row or column norm: 1, 2 or inf."""


@dataclass(frozen=True)
class GridOptions:
    """Hash grid (with --encoding hash)."""

    hash_levels: int = option(
        8, "number of resolution levels of the hash grid", at_least=1, at_most=32, affects="model"
    )
    hash_features: int = option(4, "features per entry of the hash table", choices=(1, 2, 4, 8), affects="model")
    hash_log2_entries: int = option(
        16, "log2 of the maximum number of entries per level", at_least=4, at_most=26, affects="model"
    )
    hash_coarsest: int = option(
        16, "resolution of the coarsest level, in cells per axis", at_least=1, at_most=FINEST, affects="model"
    )
    hash_finest: int = option(
        768, "resolution of the finest level, in cells per axis", at_least=1, at_most=FINEST, affects="model"
    )

    def check(self) -> None:
        """Check that the finest level is not coarser than the coarsest.

        Raises
        ------
        InputError
            If it is.
        """
        if self.hash_finest < self.hash_coarsest:
            raise InputError(
                f"option --hash_finest: found {self.hash_finest}, expected at least --hash_coarsest, "
                f"{self.hash_coarsest}"
            )


@dataclass(frozen=True)
class ConditioningOptions:
    """Weight conditioning (E-NeRF) and scale-matched controls."""

    equilibrate: str = option(
        "none",
        "matrix map that conditions the weights; without a value: row, as in the paper",
        choices=("none", *METHODS),
        bare="row",
        affects="model",
    )
    conditioning: str = option(
        "none",
        "conditioning method in the place of --equilibrate and --weight_norm: a method of the weights, a normalization "
        f"layer before each hidden activation, an optimizer of the hidden matrices, or some joined by +, such as "
        f"row+muon: {', '.join(conditionings.names())}",
        affects="model",
        absent="none",
    )
    equilibrate_layers: str = option(
        "hidden",
        "layers to which --equilibrate, --conditioning and --init apply: hidden (all linear layers with more than one "
        "output except output heads), trunk, or names separated by commas, e.g. trunk.0,feature",
        bare="hidden",
        affects="model",
    )
    equilibrate_gradient: str = option(
        "through",
        "through: backpropagate through the norms of the map; detached: treat them as constants",
        choices=("through", "detached"),
        affects="model",
    )
    equilibrate_scale: str = option(
        "fixed",
        "size of a mapped matrix (Frobenius norm; of spectral_norm the largest singular value): fixed: as the map "
        "gives it, as in the paper; kept: that of the raw weights; constant: that of the raw weights at "
        "initialization; learned: a trained gain, initially as constant; learned_rows: a trained gain for each row, "
        "initially such that rows keep their norms",
        choices=SCALES,
        affects="model",
    )
    equilibrate_p: float = option(
        2.0, "order p of the row and column norms: 1, 2 or inf", choices=(1.0, 2.0, math.inf), affects="model"
    )
    lrate_matrices: float = option(
        0.0,
        "initial learning rate of the hidden matrices, if --conditioning names an optimizer for them; 0: as --lrate",
        at_least=0,
        affects="training",
        absent=0.0,
    )
    weight_norm: bool = option(
        False, "control: weight normalization (Salimans, Kingma 2016) of the same layers", affects="model"
    )
    init: str = option(
        "default",
        "control: initialization of the same layers: default (PyTorch's), glorot, he, or unit_row (rows of unit norm)",
        choices=INITS,
        affects="training",
    )

    @property
    def methods(self) -> conditionings.Conditioning:
        """What ``conditioning``, ``equilibrate`` and ``weight_norm`` ask for.

        Raises
        ------
        InputError
            If ``conditioning`` is not a name.
        """
        found = conditionings.parse(self.conditioning)
        weights = "weight_norm" if self.weight_norm else self.equilibrate
        return found if weights == "none" else dataclasses.replace(found, weights=weights)

    def check(self) -> None:
        """Check that at most one method of the weights is given, and that no option of a map lacks the map.

        Raises
        ------
        InputError
            If that is not so.
        """
        given = [f"--conditioning {self.conditioning}"] * (self.conditioning != "none")
        given += ["--weight_norm"] * self.weight_norm + ["--equilibrate"] * (self.equilibrate != "none")
        if len(given) > 1:
            raise InputError(
                f"options {given[0]} and {given[1]} are mutually exclusive: give one of them (methods of different "
                "kinds are joined by +, as in --conditioning row+muon)"
            )
        weights, known = self.methods.weights, conditionings.values_of(self.methods.weights)
        if weights == "fourier" and self.init != "default":
            raise InputError(
                f"option --init: found {self.init} with fourier, expected --init default: it draws its own weights"
            )
        with_method = "without a map of the weights" if weights == "none" else f"with the method {weights}"
        for name in conditionings.MAP_OPTIONS:
            value, field = getattr(self, name), type(self).__dataclass_fields__[name]
            if value == field.default or value in known.get(name, ()):
                continue
            if weights == "none":
                expected = "--equilibrate, or a map in --conditioning: it has no effect on other methods"
            else:
                expected = " or ".join(f"{each:g}" if isinstance(each, float) else each for each in known.get(name, ()))
            raise InputError(f"option --{name}: found {value} {with_method}, expected {expected or field.default}")
        if self.methods.normalization != "none" and self.equilibrate_layers != "hidden":
            raise InputError(
                f"option --equilibrate_layers: found {self.equilibrate_layers} with {self.methods.normalization}, "
                "expected hidden: it normalizes all hidden layers"
            )

    def check_effects(self) -> None:
        """Check that the options have an effect in this run; those of a comparison can have one in some of its runs.

        Raises
        ------
        InputError
            If one has not.
        """
        is_plain = (self.methods.weights, self.methods.optimizer, self.init) == ("none", "none", "default")
        if self.equilibrate_layers != "hidden" and is_plain:
            raise InputError(
                f"option --equilibrate_layers: found {self.equilibrate_layers} without a method of these layers, "
                "expected --equilibrate, --conditioning, --weight_norm or --init"
            )
        if self.lrate_matrices and self.methods.optimizer == "none":
            raise InputError(
                f"option --lrate_matrices: found {self.lrate_matrices:g} with --conditioning {self.conditioning}, "
                f"expected {' or '.join(MATRIX_OPTIMIZERS)} in it: Adam has the rate --lrate for all parameters"
            )


@dataclass(frozen=True)
class StepOptions:
    """Training."""

    N_iters: int = option(
        200_000, "number of training steps", at_least=0, at_most=STEPS, affects="training", is_length=True
    )
    max_seconds: float = option(
        0.0,
        "stop after this many seconds of training, without evaluation; 0: no limit",
        at_least=0,
        affects="training",
        is_length=True,
    )
    lrate: float = option(5e-4, "initial learning rate", above=0, affects="training")
    lrate_decay: int = option(
        250,
        "thousands of steps in which the learning rate decays to a tenth (--lrate_schedule decay)",
        at_least=1,
        at_most=STEPS,
        affects="training",
    )
    lrate_schedule: str = option(
        "decay",
        "decay: exponential, see --lrate_decay; cosine: from lrate to lrate/100 over the whole run, by steps or "
        "max_seconds, whichever ends first; exponential: from lrate to lrate * lrate_end over the whole run, likewise; "
        "constant: lrate; milestones: lrate/10 from half of the run on, lrate/100 from three quarters",
        choices=("decay", "cosine", "exponential", "constant", "milestones"),
        affects="training",
    )
    lrate_end: float = option(
        0.2,
        "last learning rate as a fraction of the first (--lrate_schedule exponential)",
        above=0,
        at_most=1,
        affects="training",
    )
    lrate_warmup: int = option(
        0, "steps of linear learning-rate warm-up; 0: none", at_least=0, at_most=STEPS, affects="training"
    )
    adam_beta2: float = option(
        0.999, "Adam's beta2, the decay of the squared-gradient average", above=0, at_most=0.99999, affects="training"
    )
    adam_eps: float = option(1e-8, "Adam's epsilon", above=0, affects="training")
    seed: int = option(
        0, "random seed of initialization, batches and noise", at_least=0, at_most=LARGEST, affects="training"
    )
    device: str = option("auto", "device: auto (cuda if available), cpu, cuda, cuda:1 ...", affects="neutral")
    precision: str = option(
        "auto",
        "precision of matrix products inside networks; auto: bf16 where the device has bf16 arithmetic",
        choices=("auto", "fp32", "bf16"),
        affects="training",
    )


@dataclass(frozen=True)
class FitOptions(StepOptions):
    """Training of a field."""

    lrate_grid: float = option(
        0.0, "initial learning rate of hash grids; 0: as --lrate", at_least=0, affects="training"
    )
    backend: str = option(
        "auto",
        "code that evaluates networks and hash grids; auto: the preferred one that passes its self-test on the device",
        choices=("auto", "torch", "compiled", "triton", "tinycudann"),
        affects="neutral",
    )


@dataclass(frozen=True)
class RecordOptions:
    """Experiment, logging and checkpoints."""

    expname: str = option(
        "",
        "experiment name; empty: the name of the scene, shape or data set",
        affects="neutral",
        is_name=True,
    )
    basedir: str = option("./logs", "results are written to BASEDIR/EXPNAME", affects="neutral", is_path=True)
    no_reload: bool = option(
        False,
        "start a new run even if the experiment has checkpoints (they are renamed, not deleted)",
        affects="neutral",
    )
    resume_with_changes: bool = option(
        False,
        "resume although options or files that affect the training have changed; the change is recorded in the run's "
        "history",
        affects="neutral",
    )
    ft_path: str = option(
        "",
        "checkpoint (.pt, or nerf-pytorch's .tar) to start from if the experiment has none: weights, optimizer state "
        "and step; with --no_reload the weights only, at step 0",
        affects="training",
        is_path=True,
    )
    i_print: int = option(100, "steps between lines of train.jsonl; 0: at the end only", at_least=0, affects="neutral")
    i_weights: int = option(
        10_000, "steps between checkpoints, all of which are kept; 0: at the end only", at_least=0, affects="neutral"
    )
    checkpoint_minutes: float = option(
        5.0, "minutes between further checkpoints, in checkpoints/recent; 0: none", at_least=0, affects="neutral"
    )
    checkpoints_kept: int = option(3, "number of checkpoints kept in checkpoints/recent", at_least=1, affects="neutral")
    i_eval: int = option(1000, "steps between evaluations for the test curve; 0: never", at_least=0, affects="neutral")
    i_img: int = option(
        500, "steps between small test renderings in TensorBoard; 0: never", at_least=0, affects="neutral"
    )
    i_spectrum: int = option(
        1000,
        "steps between logs of κ, ranks and row norms of layers, of applied and of raw weights; 0: never",
        at_least=0,
        affects="neutral",
    )
    no_final_eval: bool = option(False, "skip the final evaluation", affects="neutral")
