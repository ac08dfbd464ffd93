"""Options of pages for browsers."""

from dataclasses import dataclass

from enerf.config.options import option


@dataclass(frozen=True)
class WebOptions:
    """page."""

    out: str = option(
        "",
        "new folder of the page, or .html file with --single; empty: web or web.html in the run's folder, or beside "
        "the mesh",
        affects="neutral",
        is_path=True,
    )
    single: bool = option(False, "write the page as one HTML file instead of a folder", affects="neutral")
    title: str = option("", "first line of the caption; empty: the name of the scene or shape", affects="neutral")
    seconds: float = option(
        60.0,
        "planes: seconds for which they are tuned, if the run's folder has no tuned planes of its last checkpoint; 0: "
        "planes that are not tuned",
        at_least=0,
        at_most=1e6,
        affects="neutral",
    )
    layers: float = option(
        24.0,
        "planes: largest mean number of textures that a pixel reads, which decides how fast the page is; what counts "
        "least in the training views is left out; tuned planes have 24 at most",
        at_least=1,
        at_most=1024,
        affects="neutral",
    )
    quality: int = option(
        0,
        "planes: quality of the textures (AVIF, WebP), 100: without losses; 0: 100 if they are few, otherwise 90",
        at_least=0,
        at_most=100,
        affects="neutral",
    )
    resolution: int = option(
        256,
        "shape runs: number of cells along the longest side of the box in which the mesh is extracted",
        at_least=1,
        at_most=4096,
        affects="neutral",
    )
    faces: int = option(
        200_000,
        "meshes: largest number of faces, to which they are decimated",
        at_least=4,
        at_most=10_000_000,
        affects="neutral",
    )
    original: str = option(
        "",
        "meshes: file of a mesh to compare with, by a slider; empty: the mesh that a shape run was fitted to",
        affects="neutral",
        is_path=True,
    )
    up: str = option("y", "mesh files: the axis that points up", choices=("y", "z"), affects="neutral")
    datadir: str = option("", "new path of the scene, if it was moved since training", affects="neutral", is_path=True)
    device: str = option("auto", "device: auto, cpu, cuda, cuda:1 ...", affects="neutral")
