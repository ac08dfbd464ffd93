"""Where a run's results are, whatever kind of run it is."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class Placed(ABC):
    """A configuration with a name for what is learned, and a folder for the results.

    Attributes
    ----------
    run
        Its table of records, with ``basedir`` and ``expname``.
    """

    run: Any

    @property
    @abstractmethod
    def scene(self) -> str:
        """The name of what is learned."""

    @property
    def folder(self) -> Path:
        """``basedir/expname``; without a name of the experiment, that of what is learned."""
        return Path(self.run.basedir) / (self.run.expname or self.scene)
