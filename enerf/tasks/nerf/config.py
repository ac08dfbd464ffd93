"""Options of NeRF runs."""

from dataclasses import dataclass
from typing import ClassVar

from enerf.config.options import (
    BANDS,
    DEEPEST,
    INSTEAD_OF_OPTIMISER,
    STEPS,
    WIDEST,
    ConditioningOptions,
    FitOptions,
    GridOptions,
    RecordOptions,
    RunConfig,
    name_of,
    option,
)
from enerf.core.errors import InputError

# Conventions of pose matrices: those of ``datasets.scenes.poses.AXES``, which needs numpy.
AXES = ("llff", "opengl", "opencv", "llff_w2c", "opengl_w2c", "opencv_w2c")
FORMATS = (
    "auto",
    "llff",
    "blender",
    "transforms",
    "polycam",
    "record3d",
    "colmap",
)  # those of ``datasets.scenes.formats``
MOST_RAYS, MOST_SAMPLES = 1 << 26, 1 << 16  # per step, and per ray


@dataclass(frozen=True)
class DataOptions:
    """Scene."""

    datadir: str = option("./data/llff/fern", "folder of the scene", affects="data", is_source=True, is_path=True)
    dataset_type: str = option(
        "auto",
        "dataset format: llff; blender; transforms (transforms.json of nerfstudio and instant-ngp); polycam; record3d; "
        "colmap; auto: the one that the folder is in (nerf-pytorch's LINEMOD and deepvoxels are not supported)",
        affects="data",
    )
    factor: int = option(
        -1,
        "downsampling factor, not for Blender scenes: read images_FACTOR/, created from images/ if absent; 0 or 1: "
        "full size; -1: 8 for LLFF scenes, else the least power of two that leaves no side longer than 800 pixels",
        at_least=-1,
        at_most=4096,
        automatic=-1,
        affects="data",
    )
    llffhold: int = option(
        8,
        "every N-th image is a test view (8 in the paper), unless the scene's files name test views; 0: only the most "
        "central view",
        at_least=0,
        affects="data",
    )
    test_views: str = option(
        "",
        "names of the test views, separated by commas, or a text file with a name on each line; empty: those that the "
        "scene's files name, else by --llffhold",
        affects="data",
    )
    no_masks: bool = option(
        False, "use all pixels, also those that the scene's masks exclude from training and evaluation", affects="data"
    )
    no_ndc: bool = option(False, "do not use normalized device coordinates for forward-facing cameras", affects="data")
    spherify: bool = option(
        False,
        "normalize for cameras all around an object; transforms and colmap: also if they do not look at one point",
        affects="data",
    )
    white_bkgd: bool = option(False, "composite images and renderings on a white background", affects="data")
    background_color: str = option(
        "auto",
        "background of images with transparent pixels; random: a random color for each ray in training, and black, "
        "or white with --white_bkgd, in evaluation; stored: alpha is ignored without --white_bkgd, as by NeRF's code; "
        "auto: white with --white_bkgd, else random, but stored in runs that were started before this option existed",
        choices=("auto", "random", "white", "black", "stored"),
        affects="data",
        absent="stored",
    )
    half_res: bool = option(False, "Blender: use half of the resolution", affects="data")
    testskip: int = option(8, "Blender: use every N-th test view; 0: all", at_least=0, affects="data")
    near: float = option(
        0.0,
        "depth at which rays start, in units of the file, not for LLFF; 0: Blender: 2, as for NeRF's scenes; else from "
        "the scene's points or cameras",
        at_least=0,
        affects="data",
    )
    far: float = option(
        0.0,
        "depth at which rays end, in units of the file, not for LLFF; 0: Blender: 6, as for NeRF's scenes; else from "
        "the scene's points or cameras",
        at_least=0,
        affects="data",
    )
    pose_axes: str = option(
        "format",
        "axes of the pose matrices: format: as the format has them (LLFF: llff; Blender, transforms.json: opengl; "
        "COLMAP: opencv_w2c); llff: down, right, back; opengl: right, up, back; opencv: right, down, forward; _w2c: if "
        "they map world to camera coordinates",
        choices=("format", *AXES),
        affects="data",
    )
    no_pose_check: bool = option(
        False, "do not compare the poses of a new run with SIFT matches of its photographs", affects="neutral"
    )
    pixel_centers: float = option(
        0.5,
        "position of a ray within its pixel, in pixels: 0.5 the center; 0 the corner, as in nerf-pytorch",
        choices=(0.5, 0.0),
        affects="data",
    )

    cache_gb: float = option(
        32.0,
        "gigabytes (10^9 bytes) of disk for decoded photographs of scenes above 2 GiB, in files of the cache folder "
        "that are mapped into memory; those used longest ago are removed; 0: none",
        at_least=0,
        at_most=1e6,
        affects="neutral",
    )

    @property
    def training_background(self) -> str:
        """Background of transparent images in training: random, white, black or stored."""
        return ("white" if self.white_bkgd else "random") if self.background_color == "auto" else self.background_color

    @property
    def is_white(self) -> bool:
        """Whether renderings, and transparent images in evaluation, lie over white rather than black."""
        return self.white_bkgd or self.background_color == "white"


@dataclass(frozen=True)
class ModelOptions(GridOptions):
    """Model."""

    netdepth: int = option(8, "hidden layers of the coarse network", at_least=1, at_most=DEEPEST, affects="model")
    netwidth: int = option(
        256, "units per hidden layer of the coarse network", at_least=2, at_most=WIDEST, affects="model"
    )
    netdepth_fine: int = option(8, "hidden layers of the fine network", at_least=1, at_most=DEEPEST, affects="model")
    netwidth_fine: int = option(
        256, "units per hidden layer of the fine network", at_least=2, at_most=WIDEST, affects="model"
    )
    netskip: int = option(
        5,
        "index (from 0) of the hidden layer with a skip connection from the encoded position; 0: no skip connection",
        at_least=0,
        affects="model",
    )
    multires: int = option(
        10, "number of frequencies of the positional encoding of points", at_least=0, at_most=BANDS, affects="model"
    )
    multires_views: int = option(
        4, "number of frequencies of the positional encoding of directions", at_least=0, at_most=BANDS, affects="model"
    )
    i_embed: int = option(0, "0: positional encoding; -1: no encoding", choices=(0, -1), affects="model")
    use_viewdirs: bool = option(False, "view-dependent color", affects="model")
    encoding: str = option(
        "positional",
        "encoding of points: positional (sines and cosines, as in the paper), or a multiresolution hash grid",
        choices=("positional", "hash"),
        affects="model",
    )
    shading: str = option(
        "sample",
        "sample: the color network is evaluated at every sample, as in the paper; ray: samples have features, and a "
        "color network decodes their mean, once per ray (deferred shading)",
        choices=("sample", "ray"),
        affects="model",
        absent="sample",
    )
    ray_features: int = option(
        16, "features of a sample (--shading ray)", at_least=1, at_most=WIDEST, affects="model", absent=16
    )
    netdepth_color: int = option(
        3, "hidden layers of the color network (--shading ray)", at_least=1, at_most=DEEPEST, affects="model", absent=3
    )
    netwidth_color: int = option(
        64,
        "units per hidden layer of the color network (--shading ray)",
        at_least=2,
        at_most=WIDEST,
        affects="model",
        absent=64,
    )
    density: str = option(
        "relu", "activation of the density output", choices=("relu", "softplus", "exp"), affects="model"
    )


@dataclass(frozen=True)
class RenderOptions:
    """Sampling and rendering."""

    N_samples: int = option(64, "coarse samples per ray", at_least=2, at_most=MOST_SAMPLES, affects="training")
    N_importance: int = option(
        0,
        "additional fine samples per ray; 0: coarse network only",
        at_least=0,
        at_most=MOST_SAMPLES,
        affects="training",
        model_key=bool,
    )
    sampler: str = option(
        "hierarchical",
        "hierarchical: coarse and fine networks as in the paper; proposal: a small density network on N_samples "
        "intervals proposes N_importance samples, at which alone the fine network is evaluated",
        choices=("hierarchical", "proposal"),
        affects="model",
    )
    perturb: float = option(1.0, "0: no jitter of samples; above 0: stratified jitter", at_least=0, affects="training")
    lindisp: bool = option(
        False, "sample linearly in disparity instead of depth (no effect in NDC)", affects="training"
    )
    spacing: str = option(
        "auto",
        "spacing of samples along rays without NDC: linear in depth; disparity: as --lindisp; piecewise: linear near "
        "the cameras, in disparity beyond; auto: piecewise for scenes without bounds, else linear",
        choices=("auto", "disparity", "linear", "piecewise"),
        affects="model",
        absent="linear",
    )
    raw_noise_std: float = option(
        0.0,
        "standard deviation of the noise added to the raw density; 1 is recommended for real scenes",
        at_least=0,
        affects="training",
    )
    chunk: int = option(
        1024 * 32, "maximum number of rays rendered at once; lower it if memory runs out", at_least=1, affects="neutral"
    )
    netchunk: int = option(
        1024 * 64,
        "maximum number of points per network evaluation; lower it if memory runs out",
        at_least=1,
        affects="neutral",
    )
    skip: float = option(
        0.0,
        "threshold (e.g. 1e-3) of empty-space skipping in videos and previews with --sampler hierarchical and "
        "--shading sample; networks are not evaluated where the transmittance or the coarse alpha is lower; 0: off, as "
        "always for test views",
        at_least=0,
        at_most=0.5,
        affects="neutral",
    )
    render_only: bool = option(False, "do not train; load the weights and render the video path", affects="neutral")
    render_test: bool = option(
        False, "with --render_only: render the test views instead of the video path", affects="neutral"
    )
    render_factor: int = option(
        0,
        "with --render_only: downsampling factor, for a fast preview (4 or 8); 0: full size",
        at_least=0,
        at_most=1 << 16,
        affects="neutral",
    )


PROPOSAL_FIRST = 256  # steps that train the proposal, whatever ``proposal_every`` is


@dataclass(frozen=True)
class TrainOptions(FitOptions):
    """Training."""

    N_rand: int = option(32 * 32 * 4, "rays per training step", at_least=1, at_most=MOST_RAYS, affects="training")
    interlevel: float = option(
        1.0,
        "weight of the interlevel loss of mip-NeRF 360, which fits the proposal (--sampler proposal)",
        at_least=0,
        affects="training",
    )
    proposal_every: int = option(
        1,
        "steps from one training step of the proposal to the next, after the first 256 steps, which all train it "
        "(--sampler proposal)",
        at_least=1,
        at_most=STEPS,
        affects="training",
        absent=1,
    )
    distortion: float = option(
        0.0, "weight of the distortion loss of mip-NeRF 360 (--sampler proposal)", at_least=0, affects="training"
    )
    batches: str = option(
        "auto",
        "views that the rays of a step are drawn from: all; blocks: those of a block of images in memory, which are "
        "replaced one by one; auto: all where the photographs fit in memory, or in --cache_gb and in three quarters of "
        "the available memory, else blocks",
        choices=("auto", "all", "blocks"),
        affects="training",
        absent="all",
    )
    block_gb: float = option(
        1.0, "gigabytes (10^9 bytes) of a block of images (--batches blocks)", above=0, at_most=1e4, affects="training"
    )
    block_steps: int = option(
        0,
        "steps after which one image of a block is replaced (--batches blocks); 0: as many as a view has megapixels, "
        "at least 1, four times as many on a CPU; recorded with the run",
        at_least=0,
        at_most=STEPS,
        automatic=0,
        affects="training",
    )
    no_batching: bool = option(False, "take the rays of a step from a single random image", affects="training")
    precrop_iters: int = option(
        0, "number of first steps on central crops of the images (needs --no_batching)", at_least=0, affects="training"
    )
    precrop_frac: float = option(
        0.5,
        "size of the central crop as a fraction of the image size, in (0, 1]",
        above=0,
        at_most=1,
        affects="training",
    )

    def trains_proposal(self, step: int) -> bool:
        """Whether a step trains the proposal too, if there is one."""
        return step < PROPOSAL_FIRST or step % self.proposal_every == 0


@dataclass(frozen=True)
class CaptureOptions:
    """Captures: what differs between photographs."""

    exposure: str = option(
        "off",
        "map of colors trained for each training view: gain (of each channel) or affine (matrix and offset); the mean "
        "over the views is the identity",
        choices=("off", "gain", "affine"),
        affects="model",
        absent="off",
    )
    lrate_exposure: float = option(
        1e-3, "initial learning rate of exposure maps; follows the schedule of --lrate", above=0, affects="training"
    )
    exposure_weight: float = option(
        1e-3, "weight of the mean square of the exposure maps' parameters", at_least=0, affects="training"
    )
    refine_poses: bool = option(
        False,
        "train a small motion of each training camera with the field, from coarse to fine",
        affects="model",
        absent=False,
    )
    no_pose_matches: bool = option(
        False,
        "start the refinement at the given poses, not where matched key points of the training images agree",
        affects="training",
    )
    lrate_poses: float = option(
        5e-4,
        "initial learning rate of the cameras' motions, in radians by which the images move; follows the schedule of "
        "--lrate",
        above=0,
        affects="training",
    )
    coarse_to_fine: int = option(
        1000,
        "steps in which hash levels or frequencies are enabled one after the other (--refine_poses); in the first half "
        "of them poses are fixed; 0: all at once",
        at_least=0,
        at_most=STEPS,
        affects="training",
    )
    pose_eval_iters: int = option(
        100,
        "steps in which the poses of test views are fitted to their images for the second number (--refine_poses); 0: "
        "none",
        at_least=0,
        at_most=STEPS,
        affects="neutral",
    )
    depth_weight: float = option(
        0.0,
        "weight of the distance between where rays end and known depths: of depth maps, or of the points of a COLMAP "
        "model that views observe; 0: depths are not read",
        at_least=0,
        affects="training",
        absent=0.0,
    )


@dataclass(frozen=True)
class RunOptions(RecordOptions):
    """Experiment, logging and checkpoints."""

    i_testset: int = option(50_000, "steps between renderings of the test set; 0: never", at_least=0, affects="neutral")
    i_video: int = option(50_000, "steps between videos; 0: never", at_least=0, affects="neutral")
    eval_rays: int = option(
        2048, "fixed pixels per test view for the curve of test PSNR; 0: all", at_least=0, affects="neutral"
    )
    final_pixels: bool = option(
        False,
        "final evaluation on fixed pixels (those of the test curve, or --final_rays) instead of whole test views: "
        "faster, and recorded so",
        affects="neutral",
    )
    final_rays: int = option(
        0,
        "fixed pixels per test view for --final_pixels, if not those of the curve; 0: --eval_rays",
        at_least=0,
        affects="neutral",
    )


@dataclass(frozen=True)
class NerfConfig(RunConfig):
    """Configuration of a NeRF run."""

    run: RunOptions
    data: DataOptions
    model: ModelOptions
    conditioning: ConditioningOptions
    render: RenderOptions
    train: TrainOptions
    capture: CaptureOptions
    kind: ClassVar[str] = "nerf"
    instead: ClassVar[dict[str, str]] = {"optimiser": INSTEAD_OF_OPTIMISER}

    @property
    def scene(self) -> str:
        """Last name of the path of the scene; ``scene`` without a path."""
        return name_of(self.data.datadir) or "scene"

    def check(self) -> None:
        """Check the combination of options.

        Raises
        ------
        InputError
            For the first invalid combination, with the reason.
        """
        kind, render = self.data.dataset_type, self.render
        expected = f"expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        if kind in ("LINEMOD", "deepvoxels"):
            raise InputError(f"option --dataset_type: {kind} scenes are not supported, {expected}")
        if kind not in FORMATS:
            raise InputError(f"option --dataset_type: found {kind!r}, {expected}")
        self._check_range()
        if self.data.white_bkgd and self.data.background_color == "black":
            raise InputError(
                "options --white_bkgd and --background_color black are mutually exclusive: give one of them"
            )
        self.conditioning.check()
        self.model.check()
        if render.sampler == "proposal" and not render.N_importance:
            raise InputError("option --sampler proposal needs --N_importance: found 0, expected at least 1")
        if render.lindisp and render.spacing not in ("auto", "disparity"):
            raise InputError(
                f"options --lindisp and --spacing {render.spacing} are mutually exclusive: give one of them"
            )
        if self.train.precrop_iters and not self.train.no_batching:
            raise InputError("option --precrop_iters needs --no_batching: crops are taken from one image at a time")
        if self.run.final_rays and not self.run.final_pixels:
            raise InputError(
                f"option --final_rays: found {self.run.final_rays} without --final_pixels, expected both: it has no "
                "effect on whole test views"
            )
        if render.render_only and self.run.no_reload and not self.run.ft_path:
            raise InputError(
                "options --render_only and --no_reload together load no weights: give one of them, or --ft_path"
            )

    def check_given(self, on_line: set[str], in_file: set[str]) -> None:
        """Check that options of conditioning have an effect; see ``ConditioningOptions.check_effects``."""
        self.conditioning.check_effects()

    def _check_range(self) -> None:
        near, far = self.data.near, self.data.far
        if self.data.dataset_type == "llff" and (near or far):
            raise InputError(
                f"options --near and --far: found {near:g} and {far:g}, expected 0: LLFF scenes have their own bounds"
            )
        if near and far and near >= far:
            raise InputError(f"option --near: found {near:g}, expected less than --far, {far:g}")
