"""Fixtures of tests of NeRF runs."""

from collections.abc import Callable

import pytest

from enerf.config import parser
from enerf.tasks.nerf.config import NerfConfig


@pytest.fixture
def make(request, scene, tmp_path) -> Callable[..., NerfConfig]:
    """Options of a run, those of ``BASE`` in the test's module, by its name and further words."""

    def make(name: str, *words: str) -> NerfConfig:
        where = ["--datadir", str(scene), "--basedir", str(tmp_path / "logs"), "--expname", name]
        return parser.parse(NerfConfig, [*request.module.BASE, *where, *words])[0]

    return make
