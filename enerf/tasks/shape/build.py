"""Numbers to a shape's field: freshly started, and conditioned from outside as ``build.radiance_fields`` does it.

The order is the same contract: build -> start -> condition -> device -> optimiser -> load. Random numbers are drawn
before any control or map is applied, those of the encoder first: Fourier features depend on the seed (and on their own
size), and on nothing else.
"""

import logging

import torch

from enerf.config.options import ConditioningOptions
from enerf.core.errors import InputError
from enerf.core.types import Space
from enerf.fields import conditioning as fields_conditioning
from enerf.fields import encoders, init
from enerf.fields.activations import Activation
from enerf.fields.backends.hashgrid import Grid, make_grid
from enerf.fields.encoders import Encoder
from enerf.fields.shape import HEADS, SKIP_AT, ShapeField

log = logging.getLogger("enerf")

BOX = Space((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
GRID = make_grid(8, 4, 16, 16, 768)  # the options' defaults
DIVIDES_INPUTS = ("row", "row_column", "jacobi", "ruiz")  # maps that raise an input of zero weights to a unit row


def shape_field(
    conditioning: ConditioningOptions,
    seed: int,
    *,
    inputs: int = 3,
    outputs: int = 1,
    depth: int = 8,
    width: int = 256,
    skip_at: int = SKIP_AT,
    encoding: str = "positional",
    bands: int = 6,
    waves: int = 256,
    wave_scale: float | int = 6.0,
    grid: Grid = GRID,
    space: Space = BOX,
    activation: str = "relu",
    beta: float | int = 100.0,
    omega: float | int = 30.0,
    sigma: float | int = 0.1,
    start_radius: float | int = 0.0,
) -> ShapeField:
    """A freshly started and conditioned field, on the CPU; torch's global random numbers stay as they were.

    Sine layers get SIREN's start, all others PyTorch's, unless a sphere is asked for.

    Parameters
    ----------
    conditioning
        Start, map or control, and the layers that they concern.
    seed
        Fixes every raw weight, whatever ``conditioning`` says (but for an ``init`` that draws anew, and for the size of
        the head under ``start_radius``).
    inputs, outputs
        Coordinates of a point, 2 or 3; values of a point, 1 for a shape and 3 for an image.
    depth, width, skip_at
        Activated layers, their width, and which of them sees the encoded points again (0: none).
    encoding
        ``none``, ``positional`` with ``bands``, ``fourier`` with ``waves`` of standard deviation ``wave_scale``, or
        ``hash`` with ``grid`` over ``space``.
    activation
        ``relu``, ``softplus`` with ``beta``, ``sine`` with ``omega``, or ``gaussian`` with ``sigma``.
    start_radius
        Above 0: the field begins as about the distance to a sphere of that radius around the origin, and Fourier
        features and hash grids come with the points themselves. 0: the usual start.

    Raises
    ------
    InputError
        If options do not go together, or a layer or method is asked for that cannot be conditioned.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
            encoder = _encoder(encoding, inputs, bands, waves, wave_scale, grid, space, start_radius > 0)
            function = Activation(activation, beta, omega, sigma)
            field = ShapeField(encoder, depth, width, outputs, activation=function, skip_at=skip_at)
            _start(field, start_radius)
        _condition(field, conditioning, seed, start_radius)
    except ValueError as error:
        raise InputError(f"the options of the field: {error}") from None
    return field


def _encoder(
    kind: str,
    d: int,
    bands: int,
    waves: int,
    wave_scale: float | int,
    grid: Grid,
    space: Space,
    with_points: bool,
) -> Encoder:
    """The encoder; one that begins with the points if these are asked for."""
    if kind == "none":
        return Encoder(d)
    if kind == "positional":
        return encoders.Positional(d, bands)
    if kind not in encoders.KINDS:
        raise ValueError(f"encoding is {kind!r}; it must be one of {', '.join(encoders.KINDS)}")
    inner = encoders.Fourier(d, waves, wave_scale) if kind == "fourier" else encoders.HashEncoder(grid, space, d)
    return encoders.WithPoints(inner) if with_points else inner


def _start(field: ShapeField, radius: float | int) -> None:
    """Put the weights where training begins."""
    if radius > 0:
        init.geometric_(field, radius)
    elif field.activation.kind == "sine":
        init.siren_(field.linears(), field.activation.omega)


def _condition(field: ShapeField, options: ConditioningOptions, seed: int, start_radius: float | int) -> None:
    """Apply the control's start, then the map or the control, to the chosen layers; then see to the sphere.

    A map that divides inputs by their norms would raise an input that begins with zero weights to a unit row in one
    step, and with it what a start on a sphere keeps out: such layers are left out.
    """
    if start_radius > 0 and options.init in ("he", "glorot"):
        raise ValueError(f"init {options.init} draws weights anew that start_radius has set; expected one of the two")
    spared: dict[str, str] = {}
    if options.equilibrate in DIVIDES_INPUTS:
        spared = {
            name: f"{zeros} of its inputs begin with zero weights (the start on a sphere)"
            for name, zeros in init.zero_inputs(field).items()
        }
    fields_conditioning.apply(field, options, HEADS, seed, spared)
    if start_radius > 0:
        init.calibrate_(field, start_radius)
