"""The options of shape runs, by subject; ``options`` says how a table becomes options."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from enerf.config.options import (
    ConditioningOptions,
    FitOptions,
    GridOptions,
    RecordOptions,
    RunConfig,
    inherited,
    option,
)
from enerf.core.errors import InputError

SCALES_NEAR = "0.1:0.5,0.03:1,0.01:1.5"


@dataclass(frozen=True)
class ShapeDataOptions:
    """Shape."""

    mesh: str = option(
        "", "a mesh (OBJ, PLY, STL, OFF, GLB ...), or a folder of meshes: a run each, and one table", affects="data"
    )
    cloud: str = option(
        "", "instead: points of a surface with normals (PLY); learned as a signed distance", affects="data"
    )
    image: str = option("", "instead: a picture, whose colours are learned over the plane", affects="data")
    representation: str = option(
        "occupancy",
        "what is learned of a mesh: occupancy logits, positive inside, or the signed distance, negative inside",
        choices=("occupancy", "sdf"),
        affects="data",
    )
    margin: float = option(
        0.1, "of the box [-1, 1]³ that stays free around the shape", at_least=0.01, at_most=0.9, affects="data"
    )
    holdout: float = option(
        0.0, "picture: the share of pixels that is kept for testing", at_least=0, at_most=0.9, affects="data"
    )

    @property
    def source(self) -> str:
        """The file or folder that was given."""
        return self.mesh or self.cloud or self.image

    @property
    def target(self) -> str:
        """What is learned: ``occupancy``, ``sdf`` or ``colours``."""
        if self.image:
            return "colours"
        return "sdf" if self.cloud else self.representation


@dataclass(frozen=True)
class ShapeModelOptions(GridOptions):
    """Field."""

    netdepth: int = option(2, "hidden layers", at_least=1, affects="model")
    netwidth: int = option(64, "width of hidden layers", at_least=2, affects="model")
    netskip: int = option(
        0, "the layer, counted from 0, that sees the encoded input again; 0: none", at_least=0, affects="model"
    )
    encoding: str = option(
        "hash",
        "of points: none, NeRF's waves, random Fourier features, or a multiresolution hash grid",
        choices=("none", "positional", "fourier", "hash"),
        affects="model",
    )
    hash_log2_entries: int = inherited(GridOptions, "hash_log2_entries", 17)
    hash_finest: int = inherited(GridOptions, "hash_finest", 256)
    multires: int = option(6, "frequency bands of the positional encoding", at_least=0, affects="model")
    fourier_features: int = option(256, "random waves, a cosine and a sine each", at_least=1, affects="model")
    fourier_scale: float = option(
        6.0, "standard deviation of their frequencies, in cycles a unit of length", above=0, affects="model"
    )
    activation: str = option(
        "relu",
        "between layers; sine layers start as SIREN's",
        choices=("relu", "softplus", "sine", "gaussian"),
        affects="model",
    )
    softplus_beta: float = option(100.0, "sharpness of softplus", above=0, affects="model")
    omega_0: float = option(30.0, "frequency of sine layers", above=0, affects="model")
    gaussian_sigma: float = option(0.1, "width of Gaussian activations", above=0, affects="model")
    start_radius: float = option(
        0.0, "above 0: start as the signed distance to a sphere of that radius", at_least=0, at_most=1, affects="model"
    )


@dataclass(frozen=True)
class SampleOptions:
    """Samples and losses."""

    N_points: int = option(16384, "points a step", at_least=1, affects="training")
    uniform: float = option(2.0, "share of the points that is drawn from the whole box", at_least=0, affects="training")
    near: str = option(
        SCALES_NEAR,
        "points near the surface: standard deviation of their distance, colon, share; several by commas",
        affects="training",
    )
    surface: float = option(0.0, "share of the points on the surface itself", at_least=0, affects="training")
    pool: int = option(1 << 18, "points that are prepared together, in the background", at_least=1, affects="training")
    pool_uses: int = option(4, "how often each of them is used", at_least=1, affects="training")
    background: str = option(
        "process",
        "where they are prepared: in a process of its own, or between steps",
        choices=("process", "none"),
        affects="neutral",
    )
    balanced: bool = option(
        False, "occupancy: inside and outside weigh the same, whatever their share", affects="training"
    )
    loss_sdf: str = option(
        "mape",
        "signed distance: relative error, absolute error, or absolute error near the surface only",
        choices=("mape", "l1", "truncated_l1"),
        affects="training",
    )
    truncate: float = option(0.1, "for truncated_l1: how near", above=0, affects="training")
    eikonal: float = option(
        0.0, "signed distance: weight of the loss that makes gradients unit", at_least=0, affects="training"
    )
    normals: float = option(
        0.0, "signed distance: weight of the loss that turns gradients to the normals", at_least=0, affects="training"
    )
    gradient_step: float = option(
        0.0,
        "0: exact gradients; above: by differences over that distance, which suit hash grids",
        at_least=0,
        affects="training",
    )
    cloud_surface: float = option(1500.0, "cloud: weight of |f| at its points", at_least=0, affects="training")
    cloud_off: float = option(
        50.0, "cloud: weight of the loss that keeps other points off the surface", at_least=0, affects="training"
    )
    cloud_normals: float = option(50.0, "cloud: weight of the loss of normals", at_least=0, affects="training")
    cloud_eikonal: float = option(50.0, "cloud: weight of the eikonal loss", at_least=0, affects="training")
    cloud_alpha: float = option(
        100.0, "cloud: how fast the loss off the surface falls with |f|", above=0, affects="training"
    )


@dataclass(frozen=True)
class ShapeTrainOptions(FitOptions):
    """Training."""

    N_iters: int = inherited(FitOptions, "N_iters", 2_000)
    lrate: float = inherited(FitOptions, "lrate", 5e-3)
    lrate_schedule: str = inherited(FitOptions, "lrate_schedule", "cosine")
    lrate_grid: float = inherited(FitOptions, "lrate_grid", 1e-2)
    adam_beta2: float = inherited(FitOptions, "adam_beta2", 0.99)
    adam_eps: float = inherited(FitOptions, "adam_eps", 1e-15)


@dataclass(frozen=True)
class ShapeRunOptions(RecordOptions):
    """Experiment and its records."""

    i_eval: int = option(
        500, "steps between points of the curve of IoU (PSNR of a picture); 0: never", at_least=0, affects="neutral"
    )
    resolution: int = option(
        256, "cells along a side of the mesh that is measured at the end; 0: none", at_least=0, affects="neutral"
    )


@dataclass(frozen=True)
class ShapeConfig(RunConfig):
    """Everything a shape run is told, by subject."""

    run: ShapeRunOptions
    data: ShapeDataOptions
    model: ShapeModelOptions
    conditioning: ConditioningOptions
    samples: SampleOptions
    train: ShapeTrainOptions
    kind: ClassVar[str] = "shape"

    @property
    def scene(self) -> str:
        """The file's name without its ending, or the folder's."""
        return Path(self.data.source).stem or "shape"

    @property
    def near(self) -> tuple[tuple[float, float], ...]:
        """Pairs of a scale and a share; raises as ``scales``."""
        return scales(self.samples.near)

    def check(self) -> None:
        """Refuse combinations that cannot mean anything, with the reason.

        Raises
        ------
        InputError
            For the first of them.
        """
        data, samples = self.data, self.samples
        given = [name for name in ("mesh", "cloud", "image") if getattr(data, name)]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none of them"
            raise InputError(f"options --mesh, --cloud and --image: found {found}, expected one: what is to be learned")
        self.conditioning.check()
        self.model.check()
        total = samples.uniform + samples.surface + sum(share for _, share in self.near)
        if total <= 0:
            raise InputError("options --uniform, --near and --surface: found no share above 0, expected one at least")
        if samples.pool < samples.N_points and not data.image:
            raise InputError(
                f"option --pool: found {samples.pool}, expected at least the {samples.N_points} points of a step "
                "(--N_points)"
            )
        for name in ("eikonal", "normals"):
            if getattr(samples, name) and (data.target != "sdf" or data.cloud):
                raise InputError(f"option --{name} is for signed distances of meshes: expected --representation sdf")


def scales(text: str) -> tuple[tuple[float, float], ...]:
    """Pairs of a scale and a share, as ``--near`` tells them.

    >>> scales("0.1:0.5, 0.03:1")
    ((0.1, 0.5), (0.03, 1.0))

    Raises
    ------
    InputError
        If the text says something else.
    """
    told = text.strip()
    try:
        pairs = [tuple(map(float, pair.split(":"))) for pair in told.split(",")] if told else []
        if any(len(pair) != 2 or not 0 < pair[0] < 10 or not 0 <= pair[1] < 1e9 for pair in pairs):
            raise ValueError
    except ValueError:
        raise InputError(
            f"option --near: found {told!r}, expected scales and shares above 0 such as {SCALES_NEAR}"
        ) from None
    return tuple((scale, share) for scale, share in pairs)
