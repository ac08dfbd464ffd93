"""The start of a run of several processes: one prepares it first, the others likewise, and all of them are compared."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from enerf.config import options, parser
from enerf.config.options import RunConfig
from enerf.core import ranks
from enerf.core.errors import InputError
from enerf.engine import distributed, results, synchronized_norm, writer_lock
from enerf.engine.checkpoint import State
from enerf.engine.distributed import Team
from enerf.engine.run_record import Record
from enerf.fields.backends.registry import Resolved

log = logging.getLogger("enerf")


@runtime_checkable
class Prepared(Protocol):
    """A run that is prepared for training."""

    @property
    def config(self) -> Any:
        """Its options, a ``RunConfig``."""

    @property
    def state(self) -> State:
        """Its training state."""

    @property
    def record(self) -> Record:
        """What it is trained with."""

    @property
    def computed(self) -> dict[str, Any]:
        """Values that its data give, by words for messages, which all processes must have found alike."""


P = TypeVar("P", bound=Prepared)
T = TypeVar("T")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder in the first process; in the others nothing.

    Raises
    ------
    InputError
        As ``writer_lock.writing``, in the first process.
    """
    if not distributed.current().is_first:
        yield
        return
    with writer_lock.writing(folder):
        yield


@contextmanager
def published(folder: Path, step: int) -> Iterator[Path]:
    """Give the first process a folder for results of a step, as ``results.published``; the others write none."""
    if not distributed.current().is_first:
        yield folder
        return
    with results.published(folder, step) as out:
        yield out


def prepared(prepare: Callable[[Resolved | None], P], shared: Resolved | None) -> P:
    """Return a run that is ready to be trained.

    Of several processes the first one prepares it before the others, which take its backend, precision and initial
    weights, and load the kernels that it has compiled. Batch normalization uses statistics of the joint batch then.

    Parameters
    ----------
    prepare
        Function from the backend and precision that ``auto`` stands for in a new run to the run.
    shared
        What ``auto`` stands for.

    Raises
    ------
    InputError
        That of any process; or if the processes have different options, files or checkpoints.
    """
    team = distributed.current()
    if not team.is_joint:
        return prepare(shared)
    run = _in_turn(team, prepare, shared, lambda made: made.record.current)
    _require_equal(team, _description(run))
    team.start_alike(run.state.model)
    synchronized_norm.synchronize(run.state.model, team)
    return run


def opened(open_one: Callable[[], T], describe: Callable[[T], dict[str, Any]] | None = None) -> T:
    """Return a run that is opened to be evaluated; the processes must find the same checkpoint of it.

    A run that is trained meanwhile may have another one for each. ``describe`` returns what has to be equal; default:
    that of runs that are trained.

    Raises
    ------
    InputError
        That of any process; or if the processes have opened different checkpoints.
    """
    team = distributed.current()
    if not team.is_joint:
        return open_one()
    found = _in_turn(team, lambda _: open_one(), None, lambda _: None)
    _require_equal(team, _description(found) if describe is None else describe(found))  # type: ignore[arg-type]
    return found


def agreed(function: Callable[[], T]) -> T:
    """Return what a function returns in this process; an ``InputError`` of any process is raised in all of them."""
    team = distributed.current()
    if not team.is_joint:
        return function()
    made, message = _tried(function)
    _require_none(team, message)
    return made[0]


def _in_turn(team: Team, function: Callable[[Any], T], first: Any, given: Callable[[T], Any]) -> T:
    """Call a function in the first process, then in the first one of each other computer, then in all others.

    What one reads or compiles is in the caches of its computer then. The first process calls it with ``first``, the
    others with what ``given`` returns there.
    """
    made: list[T] = []

    def of_first() -> Any:
        made.append(function(first))
        return given(made[0])

    chosen = team.of_first(of_first)
    for is_turn in (ranks.local_rank() == 0, ranks.local_rank() > 0):
        own, message = ([], "") if made or not is_turn else _tried(lambda: function(chosen))
        made += own
        _require_none(team, message)
    return made[0]


def _tried(function: Callable[[], T]) -> tuple[list[T], str]:
    """Call a function; return its value in a list and "", or an empty list and the message of its ``InputError``."""
    try:
        return [function()], ""
    except InputError as error:
        return [], str(error)


def _require_none(team: Team, message: str) -> None:
    """Check that no process has an error message."""
    for rank, each in enumerate(team.gather(message)):
        if each:
            raise InputError(f"process {rank}: {each}")


def _require_equal(team: Team, description: dict[str, Any]) -> None:
    """Check that all processes have the same options, files and checkpoint."""
    found = team.gather(description)
    for rank, other in enumerate(found):
        for name in sorted(found[0].keys() | other.keys()):
            if (mine := found[0].get(name)) != (theirs := other.get(name)):
                raise InputError(
                    f"{name}: process 0 found {mine!r} and process {rank} {theirs!r}, expected the same options, data "
                    "and checkpoints for all processes of a run"
                )


def _description(run: Prepared) -> dict[str, Any]:
    """Return what has to be equal in all processes, by words for messages; files by their content, not their path."""
    config: RunConfig = run.config
    declared = options.declared(type(config))
    values = {name: value for name, value in parser.to_dict(config).items() if not declared[name].metadata["is_source"]}
    inputs = run.record.inputs
    return {
        **{f"option --{name}": value for name, value in values.items()},
        "files of the data": None if inputs is None else inputs.digest,
        "step of the checkpoint": run.state.step,
        "seconds of the checkpoint": run.state.seconds,
        "backend and precision": str(run.record.current),
        "precision of Muon": [g["products"] for g in run.state.optimizer.param_groups if "products" in g],
        "values of the model": sum(value.numel() for value in run.state.model.state_dict().values()),
        **run.computed,
    }


def warn_if_different(training: State) -> None:
    """Warn if the weights of the processes are not equal bit for bit, as they should be."""
    team = distributed.current()
    found = team.gather(distributed.digest(list(training.model.parameters()))) if team.is_joint else []
    if len(set(found)) > 1:
        log.warning(
            "step %d: the weights of the processes differ: they are of different kinds of processors or GPUs, or of "
            "different versions of torch; those of the first process are saved",
            training.step,
        )
