"""Tests of the kernel that works on bricks: it evaluates the same samples and makes the same mesh as NumPy."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.geometry.isosurface import cpu_bricks, extract
from enerf.geometry.isosurface.extract import ExtractionSettings
from enerf.geometry.isosurface.surface_cells import SurfaceCells
from tests.geometry.level_sets import Ball, Box, Ellipsoid, Steep, Torus, Union, Waves

pytestmark = pytest.mark.skipif(not cpu_bricks.available(), reason="there is no C++ compiler")

SNAPPED = Box((-0.5, -0.25, -0.75), (0.5, 0.25, 0.625))  # its walls lie on samples
FIELDS = (Ellipsoid(), Torus(0.9, 0.3), Waves(frequency=3.0), Steep(Union((Torus(), Ball(radius=0.2)))), SNAPPED)


def _both(field, box, options):
    """The extraction by the kernel and by the reference implementation, and the points that each evaluated.

    None in the place of the extractions if the field does not cross the iso value, by both of them.
    """
    found, asked = [], []
    for reference in (False, True):
        seen, chosen = [], dataclasses.replace(options, reference=reference)
        try:
            found.append(extract.extract(lambda p, seen=seen: seen.append(p) or field(p), box, chosen))
        except extract.NotCrossedError:
            found.append(None)
        asked.append(
            torch.cat([torch.zeros(0, 3, dtype=box.dtype), *seen])
        )  # a closed lattice may have no inner sample
    assert (found[0] is None) == (found[1] is None)
    return found, asked


@settings(max_examples=40, deadline=None)
@given(
    field=st.sampled_from(FIELDS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    cells=st.tuples(*[st.integers(9, 70)] * 3),
    coarsest=st.integers(3, 30),
    slope=st.sampled_from([None, 1, 4]),
    closed=st.booleans(),
    inside=st.sampled_from(["above", "below"]),
    points_at_once=st.sampled_from([173, 1 << 17]),
    iso_value=st.sampled_from([0.0, 0.0625]),
)
def test_samples_and_meshes_are_those_of_the_reference(field, dtype, cells, closed, inside, iso_value, **options):
    box = torch.tensor([[-1.0, -0.875, -1.0], [1.0, 1.0, 0.75]], dtype=dtype)
    chosen = ExtractionSettings(cells, iso_value, inside, closed=closed, **options)
    (one, other), (asked, expected) = _both(field, box, chosen)
    assert torch.equal(asked, expected)
    if one is None:
        return
    assert np.array_equal(one.vertices, other.vertices)
    assert np.array_equal(one.faces, other.faces)
    assert (one.evaluations, one.value_range) == (other.evaluations, other.value_range)


def test_threads_and_surface_cells_change_nothing(two_threads):
    torch.set_num_threads(2)
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    cells = SurfaceCells(np.argwhere(np.random.default_rng(0).random((32,) * 3) < 0.02), 32)
    chosen = ExtractionSettings(96, inside="below", coarsest=12, surface_cells=cells)
    (one, other), (asked, expected) = _both(Steep(Torus()), box, chosen)
    assert np.array_equal(one.vertices, other.vertices)
    assert np.array_equal(one.faces, other.faces)
    assert torch.equal(asked, expected)


@pytest.mark.parametrize("reference", [False, True])
def test_values_that_are_not_finite_are_refused_with_their_place(reference):
    chosen = ExtractionSettings(64, inside="below", slope=1, coarsest=8, reference=reference)
    field = lambda p: torch.where(p[:, 0] > 0.5, torch.nan, Ball()(p)) if len(p) != 9**3 else Ball()(p)  # noqa: E731
    with pytest.raises(ValueError, match=r"the field is not finite at .* points, first at"):
        extract.extract(field, torch.tensor([[-1.0] * 3, [1.0] * 3]), chosen)


def test_other_precisions_of_the_output_are_accepted():
    field = lambda p: Ball()(p).to(torch.bfloat16)  # noqa: E731
    (one, other), _ = _both(field, torch.tensor([[-1.0] * 3, [1.0] * 3]), ExtractionSettings(32, inside="below"))
    assert np.array_equal(one.vertices, other.vertices)
