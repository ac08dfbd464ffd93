"""Learning-rate schedules."""

import math

from enerf.config.options import StepOptions
from enerf.engine.checkpoint import State


def learning_rate(options: StepOptions, training: State) -> float:
    """Return the learning rate of the next step: the schedule's value times a linear warm-up factor.

    ``cosine``, ``exponential`` and ``milestones`` depend on the finished fraction of the run: of its steps or, with
    ``max_seconds``, of its training time, whichever is larger. With ``max_seconds`` they are therefore not
    reproducible.
    """
    warmup = min(1.0, (training.step + 1) / (options.lrate_warmup + 1))
    if options.lrate_schedule == "decay":
        return warmup * decay(training.step, options.lrate, options.lrate_decay)
    if options.lrate_schedule == "constant":
        return warmup * options.lrate
    done = training.step / max(options.N_iters, 1)
    if options.max_seconds > 0:
        done = max(done, training.seconds / options.max_seconds)
    if options.lrate_schedule == "milestones":
        return warmup * milestones(done, options.lrate)
    if options.lrate_schedule == "exponential":
        return warmup * exponential(done, options.lrate, options.lrate_end)
    return warmup * cosine(done, options.lrate)


def depends_on_length(options: StepOptions) -> bool:
    """Return whether the learning rate of a step depends on the length of the run, not only on the step.

    >>> depends_on_length(StepOptions(lrate_schedule="cosine")), depends_on_length(StepOptions(lrate_schedule="decay"))
    (True, False)
    """
    return options.lrate_schedule in ("cosine", "exponential", "milestones")


def decay(step: int, lrate: float | int, decay_thousands: float | int) -> float:
    """Return the learning rate of a step: exponential decay to a tenth in ``decay_thousands`` · 1000 steps.

    >>> decay(250_000, 5e-4, 250)
    5e-05
    """
    return lrate * 0.1 ** (step / (decay_thousands * 1000))


def cosine(done: float | int, lrate: float | int, end: float | int = 0.01) -> float:
    """Return the learning rate at a finished fraction of the run: cosine annealing from ``lrate`` to ``end * lrate``.

    Source: Loshchilov, Hutter, SGDR, ICLR 2017, equation 5, without restarts.

    >>> cosine(0.0, 1.0), round(cosine(0.5, 1.0), 3), cosine(1.0, 1.0)
    (1.0, 0.505, 0.01)
    """
    return lrate * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def exponential(done: float | int, lrate: float | int, end: float | int) -> float:
    """Return the learning rate at a finished fraction of the run: exponential decay from ``lrate`` to ``end * lrate``.

    >>> exponential(0.0, 1.0, 0.25), exponential(0.5, 1.0, 0.25), exponential(2.0, 1.0, 0.25)
    (1.0, 0.5, 0.25)
    """
    return lrate * end ** min(done, 1.0)


def milestones(done: float | int, lrate: float | int) -> float:
    """Return the learning rate at a finished fraction of the run: lrate, lrate / 10 from 0.5 on, lrate / 100 from 0.75.

    Sources: He et al., ResNet, CVPR 2016, section 4.2; Huang et al., DenseNet, CVPR 2017, section 4.2.

    >>> milestones(0.49, 1.0), milestones(0.5, 1.0), milestones(0.75, 1.0)
    (1.0, 0.1, 0.01)
    """
    return lrate * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
