"""Memory, start-up time and step time of scenes that do not fit in memory, against images, pixels, levels and storage.

    python benchmarks/large_scenes.py growth [--images 100 1000 10000] [--side 64] [--work DIR]
    python benchmarks/large_scenes.py sizes [--megapixels 12] [--images 100 1000 10000] [--work DIR]
    python benchmarks/large_scenes.py levels [--levels 8 12 16] [--work DIR]
    python benchmarks/large_scenes.py ranks [--ranks 1 2 4] [--images 1000] [--work DIR]
    python benchmarks/large_scenes.py cost [--images 40] [--width 1200] [--height 800] [--rounds 9] [--work DIR]

``growth``: generated LLFF scenes of small PNG files, read and prepared for training by a fresh process for each kind of
storage: in memory, mapped, in blocks. ``sizes``: photographs of the sizes that do not fit here: the folder has as many
links to a few JPEG files of that size; the mapped file of decoded pixels is sparse, its pixels are zeros, and its
description says so. What is measured is memory and time, not quality. ``levels``: levels of the hash grid, on the
smallest scene. ``ranks``: processes of one thread that ``torchrun`` starts for a run on such photographs; the largest
figures of them. ``cost``: seconds of a step of one run with its photographs in memory, mapped and in blocks, and of a
second one in memory, in turns in one process; the last lines are the ratios to the first, the A/A ratio among them;
``--masked`` gives each photograph a mask.

``anonymous`` is RssAnon of ``/proc/self/status``, the highest value at the ends of the parts of a run and within the
steps, sampled every 50 ms by a thread; ``mapped`` is RssFile at the end. ``start`` is the time from the call of
``setup.prepare`` to the end of the first step, without the imports.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sides
from PIL import Image

from enerf.config import parser
from enerf.core import files
from enerf.reporting import tables

BASE = [
    *("--encoding", "hash", "--hash_log2_entries", "16", "--hash_levels", "8", "--netdepth_fine", "1"),
    *("--netwidth_fine", "32", "--shading", "ray", "--use_viewdirs", "--multires_views", "0", "--density", "exp"),
    *("--sampler", "proposal", "--N_samples", "32", "--N_importance", "24", "--N_rand", "2048", "--factor", "1"),
    *("--device", "cpu", "--no_reload", "--i_spectrum", "0", "--i_img", "0", "--no_ndc"),
]
KINDS = ("memory", "mapped", "blocks")
DIFFERENT = 4  # photographs of a large size that are encoded; the others are links to them


def memory() -> dict[str, int]:
    """Bytes of anonymous memory and of mapped files of this process that are resident."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
    return {"anonymous": found["RssAnon"], "mapped": found["RssFile"]}


class Peak:
    """The highest anonymous memory of this process while it is entered."""

    def __enter__(self) -> "Peak":
        self.bytes, self._ends = memory()["anonymous"], threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ends.wait(0.05):
            self.bytes = max(self.bytes, memory()["anonymous"])

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self.bytes = max(self.bytes, memory()["anonymous"])


def write_scene(folder: Path, n: int, width: int, height: int, *, photographs: bool = False) -> Path:
    """An LLFF scene of ``n`` images of noise that is smooth; JPEG files, most of them links, if ``photographs``."""
    if (folder / "poses_bounds.npy").exists():
        return folder
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = []
    for i in range(n):
        c2w = np.eye(4)[:3]
        angle = 2 * np.pi * i / n
        c2w[:, 3] = 0.5 * np.cos(angle), 0.5 * np.sin(angle), 0.002 * (i % 97)
        matrix = np.column_stack([-c2w[:, 1], c2w[:, 0], c2w[:, 2], c2w[:, 3], [height, width, 0.8 * width]])
        rows.append(np.concatenate([matrix.ravel(), [1.0, 6.0]]))
        file = folder / "images" / f"{i:06d}.{'jpg' if photographs else 'png'}"
        if photographs and i >= DIFFERENT:
            os.link(folder / "images" / f"{i % DIFFERENT:06d}.jpg", file)
            continue
        small = Image.fromarray(generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BILINEAR).save(file, quality=90)
    np.save(folder / "poses_bounds.npy", np.stack(rows))
    return folder


def write_masks(scene: Path, width: int, height: int) -> None:
    """The scene as ``transforms.json`` whose images have masks: a circle, about a fifth of the pixels, is left out."""
    (scene / "masks").mkdir(exist_ok=True)
    y, x = np.mgrid[:height, :width]
    frames = []
    for i, row in enumerate(np.load(scene / "poses_bounds.npy")):
        name, center = f"{i:06d}", (0.3 + 0.4 * (i % 7) / 6) * width
        kept = np.hypot(x - center, y - height / 2) > 0.25 * (width * height) ** 0.5
        Image.fromarray((255 * kept).astype(np.uint8)).save(scene / "masks" / f"{name}.png")
        down, right, back, position = row[:15].reshape(3, 5).T[:4]
        matrix = np.eye(4)
        matrix[:3] = np.column_stack([right, -down, back, position])
        frame = {"file_path": f"images/{name}.jpg", "mask_path": f"masks/{name}.png"}
        frames.append({**frame, "transform_matrix": matrix.tolist()})
    camera = {"w": width, "h": height, "fl_x": 0.8 * width, "fl_y": 0.8 * width, "cx": width / 2, "cy": height / 2}
    (scene / "transforms.json").write_text(json.dumps({**camera, "frames": frames}), encoding="utf-8")


def sparse_file(scene: Path, n: int, width: int, height: int) -> None:
    """A file of decoded pixels of the scene, all zero, which takes no room on the disk."""
    from enerf.datasets.scenes import decoded_cache, image_folder, resized_files

    photos = image_folder.find(scene, 1, n, (float(width), float(height)))
    found = resized_files.photographs(
        photos.each(), photos.files[0].parent, by_alpha=True, white=False, keep_alpha=True
    )
    place = decoded_cache.folder()
    assert place is not None
    place.mkdir(parents=True, exist_ok=True)
    size, now = n * width * height * 3, 1_700_000_000 * 10**9
    one = zlib.crc32(bytes(width * height * 3))
    text = json.dumps({"pixels": size, "channels": 3, "dtype": "uint8", "time": now, "crc32": [one] * n}).encode()
    path = place / f"{found.key()}{decoded_cache.SUFFIX}"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(text + len(text).to_bytes(8, "little") + decoded_cache.MAGIC)
    os.utime(path, ns=(time.time_ns(), now))


def stored(kind: str) -> None:
    """Make this process keep photographs in memory, in a mapped file, or decode them on demand."""
    from enerf.datasets.scenes import decoded_cache, storage

    def nowhere(*_: object) -> Any:
        raise decoded_cache.NoRoom("the benchmark asks for blocks")

    storage.IN_MEMORY = 1 << 62 if kind == "memory" else 0
    if kind == "memory":  # whatever the available memory is
        storage.Limits.of_cache = classmethod(lambda cls, _: cls())  # type: ignore[assignment]
    if kind == "blocks":
        storage.HEADROOM = 1 << 40
        decoded_cache.mapped = nowhere  # type: ignore[assignment]


def prepared(scene: Path, kind: str, words: list[str]) -> tuple[Any, Callable[[], float]]:
    """A run, and a function that takes one step and returns its seconds."""
    from enerf.engine import distributed
    from enerf.engine.joint_step import JointStep
    from enerf.tasks.nerf import setup, train
    from enerf.tasks.nerf.config import NerfConfig

    batches = ["--batches", "blocks" if kind == "blocks" else "auto", "--cache_gb", "1000"]
    where = ["--datadir", str(scene), "--basedir", str(scene.parent / "logs"), "--expname", kind]
    run = setup.prepare(parser.parse(NerfConfig, [*BASE, *where, *batches, *words])[0])
    team, alone = distributed.current(), train.step_function(run)
    step: Any = JointStep(team, alone, lambda: False) if team.is_joint else alone  # type: ignore[arg-type]

    def one() -> float:
        began = time.perf_counter()
        step(run.state)
        run.state.optimizer.step()
        run.state.optimizer.zero_grad(set_to_none=True)
        run.state.step += 1
        return time.perf_counter() - began

    return run, one


def measured(scene: str, kind: str, steps: int, *words: str) -> None:
    """Print, as JSON, memory and times of a run in this process."""
    import torch

    from enerf.engine import distributed

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    stored(kind)
    before = memory()["anonymous"]
    with distributed.joined("cpu"), Peak() as peak:
        began = time.perf_counter()
        _, one = prepared(Path(scene), kind, list(words))
        one()
        start = time.perf_counter() - began
        seconds = [one() for _ in range(steps)]
    result = {"start": start, "step": statistics.median(seconds), "mean": statistics.mean(seconds)}
    print(json.dumps({**result, **memory(), "before": before, "peak": peak.bytes}))


def fresh(scene: Path, kind: str, steps: int, *words: str, ranks: int = 1) -> dict[str, float]:
    """``measured`` in a process of its own, or in several of a joint run: the largest figures of them."""
    joint = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *joint, __file__, "one", str(scene), kind, str(steps), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    each = [json.loads(text) for text in re.findall(r"\{[^}]*\}", done.stdout)]  # lines of processes may run together
    found: dict[str, float] = {name: max(values[name] for values in each) for name in each[0]}
    print(scene.name, kind, *words, found, file=sys.stderr, flush=True)  # the table comes at the end
    return found


def row(label: list[str], found: dict[str, float]) -> list[str]:
    """Cells of a table."""
    sizes = [files.format_bytes(found[name]) for name in ("peak", "mapped")]
    return [*label, *sizes, f"{found['start']:.1f}", f"{1000 * found['step']:.0f}", f"{1000 * found['mean']:.0f}"]


HEADER = ["peak anonymous", "mapped", "start [s]", "median step [ms]", "mean step [ms]"]


def growth(options: argparse.Namespace, work: Path) -> list[list[str]]:
    """Small generated images: what grows with their number."""
    found = [["images", "pixels", "storage", *HEADER]]
    for n in options.images:
        scene = write_scene(work / f"small_{n}", n, options.side, options.side)
        for kind in KINDS:
            label = [f"{n:,}", f"{options.side}x{options.side}", kind]
            found.append(row(label, fresh(scene, kind, options.steps, "--block_gb", "0.001")))
    return found


def sizes(options: argparse.Namespace, work: Path) -> list[list[str]]:
    """Photographs of sizes that do not fit here."""
    found = [["images", "decoded", "storage", *HEADER]]
    width = round((options.megapixels * 1e6 * 4 / 3) ** 0.5)
    height = round(options.megapixels * 1e6 / width)
    for n in options.images:
        scene = write_scene(work / f"large_{n}_{width}", n, width, height, photographs=True)
        total = files.format_bytes(n * width * height * 3)
        sparse_file(scene, n, width, height)
        for kind in ("mapped", "blocks"):
            words = ["--no_pose_check"] if kind == "mapped" else []
            found.append(row([f"{n:,}", total, kind], fresh(scene, kind, options.steps, *words)))
    return found


def ranks(options: argparse.Namespace, work: Path) -> list[list[str]]:
    """Processes of a joint run."""
    found = [["processes", "decoded", "storage", *HEADER]]
    width = round((options.megapixels * 1e6 * 4 / 3) ** 0.5)
    height, n = round(options.megapixels * 1e6 / width), options.images[0]
    scene, total = work / f"large_{n}_{width}", files.format_bytes(n * width * height * 3)
    write_scene(scene, n, width, height, photographs=True)
    sparse_file(scene, n, width, height)
    for kind in ("mapped", "blocks"):
        for size in options.ranks:
            words = ["--no_pose_check"] if kind == "mapped" else []
            found.append(row([str(size), total, kind], fresh(scene, kind, options.steps, *words, ranks=size)))
    return found


def levels(options: argparse.Namespace, work: Path) -> list[list[str]]:
    """Levels of the hash grid."""
    found = [["levels", "entries", "storage", *HEADER]]
    scene = write_scene(work / "small_100", 100, options.side, options.side)
    for n in options.levels:
        for entries in (16, 19):
            words = ["--hash_levels", str(n), "--hash_log2_entries", str(entries)]
            label = [str(n), f"2^{entries}", "memory"]
            found.append(row(label, fresh(scene, "memory", options.steps, *words)))
    return found


def cost(options: argparse.Namespace, work: Path) -> list[list[str]]:
    """Seconds of steps of the same run by storage, in turns."""
    scene = write_scene(
        work / f"cost_{options.images[0]}_{options.width}{'_masked' if options.masked else ''}",
        options.images[0],
        options.width,
        options.height,
        photographs=True,
    )
    if options.masked:
        write_masks(scene, options.width, options.height)
    words = ["--no_pose_check", "--block_gb", str(options.block_gb)]
    words += ["--dataset_type", "transforms", "--near", "1", "--far", "6"] if options.masked else []
    names = ("memory", "memory again", "mapped", "blocks")
    opened = {name: sides.Side(name, Steps, str(scene), name.split()[0], words) for name in names}
    timers = {name: partial(side.call, "seconds", options.steps) for name, side in opened.items()}
    taken = sides.by_turns(timers, options.rounds)
    found = [["storage", "mean step [ms]", "ratio", "noise"]]
    for name in names:
        values = sides.ratios(taken[name], taken["memory"])
        low, high = sides.interval(values)
        step = 1000 * statistics.median(taken[name])
        found.append([name, f"{step:.1f}", f"{statistics.median(values):.3f}", f"{low:.3f}..{high:.3f}"])
    return found


class Steps:
    """A run in a process of its own."""

    def __init__(self, scene: str, kind: str, words: list[str]) -> None:
        import torch

        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        stored(kind)
        _, self._one = prepared(Path(scene), kind, words)
        self.words = kind
        self.seconds(3)

    def seconds(self, steps: int) -> float:
        """Mean seconds of so many steps."""
        began = time.perf_counter()
        for _ in range(steps):
            self._one()
        return (time.perf_counter() - began) / steps


def main() -> None:
    """Command line."""
    reader = sides.parser(__doc__)
    tables_of = {"growth": growth, "sizes": sizes, "levels": levels, "ranks": ranks, "cost": cost}
    reader.add_argument("what", choices=tables_of)
    reader.add_argument("--images", type=sides.count, nargs="+")
    reader.add_argument("--levels", type=sides.count, nargs="+", default=[8, 12, 16])
    reader.add_argument("--ranks", type=sides.count, nargs="+", default=[1, 2, 4])
    reader.add_argument("--masked", action="store_true", help="cost: give each photograph a mask")
    reader.add_argument("--side", type=sides.count, default=64, help="pixels of the sides of small images")
    reader.add_argument("--megapixels", type=float, default=12.0)
    reader.add_argument("--width", type=sides.count, default=1200)
    reader.add_argument("--height", type=sides.count, default=800)
    reader.add_argument("--block_gb", type=float, default=0.05)
    reader.add_argument("--steps", type=sides.count, default=20)
    reader.add_argument("--rounds", type=sides.count, default=9)
    reader.add_argument("--work", help="folder for scenes and the cache, which stay; else a temporary one")
    options = reader.parse_args()
    default = {"cost": [40], "ranks": [1000]}.get(options.what, [100, 1000, 10000])
    options.images = options.images or default
    work = Path(options.work or tempfile.mkdtemp(prefix="enerf-large-")).absolute()
    os.environ["ENERF_CACHE"] = os.environ.get("ENERF_CACHE") or str(work / "cache")
    try:
        fresh(write_scene(work / "small_100", 100, options.side, options.side), "memory", 1)  # compiles kernels
        rows = tables_of[options.what](options, work)
        report = sides.Report(options.out)
        report(tables.as_markdown(rows))
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        measured(sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:])
    else:
        sides.enter(main)
