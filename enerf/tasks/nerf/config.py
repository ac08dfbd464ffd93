"""Options of NeRF runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from enerf.config.options import ConditioningOptions, FitOptions, GridOptions, RecordOptions, RunConfig, option
from enerf.core.errors import InputError


@dataclass(frozen=True)
class DataOptions:
    """Scene."""

    datadir: str = option("./data/llff/fern", "scene folder", affects="data")
    dataset_type: str = option(
        "llff", "llff or blender (nerf-pytorch's LINEMOD and deepvoxels are not read)", affects="data"
    )
    factor: int = option(
        8, "LLFF: use images_FACTOR, made from images/ if absent; 1: images/", at_least=0, affects="data"
    )
    llffhold: int = option(
        8,
        "LLFF: every 8th image is a test view (the paper's rule); 0: the one most central view",
        at_least=0,
        affects="data",
    )
    no_ndc: bool = option(
        False, "LLFF: no normalized device coordinates (scenes that are not forward-facing)", affects="data"
    )
    spherify: bool = option(False, "LLFF: cameras all around an object", affects="data")
    white_bkgd: bool = option(False, "white behind transparent images and transparent rays", affects="data")
    half_res: bool = option(False, "Blender: half the resolution", affects="data")
    testskip: int = option(8, "Blender: every 8th test view only; 0: all", at_least=0, affects="data")
    pixel_centers: float = option(
        0.5,
        "where in a pixel its ray passes: 0.5 its center, 0 its corner as in nerf-pytorch",
        choices=(0.5, 0.0),
        affects="data",
    )


@dataclass(frozen=True)
class ModelOptions(GridOptions):
    """Model."""

    netdepth: int = option(8, "hidden layers of the coarse network", at_least=1, affects="model")
    netwidth: int = option(256, "width of the coarse network", at_least=2, affects="model")
    netdepth_fine: int = option(8, "hidden layers of the fine network", at_least=1, affects="model")
    netwidth_fine: int = option(256, "width of the fine network", at_least=2, affects="model")
    netskip: int = option(
        5, "the layer, counted from 0, that sees the encoded input again; 0: none", at_least=0, affects="model"
    )
    multires: int = option(10, "frequency bands of the position encoding", at_least=0, affects="model")
    multires_views: int = option(4, "frequency bands of the direction encoding", at_least=0, affects="model")
    i_embed: int = option(0, "0: positional encoding; -1: none", choices=(0, -1), affects="model")
    use_viewdirs: bool = option(False, "color depends on the viewing direction", affects="model")
    encoding: str = option(
        "positional",
        "of points: the paper's waves, or a multiresolution hash grid",
        choices=("positional", "hash"),
        affects="model",
    )
    density: str = option(
        "relu", "density from the network's value", choices=("relu", "softplus", "exp"), affects="model"
    )


@dataclass(frozen=True)
class RenderOptions:
    """Sampling and rendering."""

    N_samples: int = option(64, "coarse samples a ray", at_least=2, affects="training")
    N_importance: int = option(
        0, "additional fine samples a ray; 0: coarse network only", at_least=0, affects="training", model_key=bool
    )
    sampler: str = option(
        "hierarchical",
        "hierarchical: the paper's coarse and fine networks; proposal: a small density proposes N_importance samples "
        "from N_samples intervals, and the fine network sees only those",
        choices=("hierarchical", "proposal"),
        affects="model",
    )
    perturb: float = option(1.0, "0: no jitter; above 0: stratified jitter", at_least=0, affects="training")
    lindisp: bool = option(
        False, "sample linearly in disparity instead of depth (no effect in NDC)", affects="training"
    )
    raw_noise_std: float = option(
        0.0, "standard deviation of the noise on the raw density; 1 recommended", at_least=0, affects="training"
    )
    chunk: int = option(1024 * 32, "most rays at once; lower it if memory runs out", at_least=1, affects="neutral")
    netchunk: int = option(
        1024 * 64, "most points through a network at once; lower it if memory runs out", at_least=1, affects="neutral"
    )
    skip: float = option(
        0.0,
        "videos and previews of the paper's model: no network is asked where the coarse alpha or the light left is "
        "below this, 1e-3 say; pays in well-trained, wide networks; 0, as for test views in any case: everywhere",
        at_least=0,
        at_most=0.5,
        affects="neutral",
    )
    render_only: bool = option(False, "no training: load the weights and render the video path", affects="neutral")
    render_test: bool = option(False, "with --render_only: the test views instead of the video path", affects="neutral")
    render_factor: int = option(
        0, "render that many times smaller, for a preview (4 or 8)", at_least=0, affects="neutral"
    )


@dataclass(frozen=True)
class TrainOptions(FitOptions):
    """Training."""

    N_rand: int = option(32 * 32 * 4, "rays a step", at_least=1, affects="training")
    interlevel: float = option(
        1.0, "weight of the loss that fits the proposal to the field", at_least=0, affects="training"
    )
    distortion: float = option(0.0, "weight of mip-NeRF 360's distortion loss", at_least=0, affects="training")
    no_batching: bool = option(False, "the rays of a step come from one image", affects="training")
    precrop_iters: int = option(0, "steps on central crops, with --no_batching", at_least=0, affects="training")
    precrop_frac: float = option(
        0.5, "side of the central crop, as a fraction of the image", above=0, at_most=1, affects="training"
    )


@dataclass(frozen=True)
class RunOptions(RecordOptions):
    """Experiment and its records."""

    i_testset: int = option(50_000, "steps between renders of the test set; 0: never", at_least=0, affects="neutral")
    i_video: int = option(50_000, "steps between videos; 0: never", at_least=0, affects="neutral")
    eval_rays: int = option(
        2048, "fixed pixels a test view for the curve of test PSNR; 0: all", at_least=0, affects="neutral"
    )
    final_pixels: bool = option(
        False,
        "at the end measure the fixed pixels of the curve instead of whole test views: quick, and said so",
        affects="neutral",
    )


@dataclass(frozen=True)
class NerfConfig(RunConfig):
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
