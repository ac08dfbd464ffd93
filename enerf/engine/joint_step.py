"""The step of several processes: each adds the gradient of its share of the batch, then all have that of the batch.

In each step there is one exchange of a few numbers on the CPUs, before the gradients are summed: whether a process is
to stop or has failed, the time that the first one has measured, and the parts of the step's figures. So all processes
stop after the same step, use up the same time, have the same learning rate, and raise the same errors.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from enerf.core.errors import InputError, ProcessLost
from enerf.engine import distributed, synchronized_norm
from enerf.engine.checkpoint import State
from enerf.engine.distributed import Team

R = TypeVar("R")
FIGURES = 32  # numbers of an exchange for the figures of a step
_STOP, _FAILED, _SECONDS, _VALUES, _COUNT, _HEAD = range(6)


@dataclass(frozen=True)
class Part(Generic[R]):
    """What a process has found in its share of a batch.

    Attributes
    ----------
    numbers
        At most ``FIGURES`` numbers whose sums over the processes are those of the batch.
    report
        Function from these sums to the figures of the step.
    """

    numbers: Sequence[float]
    report: Callable[[Sequence[float]], R]


class JointStep(Generic[R]):
    """Step function of several processes, for ``trainer.train_loop``.

    Parameters
    ----------
    team
        The processes.
    step
        Adds the gradient of this process's part of the loss to the parameters.
    stop_requested
        Whether a signal has asked this process to stop.
    """

    def __init__(self, team: Team, step: Callable[[State], Part[R]], stop_requested: Callable[[], bool]) -> None:
        self._team, self._step, self._stop_requested = team, step, stop_requested
        self._is_to_stop = False
        self._counted = 0.0  # seconds of the present step that the processes have agreed on
        self._left = 0.0  # seconds of the last step that were not counted
        self._measured = 0.0

    def __call__(self, state: State) -> R:
        """Compute the gradient of the joint batch and return its figures.

        Raises
        ------
        InputError
            That of another process.
        ProcessLost
            If another process has ended.
        """
        began = time.perf_counter()
        try:
            part = self._step(state)
        except Exception as error:
            if not synchronized_norm.exchanges_within(state.model):
                self._announce(error)
            elif distributed.is_closed_connection(error):
                raise distributed.lost(error, self._team.size) from None
            raise  # others that wait for it within the step notice that this process ends
        gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
        self._measured = time.perf_counter() - began
        sums = self._exchanged(part.numbers, sum(each.numel() for each in gradients))
        self._team.sum_gradients(gradients)
        return part.report(sums)

    def is_to_stop(self) -> bool:
        """Whether a signal has asked a process to stop, as all processes know since the last exchange."""
        return self._is_to_stop

    def seconds(self, elapsed: float) -> float:
        """Return the time of the step that all processes count, and keep the rest of ``elapsed`` for the next step."""
        self._left = elapsed - self._measured
        return self._counted

    def _exchanged(self, numbers: Sequence[float], values: int) -> list[float]:
        """Return the sums of the figures of all processes; take up what they have decided."""
        assert len(numbers) <= FIGURES
        head = [float(self._stop_requested()), 0.0, self._measured + self._left, float(values), float(len(numbers))]
        found = self._team.exchange([*head, *numbers, *[0.0] * (FIGURES - len(numbers))])
        self._raise_failures([each[_FAILED] for each in found], "")
        if len({(each[_VALUES], each[_COUNT]) for each in found}) > 1:
            sizes = [int(each[_VALUES]) for each in found]
            raise InputError(f"the processes have gradients of {sizes} values, expected equally many")
        self._is_to_stop = any(each[_STOP] for each in found)
        self._counted = found[0][_SECONDS]
        parts = torch.tensor([each[_HEAD : _HEAD + len(numbers)] for each in found], dtype=torch.float64)
        sums: list[float] = parts.sum(0).tolist()
        return sums

    def _announce(self, error: Exception) -> None:
        """Tell the other processes that this one has failed."""
        if isinstance(error, ProcessLost):
            return
        try:
            found = self._team.exchange([0.0, 1.0, *[0.0] * (FIGURES + _HEAD - 2)])
            self._raise_failures([each[_FAILED] for each in found], str(error) or type(error).__name__)
        except (InputError, ProcessLost):
            pass  # its own error is raised

    def _raise_failures(self, failed: Sequence[float], own: str) -> None:
        """Raise the error of the first process that has failed, if one has."""
        if not any(failed):
            return
        messages = self._team.gather(own.splitlines()[0] if own else "")
        rank = next(i for i, each in enumerate(failed) if each)
        raise InputError(f"process {rank} has failed: {messages[rank]}")
