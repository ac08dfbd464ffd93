"""Learning rates over a run."""

import math

from enerf.config.options import StepOptions
from enerf.engine.checkpoint import State


def of_step(options: StepOptions, training: State) -> float:
    """The learning rate of the next step: the schedule's, times the share of the warm-up that is done.

    Cosine and milestones run over the steps or over the seconds of training, whichever are nearer to their end; with
    ``max_seconds`` they are therefore not the same from run to run.
    """
    warm = min(1.0, (training.step + 1) / (options.lrate_warmup + 1))
    if options.lrate_schedule == "decay":
        return warm * decay(training.step, options.lrate, options.lrate_decay)
    if options.lrate_schedule == "constant":
        return warm * options.lrate
    done = training.step / max(options.N_iters, 1)
    if options.max_seconds > 0:
        done = max(done, training.seconds / options.max_seconds)
    if options.lrate_schedule == "milestones":
        return warm * milestones(done, options.lrate)
    return warm * cosine(done, options.lrate)


def depends_on_length(options: StepOptions) -> bool:
    """Return whether the learning rate of a step depends on how long the run is, not only on the step.

    >>> depends_on_length(StepOptions(lrate_schedule="cosine")), depends_on_length(StepOptions(lrate_schedule="decay"))
    (True, False)
    """
    return options.lrate_schedule in ("cosine", "milestones")


def decay(step: int, lrate: float | int, decay_thousands: float | int) -> float:
    """The learning rate of a step: falls exponentially, to a tenth in ``decay_thousands`` · 1000 steps.

    >>> decay(250_000, 5e-4, 250)
    5e-05
    """
    return lrate * 0.1 ** (step / (decay_thousands * 1000))


def cosine(done: float | int, lrate: float | int, end: float | int = 0.01) -> float:
    """The learning rate when a share of the run is done: half a cosine wave from ``lrate`` to ``end`` of it.

    Source: Loshchilov, Hutter, SGDR, ICLR 2017, equation 5, without restarts.

    >>> cosine(0.0, 1.0), round(cosine(0.5, 1.0), 3), cosine(1.0, 1.0)
    (1.0, 0.505, 0.01)
    """
    return lrate * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def milestones(done: float | int, lrate: float | int) -> float:
    """The learning rate when a share of the run is done: a tenth from half of it on, a hundredth from three quarters.

    Sources: He et al., ResNet, CVPR 2016, section 4.2; Huang et al., DenseNet, CVPR 2017, section 4.2.

    >>> milestones(0.49, 1.0), milestones(0.5, 1.0), milestones(0.75, 1.0)
    (1.0, 0.1, 0.01)
    """
    return lrate * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
