"""Options of the commands that work on several or on finished runs. Imports no torch."""

from dataclasses import dataclass

from enerf.config.options import option

BESIDE = "beside the mesh"
MOST_CELLS = 1 << 16  # along a side; refined only where the surface is


@dataclass(frozen=True)
class CompareOptions:
    """comparison."""

    methods: str = option(
        "default", "methods to compare, such as plain,equilibrate; default: those of the task", affects="neutral"
    )
    seeds: str = option("0", "seeds of each method, such as 0,1,2", affects="neutral")
    lrates: str = option(
        "", "learning rates of each method, such as 5e-4,1e-3; empty: the configuration's", affects="neutral"
    )


@dataclass(frozen=True)
class SweepOptions(CompareOptions):
    """sweep."""

    scenes: str = option(
        "",
        "data of the runs, such as fern,flower: paths, or names of what is beside the configuration's data; empty: "
        "the configuration's alone",
        affects="neutral",
    )


@dataclass(frozen=True)
class ExecutorOptions:
    """executor."""

    executor: str = option(
        "auto",
        "what trains the runs: serial, this process, one after another; local, a pool of processes on this computer; "
        "ray or slurm, the workers of a cluster (extra scale); auto: serial for comparisons, local for sweeps",
        choices=("auto", "serial", "local", "ray", "slurm"),
        affects="neutral",
    )
    workers: int = option(
        0,
        "number of runs at a time; 0: one for each GPU or core, one if runs are limited by seconds; for clusters as "
        "many as they have room for",
        at_least=0,
        at_most=1 << 16,
        affects="neutral",
    )
    threads_per_run: int = option(
        0,
        "number of threads of each run; 0: the cores divided by the workers; for clusters 1",
        at_least=0,
        at_most=1 << 10,
        affects="neutral",
    )
    gpus_per_run: int = option(
        -1,
        "clusters: number of GPUs that each run asks for; -1: 1 unless --device is cpu, or is auto and there is none "
        "on this computer",
        at_least=-1,
        at_most=64,
        affects="neutral",
    )
    ray_address: str = option(
        "",
        "address of a Ray cluster, such as auto or ray://head:10001; empty: one is started on this computer",
        affects="neutral",
    )
    ray_dashboard: bool = option(
        False, "start Ray's dashboard, for this computer only, if Ray is started here", affects="neutral"
    )
    slurm_partition: str = option("", "partition of SLURM; empty: the cluster's default", affects="neutral")
    slurm_minutes: int = option(
        24 * 60,
        "time limit of a SLURM job, of which it needs three to save its state; a run that has not finished by then is "
        "continued in a further job",
        at_least=10,
        at_most=1 << 20,
        affects="neutral",
    )
    slurm_options: str = option(
        "", "further options of sbatch, separated by spaces, such as 'account=vision mem=16G'", affects="neutral"
    )


@dataclass(frozen=True)
class AnalyzeOptions:
    """analysis."""

    out: str = option(
        "",
        "folder of the results; empty: analysis/ beside the runs, or in the only run",
        affects="neutral",
        is_path=True,
    )
    checkpoints: int = option(
        0,
        "number of checkpoints of each run, evenly spaced, with the first and the last; 0: all",
        at_least=0,
        affects="neutral",
    )
    layers: str = option(
        "",
        "layers whose weights are reported, and with respect to whose parameters the curvature is computed: hidden, "
        "trunk, or names such as trunk.0,feature; empty: weights of the hidden layers, curvature of all parameters",
        affects="neutral",
    )
    rays: int = option(
        64,
        "number of rays, points of a shape, or images in the batch that the loss is evaluated on",
        at_least=1,
        at_most=1 << 24,
        affects="neutral",
    )
    seed: int = option(0, "seed of the batch and of the starting vectors of iterations", at_least=0, affects="neutral")
    no_hessian: bool = option(False, "analyze weights only: fast, and needs no extra packages", affects="neutral")
    density: int = option(
        0,
        "points of the spectral density of the Hessian at the first and last checkpoint; 0: none",
        at_least=0,
        at_most=1 << 16,
        affects="neutral",
    )
    datadir: str = option(
        "",
        "new path of the scene, the mesh or the images, if they were moved since training",
        affects="neutral",
        is_path=True,
    )
    device: str = option("auto", "device: auto, cpu, cuda, cuda:1 ...", affects="neutral")


@dataclass(frozen=True)
class BakeOptions:
    """baking."""

    seconds: float = option(
        60.0,
        "seconds for which the planes are tuned on the training photographs; 0: they stay as baked",
        at_least=0,
        at_most=1e6,
        affects="neutral",
    )
    planes: int = option(
        0,
        "number of planes; 0: so many that the outermost training camera sees 1.25 pixels between neighbors",
        at_least=0,
        at_most=1024,
        affects="neutral",
    )
    again: bool = option(False, "bake and tune again, even if the run has planes of its last step", affects="neutral")
    datadir: str = option("", "new path of the scene, if it was moved since training", affects="neutral", is_path=True)
    device: str = option("auto", "device: auto, cpu, cuda, cuda:1 ...", affects="neutral")


@dataclass(frozen=True)
class ConvertOptions:
    """conversion."""

    to: str = option(
        "",
        "format to write: llff; colmap; transforms (transforms.json)",
        choices=("llff", "colmap", "transforms"),
        affects="neutral",
    )
    out: str = option("", "new folder of the converted scene", affects="neutral", is_path=True)
    dataset_type: str = option(
        "auto",
        "format to read: the one that the folder is in, or a name",
        choices=("auto", "llff", "blender", "transforms", "polycam", "record3d", "colmap"),
        affects="neutral",
    )
    pose_axes: str = option(
        "format",
        "axes of the pose matrices that are read, as for training; those that are written are the format's",
        choices=("format", "llff", "opengl", "opencv", "llff_w2c", "opengl_w2c", "opencv_w2c"),
        affects="neutral",
    )
    dialect: str = option(
        "nerfstudio",
        "program that transforms.json is for",
        choices=("nerfstudio", "instant-ngp"),
        affects="neutral",
    )
    lossy: bool = option(
        False, "leave out what the format cannot express, with a warning, instead of refusing", affects="neutral"
    )
    link: bool = option(
        False, "put symbolic links to the photographs, masks and depth maps in the place of copies", affects="neutral"
    )
    near: float = option(
        0.0,
        "llff: nearest depth of all views, in units of the scene; 0: that of the scene, or of its points",
        at_least=0,
        affects="neutral",
    )
    far: float = option(
        0.0,
        "llff: farthest depth of all views, in units of the scene; 0: that of the scene, or of its points",
        at_least=0,
        affects="neutral",
    )


@dataclass(frozen=True)
class ExtractOptions:
    """extraction."""

    method: str = option(
        "march",
        "march: the surface where the field has a value; fusion: depth maps of radiance fields, fused, which closes "
        "walls and has fewer loose parts",
        choices=("march", "fusion"),
        affects="neutral",
    )
    resolution: int = option(
        256, "number of cells along the longest side of the box", at_least=1, at_most=MOST_CELLS, affects="neutral"
    )
    out: str = option(
        "",
        "output mesh: a .ply, .obj, .stl or .glb file; empty: mesh.ply in the run's folder, or extracted.ply if it is "
        "that of a shape, whose mesh.ply is the one of metrics.json",
        affects="neutral",
        is_path=True,
    )
    level: str = option(
        "", "iso value: the field's value at the surface; empty: chosen by a rule, which is logged", affects="neutral"
    )
    fusion_rays: int = option(
        4_000_000, "fusion: number of pixels of all depth maps, which are downsampled", at_least=100, affects="neutral"
    )
    between: int = option(
        0,
        "fusion: number of further depth maps between each training view and the next, of interpolated cameras",
        at_least=0,
        at_most=100,
        affects="neutral",
    )
    no_fill: bool = option(
        False,
        "fusion, forward-facing scenes: leave open what the field places beyond the farthest bound, such as walls "
        "without texture, or the sky",
        affects="neutral",
    )
    precision: str = option(
        "fp32", "precision of the matrix products of the field", choices=("fp32", "bf16", "auto"), affects="neutral"
    )
    coarsest: int = option(
        64,
        "number of cells along the longest side of the coarsest grid",
        at_least=1,
        at_most=MOST_CELLS,
        affects="neutral",
    )
    check: float = option(
        0.0,
        "fraction of the grid that is checked afterwards for missed parts of the surface",
        at_least=0,
        at_most=1,
        affects="neutral",
    )
    memory: float = option(
        2.0, "memory limit in GiB, without the memory of the field", above=0, at_most=1 << 20, affects="neutral"
    )
    closed: bool = option(False, "close the mesh at the faces of the box", affects="neutral")
    crop: int = option(
        0,
        "drop vertices that are in the images of fewer training cameras than this; without a value: 1",
        bare=1,
        affects="neutral",
    )
    largest: int = option(0, "number of connected parts to keep, the largest; 0: all", at_least=0, affects="neutral")
    floaters: float = option(
        0.0,
        "drop connected parts with fewer faces than this fraction of the largest part's",
        at_least=0,
        at_most=1,
        affects="neutral",
    )
    all_parts: bool = option(
        False,
        "shapes: keep also the parts of the mesh that the fitted shape does not have; fusion: those that fewer than "
        "four depth maps see on average",
        affects="neutral",
    )
    smooth: int = option(0, "iterations of volume-preserving smoothing", at_least=0, at_most=10_000, affects="neutral")
    decimate: int = option(
        0, "largest number of faces, approximately, by decimation; 0: all", at_least=0, affects="neutral"
    )
    no_colors: bool = option(False, "write no vertex colors", affects="neutral")
    texture: int = option(
        0,
        "colors as a texture of this width and height in pixels in the place of vertex colors, in a .glb file (extra "
        "texture); without a value: 2048",
        bare=2048,
        at_least=0,
        at_most=1 << 14,
        affects="neutral",
    )
    views: str = option(
        "",
        "folder for pictures of the mesh and a turntable.mp4; without a value: a folder beside the mesh",
        bare=BESIDE,
        affects="neutral",
        is_path=True,
    )
    traced: bool = option(False, "with --views: also render the field itself, by sphere tracing", affects="neutral")
    frames: int = option(
        90, "number of frames of the turntable; 0: no video", at_least=0, at_most=100_000, affects="neutral"
    )
    size: int = option(480, "height of pictures in pixels", at_least=16, at_most=1 << 14, affects="neutral")
    datadir: str = option("", "new path of the scene, if it was moved since training", affects="neutral", is_path=True)
    device: str = option("auto", "device: auto, cpu, cuda, cuda:1 ...", affects="neutral")


@dataclass(frozen=True)
class ReportOptions:
    """report."""

    out: str = option("report.html", "file of the page", affects="neutral", is_path=True)
    title: str = option("", "title of the page; empty: the names of the runs", affects="neutral")
    views: int = option(
        3,
        "number of pictures of each run, such as test views: the worst, the median and the best first; 0: none",
        at_least=0,
        at_most=1000,
        affects="neutral",
    )
    width: int = option(
        1008, "largest width of embedded pictures in pixels", at_least=16, at_most=1 << 13, affects="neutral"
    )
    compared: int = option(
        8,
        "largest number of runs whose pictures are shown side by side, and whose planes are embedded",
        at_least=1,
        at_most=64,
        affects="neutral",
    )
    video_mb: float = option(
        8.0, "largest size of all embedded videos in megabytes; 0: none", at_least=0, at_most=1024, affects="neutral"
    )
    page: str = option(
        "", "self-contained HTML page of a scene to embed, in a frame of its own", affects="neutral", is_path=True
    )
    planes: bool = option(
        False,
        "embed the planes of each run of a forward-facing scene, as enerf export-web shows them; of runs that have "
        "none of their last checkpoint they are made first, which takes minutes",
        affects="neutral",
    )
    datadir: str = option(
        "", "new path of the data, if they have moved since training", affects="neutral", is_path=True
    )


@dataclass(frozen=True)
class ExportPointsOptions:
    """export of points."""

    out: str = option("", "new folder of the points and cameras", affects="neutral", is_path=True)
    points: int = option(
        500_000,
        "number of rays of the training views; each has at most one point",
        at_least=1,
        at_most=1 << 28,
        affects="neutral",
    )
    opacity: float = option(0.5, "smallest opacity of a ray that has a point", at_least=0, at_most=1, affects="neutral")
    path: str = option(
        "",
        "path of camera_path.json; empty: that of the run's videos",
        choices=("", "spiral", "circle", "turntable", "interpolate", "test"),
        affects="neutral",
    )
    frames: int = option(120, "number of frames of that path", at_least=1, at_most=100_000, affects="neutral")
    link: bool = option(False, "put symbolic links to the photographs in the place of copies", affects="neutral")
    datadir: str = option("", "new path of the scene, if it was moved since training", affects="neutral", is_path=True)
    device: str = option("auto", "device: auto, cpu, cuda, cuda:1 ...", affects="neutral")
