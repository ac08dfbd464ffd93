"""Collects what a GPU machine without a network lacks, for ``gpu_first.sh``; run it on a computer with one.

    python benchmarks/gpu_bundle.py [data/gpu] [--scene SCENE] [--peer NERF_PYTORCH] [--python 3.12] [--all]

Writes into the folder ``wheels`` of the packages that the extra ``app`` needs, ``llff/fern`` (poses and downsampled
photographs of an LLFF scene) and ``nerf-pytorch`` (its code alone), and prints sizes. Packages that machines with torch
for CUDA have (``THERE``) are left out, and large ones that the measurements do not use (``LARGE``) unless ``--all`` is
given. Versions are those of ``scripts/constraints.txt``. Wheels of these
versions and of this Python that are there are not downloaded again; others are removed.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from enerf.cli import app
from enerf.core import files, io
from enerf.core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 64 << 20  # bytes that may travel to the machine, this repository included
# What the machine has: torch for CUDA, and these.
THERE = {
    "torch",
    "jaxtyping",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "tqdm",
    "tensorboard",
    "matplotlib",
    "scipy",
}
LARGE = {"imageio-ffmpeg", "embreex"}  # for videos and pictures of meshes
TOOLS = ("beartype", "pytest-timeout", "pytest-xdist", "execnet", "markupsafe")  # of the tests, and what jinja2 needs
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)),
    *("manylinux2014_x86_64", "manylinux1_x86_64"),
)


def names_of(every: bool = False) -> list[str]:
    """The packages whose wheels are collected: those of the extra ``app`` that the machine lacks, and of the tests.

    >>> "trimesh" in names_of(), "numpy" in names_of(), "embreex" in names_of(), "embreex" in names_of(True)
    (True, False, False, True)
    """
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["optional-dependencies"]["app"]
    names = [re.match(r"[\w-]+", text)[0] for text in wanted]  # type: ignore[index]
    return [*(name for name in names if name not in THERE and (every or name not in LARGE)), *TOOLS]


def pinned(name: str, constraints: str) -> str:
    r"""A package with its tested version, by its line in the constraints; the name itself without one.

    >>> pinned("fast-simplification", "absl-py==2.5.1\nfast_simplification==0.2.0\n")
    'fast_simplification==0.2.0'
    """
    lines = (line.strip() for line in constraints.splitlines())
    return next((line for line in lines if _normal(line.partition("==")[0]) == _normal(name)), name)


def _requirement(wheel: str) -> str:
    """The package and version of a wheel's name, as ``_normal`` gives those of a pinned package."""
    return _normal("==".join(wheel.split("-")[:2]))


def _is_for(wheel: str, python: str) -> bool:
    """Whether a wheel is for a version of Python.

    >>> [_is_for(f"a-1.0-{tag}.whl", "3.12") for tag in ("py3-none-any", "cp312-cp312-linux_x86_64", "cp39-abi3-any")]
    [True, True, True]
    >>> _is_for("a-1.0-cp311-cp311-linux_x86_64.whl", "3.12")
    False
    """
    tags = wheel.split("-")[-3].split(".")
    return f"cp{python.replace('.', '')}" in tags or wheel.split("-")[-2] != tags[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def download(names: Sequence[str], folder: Path, python: str) -> None:
    """Download the wheels that are missing in a folder, for Linux on x86-64 and a version of Python.

    Raises
    ------
    InputError
        If pip finds no wheel of a package.
    """
    constraints = (ROOT / "scripts" / "constraints.txt").read_text(encoding="utf-8")
    wanted = [pinned(name, constraints) for name in names]
    there = {_requirement(path.name) for path in folder.glob("*.whl") if _is_for(path.name, python)}
    for path in folder.glob("*.whl"):
        if _requirement(path.name) not in map(_normal, wanted) or not _is_for(path.name, python):
            path.unlink()
    missing = [text for text in wanted if _normal(text) not in there]
    if not missing:
        return
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    options += ["--python-version", python, *(word for name in PLATFORMS for word in ("--platform", name))]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), *missing]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no message").rpartition("\n")[2]
        raise InputError(f"wheels of {', '.join(missing)} for Python {python} cannot be downloaded: {reason}")


def copy_scene(scene: Path, folder: Path) -> None:
    """Copy poses, and photographs downsampled by 4 and by 8, of an LLFF scene.

    Raises
    ------
    InputError
        If one of them is missing.
    """
    for name in ("poses_bounds.npy", "images_4", "images_8"):
        if not (scene / name).exists():
            raise InputError(
                f"option --scene: {scene} has no {name}, expected an LLFF scene with images_4 and images_8"
            )
    _made(folder)
    for name in ("images_4", "images_8"):
        shutil.copytree(scene / name, folder / name, dirs_exist_ok=True)
    shutil.copy(scene / "poses_bounds.npy", folder)


def copy_peer(peer: Path, folder: Path) -> None:
    """Copy the code and configurations of nerf-pytorch.

    Raises
    ------
    InputError
        If the folder is none.
    """
    if not (peer / "run_nerf.py").is_file():
        raise InputError(f"option --peer: {peer} has no run_nerf.py, expected a checkout of yenchenlin/nerf-pytorch")
    _made(folder)
    shutil.copytree(peer / "configs", folder / "configs", dirs_exist_ok=True)
    for path in (*peer.glob("*.py"), *peer.glob("LICENSE*")):
        shutil.copy(path, folder)


def bytes_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def repository_bytes() -> int:
    """Bytes of the files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return sum((ROOT / name).stat().st_size for name in set(done.stdout.split("\0")) if (ROOT / name).is_file())


def _made(folder: Path) -> Path:
    with io.os_errors_as_input_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    parser = app.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "folder", type=app.path, nargs="?", default=ROOT / "data" / "gpu", help="default: data/gpu of this checkout"
    )
    parser.add_argument("--scene", type=app.path, help="folder of the LLFF scene fern")
    parser.add_argument("--peer", type=app.path, help="a checkout of yenchenlin/nerf-pytorch")
    parser.add_argument("--python", default="3.12", help="version of Python of the machine")
    parser.add_argument("--all", action="store_true", help="also packages for videos and pictures of meshes")
    args: argparse.Namespace = parser.parse_args()
    if not re.fullmatch(r"3\.\d+", args.python):
        raise InputError(f"option --python: found {args.python!r}, expected a version such as 3.12")
    if args.scene:
        copy_scene(args.scene, args.folder / "llff" / "fern")
    if args.peer:
        copy_peer(args.peer, args.folder / "nerf-pytorch")
    download(names_of(args.all), _made(args.folder / "wheels"), args.python)
    sizes = {name: bytes_of(args.folder / name) for name in ("wheels", "llff", "nerf-pytorch")}
    sizes["this repository"] = repository_bytes()
    for name, size in sizes.items():
        print(f"{name}: {files.format_bytes(size)}")
    total = sum(sizes.values())
    print(f"together {files.format_bytes(total)} of {files.format_bytes(LIMIT)}")
    return int(total > LIMIT)


if __name__ == "__main__":
    app.run(main)
