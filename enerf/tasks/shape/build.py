"""Construction of shape fields from options: build, initialize, condition.

The order of operations is fixed, as in ``tasks.nerf.build``: build -> initialize -> condition -> device -> optimizer ->
load. Random numbers are drawn before any control or map is applied, those of the encoder first, so Fourier features
depend only on the seed and on their own size.
"""

import logging

import torch

from enerf.conditioning import fourier, suitability
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

SINES = ("sine", "finer")  # activations with the initialization of SIREN
BOX = Space((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
GRID = make_grid(8, 4, 16, 16, 768)  # the options' defaults
DIVIDES_INPUTS = (*suitability.DIVIDES_INPUTS, "jacobi")


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
    first_band: float | int = 1.0,
    waves: int = 256,
    wave_scale: float | int = 6.0,
    grid: Grid = GRID,
    space: Space = BOX,
    activation: str = "relu",
    beta: float | int = 100.0,
    omega: float | int = 30.0,
    sigma: float | int = 0.1,
    first_biases: float | int = 0.0,
    start_radius: float | int = 0.0,
) -> ShapeField:
    """Build, initialize and condition a field on the CPU; the state of torch's global generator is not changed.

    Sine and FINER layers are initialized as in SIREN, all others as PyTorch does by default, unless ``start_radius``
    is above 0.

    Parameters
    ----------
    conditioning
        Initialization, map or control, and the layers that they apply to.
    seed
        Determines every raw weight, independently of ``conditioning`` (except for an ``init`` that redraws weights, and
        for the scale of the head with ``start_radius``).
    inputs, outputs
        Dimensions of a point, 2 or 3; values per point, 1 for a shape and 3 for an image.
    depth, width, skip_at
        Number of hidden layers, their width, and the one to which the encoded points are concatenated (0: none).
    encoding
        ``none``, ``positional`` with ``bands`` from frequency ``first_band``, ``fourier`` with ``waves`` of standard
        deviation ``wave_scale``, or ``hash`` with ``grid`` over ``space``.
    activation
        ``relu``, ``softplus`` with ``beta``, ``sine`` and ``finer`` with ``omega``, or ``gaussian`` with ``sigma``.
    first_biases
        Range of the first layer's biases, for ``finer``; 0: PyTorch's.
    start_radius
        Above 0: initialize the field as the approximate signed distance to a sphere of that radius around the origin,
        and append the points to Fourier features and hash grids. 0: the usual initialization.

    Raises
    ------
    InputError
        If options are incompatible, or a selected layer cannot be conditioned by the selected method.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
            encoder_of = encoder(encoding, inputs, bands, waves, wave_scale, grid, space, start_radius > 0, first_band)
            function = Activation(activation, beta, omega, sigma)
            field = ShapeField(encoder_of, depth, width, outputs, activation=function, skip_at=skip_at)
            _initialize(field, start_radius, first_biases)
        _condition(field, conditioning, seed, start_radius)
    except ValueError as error:
        raise InputError(f"the options of the field: {error}") from None
    return field


def encoder(
    kind: str,
    d: int,
    bands: int,
    waves: int,
    wave_scale: float | int,
    grid: Grid,
    space: Space = BOX,
    with_points: bool = False,
    first_band: float | int = 1.0,
) -> Encoder:
    """Return the encoder; its output begins with the points if ``with_points``.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind == "none":
        return Encoder(d)
    if kind == "positional":
        return encoders.Positional(d, bands, first_band)
    if kind not in encoders.KINDS:
        raise ValueError(f"encoding is {kind!r}; it must be one of {', '.join(encoders.KINDS)}")
    inner = encoders.Fourier(d, waves, wave_scale) if kind == "fourier" else encoders.HashEncoder(grid, space, d)
    return encoders.WithPoints(inner) if with_points else inner


def _initialize(field: ShapeField, radius: float | int, first_biases: float | int) -> None:
    """Initialize the weights for a sphere, or for sine activations; then the first biases of FINER."""
    if radius > 0:
        init.geometric_(field, radius)
    elif field.activation.kind in SINES:
        init.siren_(field.linears(), field.activation.omega)
    if first_biases > 0:
        torch.nn.init.uniform_(field.linears()[0].bias, -float(first_biases), float(first_biases))


def _condition(field: ShapeField, options: ConditioningOptions, seed: int, start_radius: float | int) -> None:
    """Apply the initialization, then the map or the control, to the selected layers; then calibrate the sphere.

    A map that divides rows by their norms would scale a row that is initially zero to unit norm after one step, which
    would destroy the initialization as a sphere: layers with such rows are not conditioned.
    """
    if start_radius > 0 and options.init in ("he", "glorot"):
        raise ValueError(f"init {options.init} redraws weights that start_radius has set; expected one of the two")
    if start_radius > 0 and options.methods.weights == "fourier":
        raise ValueError("conditioning fourier redraws weights that start_radius has set; expected one of the two")
    if start_radius > 0 and options.methods.normalization != "none":
        raise ValueError("a normalization undoes the initialization by start_radius; expected one of the two")
    skipped: dict[str, str] = {}
    if options.methods.weights in DIVIDES_INPUTS:
        skipped = {
            name: f"{zeros} of its inputs have zero initial weights (initialization as a sphere)"
            for name, zeros in init.zero_inputs(field).items()
        }
    fields_conditioning.apply(field, options, HEADS, seed, skipped)
    if field.activation.kind in SINES and options.methods.weights == "fourier":
        fourier.divide_(field, float(field.activation.omega))
    if start_radius > 0:
        init.calibrate_(field, start_radius)
