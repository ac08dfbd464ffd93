"""Options of the commands that work on several or on finished runs. Imports no torch."""

from dataclasses import dataclass

from enerf.config.options import option

BESIDE = "beside the mesh"


@dataclass(frozen=True)
class CompareOptions:
    """comparison."""

    methods: str = option(
        "", "methods to compare, such as plain,equilibrate; empty: the default of the task", affects="neutral"
    )
    seeds: str = option("0", "seeds of each method, such as 0,1,2", affects="neutral")
    lrates: str = option(
        "", "learning rates of each method, such as 5e-4,1e-3; empty: the configuration's", affects="neutral"
    )


@dataclass(frozen=True)
class AnalyzeOptions:
    """analysis."""

    out: str = option(
        "", "folder of the results; empty: analysis/ beside the runs, or in the only run", affects="neutral"
    )
    checkpoints: int = option(
        0,
        "that many checkpoints of each run, evenly spread, first and last among them; 0: all",
        at_least=0,
        affects="neutral",
    )
    layers: str = option(
        "",
        "layers whose weights are told, and by whose parameters the loss is differentiated: hidden, trunk, or names "
        "such as trunk.0,feature; empty: the hidden layers, and all parameters",
        affects="neutral",
    )
    rays: int = option(
        64, "rays, points of a shape, or images, that the loss is taken on", at_least=1, affects="neutral"
    )
    seed: int = option(0, "chooses the rays, and where iterations start", at_least=0, affects="neutral")
    no_hessian: bool = option(False, "weights only: quick, and needs no extra", affects="neutral")
    density: int = option(
        0, "points of the Hessian's spectral density at a run's ends; 0: none", at_least=0, affects="neutral"
    )
    datadir: str = option("", "the scene, the mesh or the images, if they have moved since training", affects="neutral")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...", affects="neutral")


@dataclass(frozen=True)
class ExtractOptions:
    """extraction."""

    resolution: int = option(256, "cells along the longest side of the box", at_least=1, affects="neutral")
    out: str = option(
        "", "the mesh: a .ply, .obj, .stl or .glb file; empty: mesh.ply in the run's folder", affects="neutral"
    )
    level: str = option("", "the field's value at the surface; empty: by a rule, which is told", affects="neutral")
    precision: str = option("fp32", "of the field's products", choices=("fp32", "bf16", "auto"), affects="neutral")
    coarsest: int = option(64, "cells along the longest side that are looked at first", at_least=1, affects="neutral")
    check: float = option(
        0.0, "share of the lattice searched afterwards for what was missed", at_least=0, at_most=1, affects="neutral"
    )
    memory: float = option(2.0, "GiB it may take, beyond what the field needs", above=0, affects="neutral")
    closed: bool = option(False, "close what the box cuts open", affects="neutral")
    crop: int = option(
        0, "drop what fewer training cameras than this have in their picture; bare: 1", bare=1, affects="neutral"
    )
    largest: int = option(0, "keep only so many parts, the largest; 0: all", at_least=0, affects="neutral")
    floaters: float = option(
        0.0, "drop parts with fewer faces than this share of the largest's", at_least=0, at_most=1, affects="neutral"
    )
    smooth: int = option(0, "rounds of smoothing that keeps the volume", at_least=0, affects="neutral")
    decimate: int = option(0, "about so many faces at the most; 0: all", at_least=0, affects="neutral")
    no_colors: bool = option(False, "no vertex colours", affects="neutral")
    views: str = option(
        "", "folder for pictures of the mesh and a turntable.mp4; bare: one beside it", bare=BESIDE, affects="neutral"
    )
    traced: bool = option(
        False, "with --views: a picture of the field itself too, by rays that walk to its surface", affects="neutral"
    )
    frames: int = option(90, "of the turntable; 0: none", at_least=0, affects="neutral")
    size: int = option(480, "height of pictures in pixels", at_least=16, affects="neutral")
    datadir: str = option("", "the scene, if it has moved since training", affects="neutral")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...", affects="neutral")
