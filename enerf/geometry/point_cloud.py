"""Occupancy from oriented points, by their generalized winding number.

Each point represents a small disc. The winding number of such a set is near 1 inside and near 0 outside, and unreliable
nearer to the surface than the spacing of the points; such places get the label 1/2.

Source: Barill, Dickson, Schmidt, Levin, Jacobson, Fast winding numbers for soups and clouds (2018), sections 3 and 4.
"""

import igl
import numpy as np
import torch
from jaxtyping import Float64

from enerf.core import rng
from enerf.geometry import samples
from enerf.geometry.cloud_normals import areas
from enerf.geometry.mesh import PointCloud
from enerf.geometry.samples import ShapeSamples

UNCERTAIN = 0.25  # winding numbers nearer than this to 1/2 are not labelled


class CloudSolid:
    """The region enclosed by a cloud of oriented points; can be pickled.

    Attributes
    ----------
    cloud
        The points and their normals.
    areas
        Surface area that each point represents, in box units: the area around it that holds its nearest
        neighbors, divided by their number.
    """

    def __init__(self, cloud: PointCloud) -> None:
        self.cloud, self.areas = cloud, areas(cloud.points)

    def winding(self, rows: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        """Winding numbers of points."""
        found = igl.fast_winding_number(self.cloud.points, self.cloud.normals, self.areas, np.ascontiguousarray(rows))
        return np.asarray(found, dtype=np.float64)


def pool(solid: CloudSolid, n: int, seed: int, index: int) -> ShapeSamples:
    """Pool ``index`` of a seed: points uniform in the box, labelled 1 inside, 0 outside, 1/2 where uncertain."""
    some = torch.from_numpy(samples.uniform(n, rng.generator_for(seed, index))).float()
    found = torch.from_numpy(solid.winding(some.double().numpy()))
    uncertain = (found - 0.5).abs() < UNCERTAIN
    return ShapeSamples(some, torch.where(uncertain, 0.5, (found > 0.5).double()).float())
