"""Options of shape runs, grouped in dataclasses; see ``enerf.config.options``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from enerf.config.options import (
    BANDS,
    DEEPEST,
    INSTEAD_OF_OPTIMISER,
    WIDEST,
    ConditioningOptions,
    FitOptions,
    GridOptions,
    RecordOptions,
    RunConfig,
    inherited,
    name_of,
    option,
)
from enerf.core.errors import InputError, shown

MOST_POINTS, MOST_CELLS = 1 << 28, 1 << 16  # per step or pool, and along a side
SOURCES = ("mesh", "cloud", "image", "volume")  # options of the training target, of which a run has one
SCALES_NEAR = "0.1:0.5,0.03:1,0.01:1.5"


@dataclass(frozen=True)
class ShapeDataOptions:
    """Shape."""

    mesh: str = option(
        "",
        "mesh to learn (OBJ, PLY, STL, OFF, GLB ...), or a folder of meshes: one run for each, and one table",
        affects="data",
        is_source=True,
        is_path=True,
    )
    cloud: str = option(
        "",
        "instead of --mesh: oriented point cloud (PLY with normals), learned as a signed distance",
        affects="data",
        is_source=True,
        is_path=True,
    )
    image: str = option(
        "",
        "instead of --mesh: image whose colors are learned as a field over the plane",
        affects="data",
        is_source=True,
        is_path=True,
    )
    volume: str = option(
        "",
        "instead of --mesh: array of empty and occupied voxels (.npy, .npz, .mat; also zipped)",
        affects="data",
        is_source=True,
        is_path=True,
    )
    volume_loss: str = option(
        "mse",
        "volume: mse: the output is the occupancy, 0 outside and 1 inside, by its mean squared error; bce: its logit, "
        "by the binary cross entropy",
        choices=("mse", "bce"),
        affects="model",
    )
    representation: str = option(
        "occupancy",
        "quantity learned from a mesh: occupancy logits, positive inside, or the signed distance, negative inside",
        choices=("occupancy", "sdf"),
        affects="data",
    )
    margin: float = option(
        0.1,
        "fraction of the box [-1, 1]³ that is left empty around the shape",
        at_least=0.01,
        at_most=0.9,
        affects="data",
    )
    holdout: float = option(
        0.0, "image: fraction of the pixels that is held out for testing", at_least=0, at_most=0.9, affects="data"
    )

    @property
    def source(self) -> str:
        """Path of the mesh, point cloud, image or volume."""
        return self.mesh or self.cloud or self.image or self.volume

    @property
    def target(self) -> str:
        """Learned quantity: ``occupancy``, ``sdf`` or ``colours``."""
        if self.image:
            return "colours"
        return "sdf" if self.cloud else self.representation

    @property
    def level(self) -> float:
        """Value of the field at the surface: 0.5 if it is the occupancy itself, 0 for logits and distances."""
        return 0.5 if self.volume and self.volume_loss == "mse" else 0.0


@dataclass(frozen=True)
class ShapeModelOptions(GridOptions):
    """Field."""

    netdepth: int = option(2, "hidden layers", at_least=1, at_most=DEEPEST, affects="model")
    netwidth: int = option(64, "width of the hidden layers", at_least=2, at_most=WIDEST, affects="model")
    netskip: int = option(
        0,
        "index (from 0) of the layer to which the encoded input is concatenated again; 0: none",
        at_least=0,
        affects="model",
    )
    encoding: str = option(
        "hash",
        "encoding of points: none, NeRF's positional encoding, random Fourier features, or a multiresolution hash grid",
        choices=("none", "positional", "fourier", "hash"),
        affects="model",
    )
    hash_log2_entries: int = inherited(GridOptions, "hash_log2_entries", 17)
    hash_finest: int = inherited(GridOptions, "hash_finest", 256)
    multires: int = option(6, "frequency bands of the positional encoding", at_least=0, at_most=BANDS, affects="model")
    multires_first: float = option(
        1.0,
        "lowest frequency of the positional encoding, in radians per unit length: 1 in NeRF's code, pi in its paper",
        above=0,
        affects="model",
    )
    fourier_features: int = option(
        256, "number of random frequencies, each with a cosine and a sine", at_least=1, at_most=WIDEST, affects="model"
    )
    fourier_scale: float = option(
        6.0, "standard deviation of the random frequencies, in cycles per unit length", above=0, affects="model"
    )
    activation: str = option(
        "relu",
        "activation of the hidden layers; sine and FINER layers are initialized as in SIREN",
        choices=("relu", "softplus", "sine", "finer", "gaussian"),
        affects="model",
    )
    softplus_beta: float = option(100.0, "beta of the softplus activation", above=0, affects="model")
    omega_0: float = option(30.0, "frequency factor of sine and FINER activations", above=0, affects="model")
    finer_bias: float = option(
        0.0,
        "FINER: the first layer's biases are uniform in this range, plus and minus; 0: as for other layers",
        at_least=0,
        affects="training",
        absent=0.0,
    )
    gaussian_sigma: float = option(0.1, "standard deviation of Gaussian activations", above=0, affects="model")
    start_radius: float = option(
        0.0,
        "above 0: initialize as the signed distance to a sphere of that radius",
        at_least=0,
        at_most=1,
        affects="model",
    )


@dataclass(frozen=True)
class SampleOptions:
    """Samples and losses."""

    N_points: int = option(16384, "points per step", at_least=1, at_most=MOST_POINTS, affects="training")
    iga: int = option(
        0,
        "images: inductive gradient adjustment: how many of the largest eigenvalues of the neural tangent kernel of "
        "16 × 16 blocks are lowered; 0: none",
        at_least=0,
        at_most=255,
        affects="training",
        absent=0,
    )
    epochs: float = option(
        0.0,
        "volume: number of passes over all voxels after which the run ends, if --N_iters is not reached before; 0: "
        "--N_iters steps",
        at_least=0,
        at_most=1e6,
        affects="training",
        is_length=True,
    )
    uniform: float = option(
        2.0, "relative number of points drawn uniformly from the box", at_least=0, affects="training"
    )
    near: str = option(
        SCALES_NEAR,
        "points near the surface, as comma-separated pairs STD:SHARE of the standard deviation of their distance "
        "and their relative number",
        affects="training",
    )
    surface: float = option(0.0, "relative number of points on the surface itself", at_least=0, affects="training")
    far: float = option(
        0.75,
        "occupancy by a hash grid: fraction of the --uniform points that is drawn anew in every step, from cells that "
        "the surface does not enter",
        at_least=0,
        at_most=0.9,
        affects="training",
    )
    far_margin: float = option(
        20.0,
        "logit that these points should have on their side of 0: above the noise of hash collisions, which otherwise "
        "makes loose parts far from the surface",
        at_least=0,
        affects="training",
    )
    pool: int = option(
        1 << 18,
        "number of points that are sampled and labeled together",
        at_least=1,
        at_most=MOST_POINTS,
        affects="training",
    )
    pool_uses: int = option(4, "number of times that each sampled point is used", at_least=1, affects="training")
    background: str = option(
        "process",
        "where points are sampled: in a separate process, or between steps (none)",
        choices=("process", "none"),
        affects="neutral",
    )
    balanced: bool = option(
        False, "occupancy: give inside and outside equal weight, whatever their number of points", affects="training"
    )
    loss_sdf: str = option(
        "mape",
        "signed distance: relative error, absolute error, or absolute error of distances clamped to --truncate",
        choices=("mape", "l1", "truncated_l1"),
        affects="training",
    )
    truncate: float = option(0.1, "truncated_l1: distance at which errors are clamped", above=0, affects="training")
    eikonal: float = option(
        0.0, "signed distance: weight of the eikonal loss (|∇f| - 1)²", at_least=0, affects="training"
    )
    normals: float = option(
        0.0, "signed distance: weight of the loss between gradients and normals", at_least=0, affects="training"
    )
    gradient_step: float = option(
        0.0,
        "0: gradients by automatic differentiation; above 0: by finite differences with that step, recommended "
        "for hash grids",
        at_least=0,
        affects="training",
    )
    cloud_surface: float = option(1500.0, "point cloud: weight of |f| at its points", at_least=0, affects="training")
    cloud_off: float = option(
        50.0,
        "point cloud: weight of the loss that penalizes small |f| away from the points",
        at_least=0,
        affects="training",
    )
    cloud_normals: float = option(
        50.0, "point cloud: weight of the loss between gradients and normals", at_least=0, affects="training"
    )
    cloud_eikonal: float = option(50.0, "point cloud: weight of the eikonal loss", at_least=0, affects="training")
    cloud_alpha: float = option(
        100.0,
        "point cloud: decay rate alpha of the loss exp(-alpha |f|) away from the points",
        above=0,
        affects="training",
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
    """Experiment and logging."""

    i_eval: int = option(
        500, "steps between points of the curve of IoU (PSNR for an image); 0: never", at_least=0, affects="neutral"
    )
    resolution: int = option(
        256,
        "grid cells along each side for the mesh extracted at the end; 0: no mesh",
        at_least=0,
        at_most=MOST_CELLS,
        affects="neutral",
    )


@dataclass(frozen=True)
class ShapeConfig(RunConfig):
    """All options of a shape run."""

    run: ShapeRunOptions
    data: ShapeDataOptions
    model: ShapeModelOptions
    conditioning: ConditioningOptions
    samples: SampleOptions
    train: ShapeTrainOptions
    kind: ClassVar[str] = "shape"
    instead: ClassVar[dict[str, str]] = {"optimiser": INSTEAD_OF_OPTIMISER}

    @property
    def scene(self) -> str:
        """Name of the file without its suffix, or of the folder."""
        stem = Path(name_of(self.data.source)).stem
        return (Path(stem).stem if self.data.volume and stem.endswith((".mat", ".npy")) else stem) or "shape"

    @property
    def near(self) -> tuple[tuple[float, float], ...]:
        """Pairs (standard deviation, share) of ``--near``; raises as ``scales``."""
        return scales(self.samples.near)

    @property
    def far_points(self) -> int:
        """Number of points of a step that are drawn from cells that the surface does not enter; below ``N_points``."""
        s = self.samples
        if not self.data.mesh or self.data.target != "occupancy" or self.model.encoding != "hash":
            return 0
        total = s.uniform + s.surface + sum(share for _, share in self.near)
        return min(round(s.N_points * s.far * s.uniform / total), s.N_points - 1)

    def check(self) -> None:
        """Check that the options are compatible.

        Raises
        ------
        InputError
            For the first combination that is not.
        """
        data, samples = self.data, self.samples
        given = [name for name in SOURCES if getattr(data, name)]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none of them"
            raise InputError(f"options --mesh, --cloud, --image and --volume: found {found}, expected one of them")
        self.conditioning.check()
        self.model.check()
        total = samples.uniform + samples.surface + sum(share for _, share in self.near)
        if total <= 0:
            raise InputError("options --uniform, --near and --surface: found no share above 0, expected at least one")
        if samples.pool < samples.N_points and not (data.image or data.volume):
            raise InputError(
                f"option --pool: found {samples.pool}, expected at least the {samples.N_points} points of a step "
                "(--N_points)"
            )
        self._check_iga()
        if self.conditioning.methods.normalization == "batch_norm" and (
            data.cloud or samples.eikonal or samples.normals
        ):
            raise InputError(
                "option --conditioning batch_norm: found --cloud, --eikonal or --normals with it, expected none of "
                "them: the values of a batch depend on one another, so they have no derivatives by point"
            )
        if self.model.finer_bias and self.model.activation != "finer":
            raise InputError(
                f"option --finer_bias: found {self.model.finer_bias:g} with --activation {self.model.activation}, "
                "expected --activation finer: it has no effect on others"
            )
        self._check_volume()
        for name in ("eikonal", "normals"):
            if getattr(samples, name) and (data.target != "sdf" or data.cloud):
                raise InputError(f"option --{name} is for signed distances of meshes: expected --representation sdf")

    def check_given(self, on_line: set[str], in_file: set[str]) -> None:
        """Check that options of conditioning have an effect; see ``ConditioningOptions.check_effects``."""
        self.conditioning.check_effects()

    def _check_iga(self) -> None:
        """Check that gradient adjustment is of images, and of networks whose parameters are their weights."""
        if not self.samples.iga:
            return
        methods = self.conditioning.methods
        reasons = {
            "without --image": not self.data.image,
            f"with --encoding {self.model.encoding}": self.model.encoding == "hash",
            "with conditioned weights or normalization": (methods.weights, methods.normalization) != ("none", "none"),
            f"with --N_points {self.samples.N_points}, not a multiple of its 256 blocks": self.samples.N_points % 256
            > 0,
        }
        for reason in (text for text, is_so in reasons.items() if is_so):
            raise InputError(
                f"option --iga (method iga): found {self.samples.iga} {reason}, expected an image, a plain network "
                "without hash grid, and a multiple of 256 points"
            )

    def _check_volume(self) -> None:
        """Check the options of volumes."""
        data = self.data
        if data.volume and data.representation != "occupancy":
            raise InputError(
                f"option --representation: found {data.representation} with --volume, expected occupancy: voxels have "
                "no distances"
            )
        if not data.volume and (self.samples.epochs or data.volume_loss != "mse"):
            name, value = (
                ("epochs", f"{self.samples.epochs:g}") if self.samples.epochs else ("volume_loss", data.volume_loss)
            )
            raise InputError(f"option --{name}: found {value} without --volume, expected both")


def scales(text: str) -> tuple[tuple[float, float], ...]:
    """Parse ``--near`` into pairs (standard deviation, share).

    >>> scales("0.1:0.5, 0.03:1")
    ((0.1, 0.5), (0.03, 1.0))

    Raises
    ------
    InputError
        If the text is not of this form.
    """
    stripped = text.strip()
    try:
        pairs = [tuple(map(float, pair.split(":"))) for pair in stripped.split(",")] if stripped else []
        if any(len(pair) != 2 or not 0 < pair[0] < 10 or not 0 <= pair[1] < 1e9 for pair in pairs):
            raise ValueError
    except ValueError:
        raise InputError(
            f"option --near: found {shown(stripped)}, expected scales and shares above 0 such as {SCALES_NEAR}"
        ) from None
    return tuple((scale, share) for scale, share in pairs)
