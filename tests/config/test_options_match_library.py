"""Tests of the torch-free copies in ``config.options``: they list what the conditioning library accepts."""

from typing import Any

import pytest

from enerf.conditioning import attention, baselines, maps, norms, parametrization, selection
from enerf.config import options
from enerf.config.options import ConditioningOptions, MapOptions
from enerf.datasets.scenes import poses
from enerf.optim import shrinkage
from enerf.tasks.classifier.config import ClassifierTrainOptions, NormalizationOptions
from enerf.tasks.nerf import config as nerf_config

TABLES = (ConditioningOptions, NormalizationOptions)


def choices(table: type[Any], name: str) -> tuple[Any, ...]:
    found: tuple[Any, ...] = table.__dataclass_fields__[name].metadata["choices"]
    return found


def test_lists_equal_those_of_the_library():
    assert tuple(maps.METHODS) == options.METHODS
    assert parametrization.SCALES == options.SCALES
    assert baselines.INITS == options.INITS
    assert set(options.METHODS) <= set(selection.METHODS)
    assert set(options.METHODS) <= set(parametrization.MAPS)


@pytest.mark.parametrize("table", TABLES)
def test_choices_of_options_are_those_of_the_library(table: type[Any]):
    assert set(choices(table, "equilibrate")) - {"none"} == set(maps.METHODS)
    assert choices(table, "equilibrate_gradient") == norms.GRADIENTS
    assert choices(table, "equilibrate_scale") == parametrization.SCALES
    assert choices(table, "equilibrate_p") == norms.P_NORMS
    of_attention = attention.INITS if table is NormalizationOptions else ()
    assert choices(table, "init") == (*baselines.INITS, *of_attention)
    assert isinstance(table(), MapOptions)


def test_axes_of_poses_are_those_of_the_reader():
    assert nerf_config.AXES == poses.AXES


def test_shrinkages_are_those_of_the_optimizers():
    assert choices(ClassifierTrainOptions, "shrinkage") == shrinkage.SHRINKAGES
