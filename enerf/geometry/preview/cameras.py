"""Look-at cameras for pictures of shapes, and camera paths around them.

``azimuth`` rotates about the **up** axis in degrees: 0 is the front (+z if y is up, −y if z is up), 90 is +x in both
cases. ``elevation`` is the angle above the horizon in degrees. Ray directions are unit vectors.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Up = Literal["y", "z"]


@dataclass(frozen=True)
class View:
    """A camera that looks at ``center`` from ``distance``; ``fov`` is the vertical field of view in degrees."""

    center: tuple[float, float, float]
    distance: float | int
    azimuth: float | int = 30.0
    elevation: float | int = 20.0
    width: int = 512
    height: int = 512
    fov: float | int = 30.0
    up: Up = "y"

    @property
    def axes(self) -> Float[Tensor, "3 3"]:
        """Camera axes as rows: right, up, and backwards (from the center to the camera).

        >>> View((0.0, 0.0, 0.0), 1.0, azimuth=90, elevation=0).axes.round(decimals=6).abs().tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
        """
        turn, rise = math.radians(self.azimuth), math.radians(self.elevation)
        right = [math.cos(turn), 0.0, -math.sin(turn)]
        back = [math.sin(turn) * math.cos(rise), math.sin(rise), math.cos(turn) * math.cos(rise)]
        above = [-math.sin(turn) * math.sin(rise), math.cos(rise), -math.cos(turn) * math.sin(rise)]
        axes = torch.tensor([right, above, back], dtype=torch.float64)
        if self.up == "z":
            axes = torch.stack([axes[:, 0], -axes[:, 2], axes[:, 1]], 1)
        return axes

    def rays(self, supersample: int = 1) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "h w 3"]]:
        """Origins and unit directions through pixel centers, with ``supersample``² rays per pixel; float64."""
        height, width = self.height * supersample, self.width * supersample
        y, x = torch.meshgrid(
            (0.5 - (torch.arange(height, dtype=torch.float64) + 0.5) / height) * 2,
            ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5) * 2,
            indexing="ij",
        )
        reach = math.tan(math.radians(self.fov) / 2)
        local = torch.stack([x * reach * self.width / self.height, y * reach, -torch.ones_like(x)], -1)
        directions = local @ self.axes
        origin = torch.tensor(self.center, dtype=torch.float64) + self.distance * self.axes[2]
        return origin.expand(directions.shape), directions / directions.norm(dim=-1, keepdim=True)


def around(
    low: Float[np.ndarray, " 3"], high: Float[np.ndarray, " 3"], *, margin: float | int = 0.05, view: View | None = None
) -> View:
    """A view that shows a whole box: aimed at its center, from where its bounding sphere and a margin fit.

    Angles, image size and up axis are those of ``view``.
    """
    view = view or View((0.0, 0.0, 0.0), 1.0)
    x, y, z = ((low + high) / 2).tolist()
    narrow = min(1.0, view.width / view.height) * math.tan(math.radians(view.fov) / 2)
    distance = (1 + margin) * float(np.linalg.norm(high - low)) / 2 / math.sin(math.atan(narrow))
    return dataclasses.replace(view, center=(x, y, z), distance=distance)


def swing(view: View, frames: int, degrees: float | int) -> list[View]:
    """Views that swing to both sides by up to ``degrees`` and back, starting and ending in the middle.

    >>> [round(v.azimuth) for v in swing(View((0.0, 0.0, 0.0), 1.0, azimuth=10), 4, 20)]
    [10, 30, 10, -10]
    """
    azimuths = [view.azimuth + degrees * math.sin(2 * math.pi * i / frames) for i in range(frames)]
    return [dataclasses.replace(view, azimuth=azimuth) for azimuth in azimuths]


def turn(view: View, frames: int) -> list[View]:
    """Evenly spaced views of a full turn, starting with the given one.

    >>> [v.azimuth for v in turn(View((0.0, 0.0, 0.0), 1.0, azimuth=10), 4)]
    [10.0, 100.0, 190.0, 280.0]
    """
    return [dataclasses.replace(view, azimuth=view.azimuth + 360.0 * i / frames) for i in range(frames)]
