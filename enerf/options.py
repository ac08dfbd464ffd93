"""The options as frozen dataclasses, by subject.

Each field of a dataclass below is one option: its name, type, default, help and bounds stand in one place, and the
parser, the saved ``config.txt`` and the reader are made from them (``config.py``). A class's docstring is the title of
its group in ``--help``. Names that nerf-pytorch users know mean what they mean there, with its defaults.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from enerf.placed import Placed
from enerf.types import InputError

METHODS = ("row", "column", "row_column", "jacobi", "ruiz")
SCALES = ("fixed", "kept", "constant", "learned")
INITS = ("default", "glorot", "he", "unit_row")


def option(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field that is also an option; ``more``: choices, at_least, at_most, above, bare."""
    return field(default=default, metadata={"help": help, **more})


def as_in(table: type, name: str, default: Any) -> Any:
    """An option as another table has it, with another default."""
    return field(default=default, metadata=table.__dataclass_fields__[name].metadata)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class DataOptions:
    """Scene."""

    datadir: str = option("./data/llff/fern", "scene folder")
    dataset_type: str = option("llff", "llff or blender (nerf-pytorch's LINEMOD and deepvoxels are not read)")
    factor: int = option(8, "LLFF: use images_FACTOR, made from images/ if absent; 1: images/", at_least=0)
    llffhold: int = option(
        8, "LLFF: every 8th image is a test view (the paper's rule); 0: the one most central view", at_least=0
    )
    no_ndc: bool = option(False, "LLFF: no normalised device coordinates (scenes that are not forward-facing)")
    spherify: bool = option(False, "LLFF: cameras all around an object")
    white_bkgd: bool = option(False, "white behind transparent images and transparent rays")
    half_res: bool = option(False, "Blender: half the resolution")
    testskip: int = option(8, "Blender: every 8th test view only; 0: all", at_least=0)
    pixel_centers: float = option(
        0.5, "where in a pixel its ray passes: 0.5 its centre, 0 its corner as in nerf-pytorch", choices=(0.5, 0.0)
    )


@dataclass(frozen=True)
class GridOptions:
    """Hash grid."""

    hash_levels: int = option(8, "levels of the hash grid", at_least=1, at_most=32)
    hash_features: int = option(4, "features an entry", choices=(1, 2, 4, 8))
    hash_log2_entries: int = option(16, "at most two to that power entries a level", at_least=4, at_most=26)
    hash_coarsest: int = option(16, "cells a side of the coarsest level", at_least=1)
    hash_finest: int = option(768, "cells a side of the finest level", at_least=1)

    def check(self) -> None:
        """Refuse a grid that grows coarser.

        Raises
        ------
        InputError
            If it does.
        """
        if self.hash_finest < self.hash_coarsest:
            raise InputError(
                f"option --hash_finest: found {self.hash_finest}, expected at least --hash_coarsest, "
                f"{self.hash_coarsest}"
            )


@dataclass(frozen=True)
class ModelOptions(GridOptions):
    """Model."""

    netdepth: int = option(8, "hidden layers of the coarse network", at_least=1)
    netwidth: int = option(256, "width of the coarse network", at_least=2)
    netdepth_fine: int = option(8, "hidden layers of the fine network", at_least=1)
    netwidth_fine: int = option(256, "width of the fine network", at_least=2)
    netskip: int = option(5, "the layer, counted from 0, that sees the encoded input again; 0: none", at_least=0)
    multires: int = option(10, "frequency bands of the position encoding", at_least=0)
    multires_views: int = option(4, "frequency bands of the direction encoding", at_least=0)
    i_embed: int = option(0, "0: positional encoding; -1: none", choices=(0, -1))
    use_viewdirs: bool = option(False, "colour depends on the viewing direction")
    encoding: str = option(
        "positional", "of points: the paper's waves, or a multiresolution hash grid", choices=("positional", "hash")
    )
    density: str = option("relu", "density from the network's value", choices=("relu", "softplus", "exp"))


@dataclass(frozen=True)
class ConditioningOptions:
    """Conditioning (E-NeRF) and its scale-matched controls."""

    equilibrate: str = option(
        "none", "equilibrate the weights; bare: row, the paper's choice", choices=("none", *METHODS), bare="row"
    )
    equilibrate_layers: str = option(
        "hidden",
        "which layers are conditioned, weight-normalised or started by --init: hidden (every linear layer with more "
        "than one output that is not an output head), trunk, or names such as trunk.0,feature",
        bare="hidden",
    )
    equilibrate_gradient: str = option(
        "through", "the gradient passes through the norms, or takes them as constants", choices=("through", "detached")
    )
    equilibrate_scale: str = option(
        "fixed",
        "the size of an equilibrated matrix: fixed by the map as in the paper, kept as the raw weights' at every step, "
        "constant as at the start, or a learned gain from there (with --init he: He's variance)",
        choices=SCALES,
    )
    equilibrate_p: float = option(2.0, "norm of rows and columns: 1, 2 or inf", choices=(1.0, 2.0, math.inf))
    weight_norm: bool = option(False, "control: weight normalisation of the same layers")
    init: str = option(
        "default", "control: start of the same layers: PyTorch's, Glorot's, He's, or rows of unit norm", choices=INITS
    )

    def check(self) -> None:
        """Refuse two answers to one question.

        Raises
        ------
        InputError
            If both are given.
        """
        if self.weight_norm and self.equilibrate != "none":
            raise InputError(
                "options --weight_norm and --equilibrate are two answers to one question: give one of them"
            )


@dataclass(frozen=True)
class RenderOptions:
    """Sampling and rendering."""

    N_samples: int = option(64, "coarse samples a ray", at_least=2)
    N_importance: int = option(0, "additional fine samples a ray; 0: coarse network only", at_least=0)
    sampler: str = option(
        "hierarchical",
        "hierarchical: the paper's coarse and fine networks; proposal: a small density proposes N_importance samples "
        "from N_samples intervals, and the fine network sees only those",
        choices=("hierarchical", "proposal"),
    )
    perturb: float = option(1.0, "0: no jitter; above 0: stratified jitter", at_least=0)
    lindisp: bool = option(False, "sample linearly in disparity instead of depth (no effect in NDC)")
    raw_noise_std: float = option(0.0, "standard deviation of the noise on the raw density; 1 recommended", at_least=0)
    chunk: int = option(1024 * 32, "most rays at once; lower it if memory runs out", at_least=1)
    netchunk: int = option(1024 * 64, "most points through a network at once; lower it if memory runs out", at_least=1)
    skip: float = option(
        0.0,
        "videos and previews of the paper's model: no network is asked where the coarse alpha or the light left is "
        "below this, 1e-3 say; pays in well-trained, wide networks; 0, as for test views in any case: everywhere",
        at_least=0,
        at_most=0.5,
    )
    render_only: bool = option(False, "no training: load the weights and render the video path")
    render_test: bool = option(False, "with --render_only: the test views instead of the video path")
    render_factor: int = option(0, "render that many times smaller, for a preview (4 or 8)", at_least=0)


@dataclass(frozen=True)
class StepOptions:
    """Training, by whatever optimiser."""

    N_iters: int = option(200_000, "steps", at_least=0)
    max_seconds: float = option(0.0, "end after that many seconds of training, evaluation aside; 0: never", at_least=0)
    lrate: float = option(5e-4, "learning rate", above=0)
    lrate_decay: int = option(250, "the learning rate falls to a tenth in that many thousand steps", at_least=1)
    lrate_schedule: str = option(
        "decay",
        "decay: as lrate_decay says; cosine: from lrate to a hundredth of it over the whole run, by steps or by "
        "max_seconds, whichever ends first; constant: lrate; milestones: a tenth of it from half of the run on, a "
        "hundredth from three quarters",
        choices=("decay", "cosine", "constant", "milestones"),
    )
    lrate_warmup: int = option(0, "steps over which the learning rate rises to its value", at_least=0)
    adam_beta2: float = option(0.999, "Adam's decay of squared gradients", above=0, at_most=0.99999)
    adam_eps: float = option(1e-8, "Adam's epsilon", above=0)
    seed: int = option(0, "fixes start, batches and noise", at_least=0, at_most=2**63 - 1)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...")
    precision: str = option(
        "auto",
        "of the factors of products inside networks; auto: bf16 where the machine multiplies in it",
        choices=("auto", "fp32", "bf16"),
    )


@dataclass(frozen=True)
class FitOptions(StepOptions):
    """Training, whatever field is trained."""

    lrate_grid: float = option(0.0, "learning rate of hash grids; 0: lrate", at_least=0)
    backend: str = option(
        "auto", "what evaluates networks and grids", choices=("auto", "torch", "compiled", "triton", "tinycudann")
    )


@dataclass(frozen=True)
class TrainOptions(FitOptions):
    """Training."""

    N_rand: int = option(32 * 32 * 4, "rays a step", at_least=1)
    interlevel: float = option(1.0, "weight of the loss that fits the proposal to the field", at_least=0)
    distortion: float = option(0.0, "weight of mip-NeRF 360's distortion loss", at_least=0)
    no_batching: bool = option(False, "the rays of a step come from one image")
    precrop_iters: int = option(0, "steps on central crops, with --no_batching", at_least=0)
    precrop_frac: float = option(0.5, "side of the central crop, as a fraction of the image", above=0, at_most=1)


@dataclass(frozen=True)
class RecordOptions:
    """Experiment and its records, whatever is trained."""

    expname: str = option("", "name of the experiment; empty: the name of what it is trained on")
    basedir: str = option("./logs", "results go to basedir/expname")
    no_reload: bool = option(False, "start anew even if the experiment has checkpoints (they are kept aside)")
    ft_path: str = option(
        "",
        "start from this checkpoint (.pt, or nerf-pytorch's .tar) unless the experiment has its own: weights, "
        "optimiser and step; with --no_reload its weights only, at step 0",
    )
    i_print: int = option(100, "steps between lines of train.jsonl", at_least=0)
    i_weights: int = option(10_000, "steps between checkpoints; 0: at the end only", at_least=0)
    i_eval: int = option(1000, "steps between points of the curve of test figures; 0: never", at_least=0)
    i_img: int = option(500, "steps between small test renders in TensorBoard; 0: never", at_least=0)
    i_spectrum: int = option(1000, "steps between records of κ(W) and row norms; 0: never", at_least=0)
    no_final_eval: bool = option(False, "do not measure the result at the end")


@dataclass(frozen=True)
class RunOptions(RecordOptions):
    """Experiment and its records."""

    i_testset: int = option(50_000, "steps between renders of the test set; 0: never", at_least=0)
    i_video: int = option(50_000, "steps between videos; 0: never", at_least=0)
    eval_rays: int = option(2048, "fixed pixels a test view for the curve of test PSNR; 0: all", at_least=0)
    final_pixels: bool = option(
        False, "at the end measure the fixed pixels of the curve instead of whole test views: quick, and said so"
    )


@dataclass(frozen=True)
class NerfConfig(Placed):
    """Everything a NeRF run is told, by subject."""

    run: RunOptions
    data: DataOptions
    model: ModelOptions
    conditioning: ConditioningOptions
    render: RenderOptions
    train: TrainOptions
    kind: ClassVar[str] = "nerf"

    @property
    def scene(self) -> str:
        """The scene folder's name."""
        return Path(self.data.datadir).name or "scene"

    def check(self) -> None:
        """Refuse combinations that cannot mean anything, with the reason.

        Raises
        ------
        InputError
            For the first of them.
        """
        kind, render = self.data.dataset_type, self.render
        if kind in ("LINEMOD", "deepvoxels"):
            raise InputError(f"option --dataset_type: {kind} scenes are not read here, expected llff or blender")
        if kind not in ("llff", "blender"):
            raise InputError(f"option --dataset_type: found {kind!r}, expected llff or blender")
        self.conditioning.check()
        self.model.check()
        if render.sampler == "proposal" and not render.N_importance:
            raise InputError(
                "option --sampler proposal needs --N_importance: found 0, expected how many samples are taken"
            )
        if self.train.precrop_iters and not self.train.no_batching:
            raise InputError("option --precrop_iters needs --no_batching: crops are taken from one image at a time")
        if render.render_only and self.run.no_reload and not self.run.ft_path:
            raise InputError(
                "options --render_only and --no_reload leave no weights to render: give one of them, or --ft_path"
            )
