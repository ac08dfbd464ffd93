"""Oriented points as a solid: which places they enclose, by the winding number that their normals tell.

Each point stands for a small disc. The winding number of such a set is near 1 inside and near 0 outside, and says
little nearer to the surface than the points lie to one another; what it leaves in doubt has no label.

Source: Barill, Dickson, Schmidt, Levin, Jacobson, Fast winding numbers for soups and clouds (2018), sections 3 and 4.
"""

import igl
import numpy as np
import torch
from jaxtyping import Float64
from scipy.spatial import cKDTree

from enerf.core import rng
from enerf.geometry import samples
from enerf.geometry.mesh import PointCloud
from enerf.geometry.samples import ShapeSamples

NEIGHBOURS = 8  # by which a point's share of the surface is told
DOUBT = 0.25  # winding numbers nearer than this to 1/2 tell nothing


class CloudSolid:
    """A cloud of oriented points that is asked what is inside; it can be pickled.

    Attributes
    ----------
    cloud
        The points and their normals.
    areas
        The share of the surface that each point stands for, in the box's unit: that of a disc which would hold
        ``NEIGHBOURS`` points.
    """

    def __init__(self, cloud: PointCloud) -> None:
        self.cloud, self.areas = cloud, areas(cloud.points)

    def winding(self, rows: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        """Winding numbers of places."""
        found = igl.fast_winding_number(self.cloud.points, self.cloud.normals, self.areas, np.ascontiguousarray(rows))
        return np.asarray(found, dtype=np.float64)


def areas(rows: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """The share of a surface that each of its points stands for, by the distance to a near neighbour.

    >>> round(float(areas(np.stack([*np.mgrid[:20, :20], np.zeros((20, 20))], -1).reshape(-1, 3))[210]), 2)
    0.79
    """
    k = min(NEIGHBOURS, len(rows) - 1)
    if k < 1:
        return np.ones(len(rows))
    reach = cKDTree(rows).query(rows, k + 1)[0][:, -1]
    return np.asarray(np.pi * reach**2 / k)


def pool(solid: CloudSolid, n: int, seed: int, index: int) -> ShapeSamples:
    """Pool ``index`` of a seed: places all over the box, labelled 1 inside, 0 outside, 1/2 where that is in doubt."""
    some = torch.from_numpy(samples.uniform(n, rng.generator_for(seed, index))).float()
    found = torch.from_numpy(solid.winding(some.double().numpy()))
    doubtful = (found - 0.5).abs() < DOUBT
    return ShapeSamples(some, torch.where(doubtful, 0.5, (found > 0.5).double()).float())
