"""Valid inputs that cases damage or misuse, made once: scenes, meshes, images with labels, finished runs."""

import gzip
import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.registry import Command

NERF = (
    *("--netdepth", "2", "--netwidth", "16", "--netdepth_fine", "2", "--netwidth_fine", "16", "--N_rand", "32"),
    *("--N_samples", "4", "--N_importance", "4", "--i_eval", "0", "--i_img", "0", "--i_spectrum", "0"),
    *("--i_print", "1", "--i_video", "0", "--backend", "torch", "--precision", "fp32", "--device", "cpu"),
    *("--multires", "2", "--eval_rays", "16"),
)
QUICK = (*NERF, "--N_iters", "2", "--no_final_eval")
SHAPE_RUN = (
    *("--backend", "torch", "--precision", "fp32", "--device", "cpu", "--N_points", "64", "--pool", "64"),
    *("--background", "none", "--i_eval", "0", "--i_spectrum", "0", "--hash_levels", "2"),
    *("--hash_log2_entries", "6", "--resolution", "8", "--N_iters", "2"),
)
SHAPE = (*SHAPE_RUN, "--no_final_eval")
CLASSIFIER = (
    *("--model", "densenet", "--depth", "10", "--N_batch", "4", "--N_iters", "2", "--i_eval", "0"),
    *("--i_spectrum", "0", "--no_final_eval", "--device", "cpu", "--precision", "fp32", "--augment", "none"),
)
EXECUTED = "enerf-executed"  # the file that malicious inputs try to make, in the working folder
_work = Path()


def use(work: Path) -> None:
    """Keep valid inputs in ``work/_base``."""
    global _work  # noqa: PLW0603
    _work = work


def base(*parts: str) -> Path:
    """Return the path of a valid input."""
    return _work.joinpath("_base", *parts)


def copied(what: str, folder: Path, to: str = "in") -> Path:
    """Copy a valid input into the folder of a case; return the copy."""
    shutil.copytree(base(what), folder / to, symlinks=True)
    return folder / to


def copied_run(folder: Path, kind: str = "nerf") -> Path:
    """Copy a finished run into the folder of a case; return the copy."""
    return copied(f"logs/{kind}", folder, "run")


def nerf(folder: Path, scene: Path, *more: Any, options: tuple[str, ...] = QUICK) -> Command:
    """Return the command that trains a tiny NeRF on an LLFF scene."""
    where = ("--datadir", scene, "--factor", "1", "--basedir", folder / "out", "--expname", "x")
    return Command("train_nerf.py", (*where, *options, *more))


def converted(folder: Path, scene: Path, target: str, *more: Any, writes: str = "out") -> Command:
    """Return the command that writes a scene in another format, to ``out`` unless ``--out`` is given."""
    return Command("convert_scene.py", (scene, "--to", target, "--out", folder / "out", *more), writes=writes)


def blender(folder: Path, scene: Path, *more: Any) -> Command:
    """Return the command that trains a tiny NeRF on a Blender scene."""
    where = ("--datadir", scene, "--dataset_type", "blender", "--basedir", folder / "out", "--expname", "x")
    return Command("train_nerf.py", (*where, *QUICK, *more))


def shape(folder: Path, *words: Any) -> Command:
    """Return the command that fits a tiny shape field."""
    return Command("fit_shape.py", (*words[:2], "--basedir", folder / "out", "--expname", "x", *SHAPE, *words[2:]))


def classifier(folder: Path, images: Path, *more: Any) -> Command:
    """Return the command that trains a tiny classifier."""
    where = ("--images", images, "--basedir", folder / "out", "--expname", "x")
    return Command("train_classifier.py", (*where, *CLASSIFIER, *more))


def resumed(folder: Path, iterations: int) -> Command:
    """Return the command that goes on with the copied NeRF run."""
    where = ("--datadir", base("llff"), "--factor", "1", "--basedir", folder, "--expname", "run")
    steps = ("--N_iters", iterations, "--i_weights", "2")
    return Command("train_nerf.py", (*where, *NERF, *steps), changes_inputs=True, writes="")


def special_file(path: Path, kind: str) -> None:
    """Put something that is no regular file in the place of a file."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind != "missing":
        targets = {"loop": path.name, "devzero": "/dev/zero", "devfull": "/dev/full", "dangling": "nowhere"}
        path.symlink_to(targets[kind])


def make_data() -> None:
    """Write the scenes, meshes and labelled images."""
    from enerf.datasets.scenes import synthetic

    synthetic.write_scene(base("llff"), 8, width=40, height=30, supersample=1, progress=False)
    _write_posed()
    _write_blender(base("blender"))
    _write_meshes(base("mesh"))
    random = np.random.default_rng(0)
    _write_cifar(random)
    _write_idx(base("idx"), random)
    for split in ("train", "test"):
        for name in "ab":
            for i in range(4):
                _save(base("folders", split, name, f"{i}.png"), random.integers(0, 255, (32, 32, 3), dtype=np.uint8))


def run_commands() -> list[Command]:
    """Return the commands that make the finished runs in ``logs/``."""
    logs = ("--basedir", base("logs"), "--expname")
    nerf_words = (
        "--datadir",
        base("llff"),
        "--factor",
        "1",
        *logs,
        "nerf",
        *NERF,
        "--N_iters",
        "4",
        "--i_weights",
        "2",
    )
    shape_words = ("--mesh", base("mesh", "m.obj"), *logs, "shape", *SHAPE_RUN, "--i_weights", "1")
    return [
        Command("train_nerf.py", nerf_words),
        Command("fit_shape.py", shape_words),
        Command("train_classifier.py", ("--images", base("idx"), *logs, "class", *CLASSIFIER)),
    ]


def _save(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write_posed() -> None:
    """Write the LLFF scene as a COLMAP model and as ``transforms.json``, both with points."""
    from dataclasses import replace

    from enerf.datasets.scenes import conversion, llff
    from enerf.datasets.scenes.conversion import ConversionSettings
    from enerf.datasets.scenes.posed_images import Points
    from enerf.geometry import colored_points

    posed, random = llff.read_posed(base("llff")), np.random.default_rng(0)
    view = np.repeat(np.arange(len(posed.names)), 15)
    camera, (near, far) = posed.cameras[0], posed.bounds[view].T
    depth = random.uniform(near, far)
    x, y = random.uniform([[0], [0]], [[camera.width], [camera.height]], (2, len(view)))
    local = np.stack([(x - camera.cx) / camera.fx, (camera.cy - y) / camera.fy, -np.ones(len(view))], axis=1)
    xyz = np.einsum("kij,kj->ki", posed.c2w[view, :, :3], local * depth[:, None]) + posed.c2w[view, :, 3]
    rgb = random.integers(0, 256, xyz.shape).astype(np.uint8)
    scene = replace(posed, points=Points(xyz, rgb, np.arange(len(view)), view))
    for target in ("colmap", "transforms"):
        settings = ConversionSettings(target, lossy=True, write_points=colored_points.write_scene)
        conversion.convert(scene, base(target), settings)


def _write_blender(folder: Path) -> None:
    for split, n in (("train", 4), ("test", 2)):
        frames = []
        for i in range(n):
            pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 4), dtype=np.uint8)
            _save(folder / split / f"r_{i}.png", pixels)
            cosine, sine = np.cos(2 * np.pi * i / n), np.sin(2 * np.pi * i / n)
            right, up, back = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
            pose = np.eye(4)
            pose[:3] = np.stack([right, up, back, 4 * back], 1)
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": pose.tolist()})
        content = {"camera_angle_x": 0.69, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))


def _write_meshes(folder: Path) -> None:
    import trimesh

    folder.mkdir(parents=True)
    mesh = trimesh.creation.icosphere(1)
    for suffix in ("obj", "ply", "stl", "off", "glb"):
        mesh.export(folder / f"m.{suffix}")
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh)).items():
        (folder / ("m.gltf" if name == "model.gltf" else name)).write_bytes(data)
    names = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    head = f"ply\nformat ascii 1.0\nelement vertex {len(mesh.vertices)}\n{names}end_header\n"
    rows = np.hstack([mesh.vertices, mesh.vertex_normals])
    lines = (" ".join(f"{value:.6f}" for value in row) for row in rows)
    (folder / "cloud.ply").write_text(head + "\n".join(lines) + "\n")


def _write_cifar(random: np.random.Generator) -> None:
    binary, pickled = base("cifar_bin"), base("cifar_py")
    binary.mkdir()
    pickled.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = random.integers(0, 255, (10, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(10)
        (binary / f"{name}.bin").write_bytes(rows.tobytes())
        content = {b"data": rows[:, 1:].copy(), b"labels": list(range(10))}
        (pickled / name).write_bytes(pickle.dumps(content, 2))


def _write_idx(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir()
    for which, n in (("train", 20), ("t10k", 10)):
        pixels = random.integers(0, 255, n * 784, dtype=np.uint8).tobytes()
        images = struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + pixels
        labels = struct.pack(">4BI", 0, 0, 8, 1, n) + (np.arange(n) % 10).astype(np.uint8).tobytes()
        (folder / f"{which}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{which}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
