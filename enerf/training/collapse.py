"""A blank image noticed: nothing opaque, or one colour for all rays while the photographs vary."""

import logging

from enerf.training.state import State
from enerf.training.steps import StepReport

log = logging.getLogger("enerf")

BLANK_STEPS = 500  # consecutive steps of a blank image that count as a collapse
BLANK_OPACITY, BLANK_VARIATION = 0.01, 0.02


def is_blank(report: StepReport) -> bool:
    """Whether a step saw a blank image."""
    return report.opacity < BLANK_OPACITY or report.rgb_std < BLANK_VARIATION * report.target_std


def watch(state: State, report: StepReport) -> None:
    """Count the steps of a blank image; say once that the run has collapsed, and once that it no longer is."""
    state.blank_for = state.blank_for + 1 if is_blank(report) else 0
    collapsed = state.blank_for >= BLANK_STEPS
    if collapsed and not state.collapsed:
        log.warning(
            "step %d: the rendered image has been blank for %d steps: this run has collapsed; another --seed, a lower "
            "--lrate or --raw_noise_std 0 may help",
            state.step,
            BLANK_STEPS,
        )
    if state.collapsed and not collapsed:
        log.info("step %d: the image is no longer blank", state.step)
    state.collapsed = collapsed
