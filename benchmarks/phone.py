"""From a folder of photographs, or a video, to test PSNR by one command, on the generated capture of a phone.

``enerf generate photographs`` writes both; ``enerf train INPUT --auto`` computes the cameras and trains. Cameras are
compared with the true ones after the similarity between them. Test photographs take part in computing the cameras.

    python benchmarks/phone.py --work logs/phone [--seconds 120] [--only photographs]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from enerf.datasets.scenes import alignment, synthetic_photographs, transforms_file
from enerf.preprocessing import video_frames
from enerf.preprocessing.options import ProcessOptions
from enerf.reporting import tables


def true_poses(source: Path, names: list[str]) -> np.ndarray:
    """True poses of the scene's images: by their names or, of a video, of the frames that are taken."""
    frames = json.loads(synthetic_photographs.truth_path(source).read_text())["frames"]
    if source.is_dir():
        by_name = {Path(frame["file_path"]).name: frame["transform_matrix"][:3] for frame in frames}
        return np.array([by_name[Path(name).name] for name in names])
    chosen = video_frames.choose(video_frames.measure(source, [], None), ProcessOptions().frames)
    return np.array([frames[chosen[int(Path(name).stem.split("_")[1]) - 1]]["transform_matrix"][:3] for name in names])


def cameras(source: Path, scene: Path) -> dict[str, Any]:
    """Registered images, and errors of their poses and focal lengths."""
    posed = transforms_file.read(scene / "transforms.json")
    report = json.loads((scene / "report.json").read_text())
    true = true_poses(source, list(posed.names))
    angles, distances = alignment.residuals(posed.c2w, true)
    content = json.loads(synthetic_photographs.truth_path(source).read_text())
    first = content if "fl_x" in content else content["frames"][0]
    focal = max(report["cameras"], key=lambda camera: len(camera["photographs"]))["focal_length"]
    return {
        "registered": f"{len(report['registered'])} of {report['photographs']}",
        "angle mean": f"{angles.mean():.3f}°",
        "angle max": f"{angles.max():.3f}°",
        "shift mean": f"{100 * distances.mean() / alignment.spread(true):.2f} %",
        "shift max": f"{100 * distances.max() / alignment.spread(true):.2f} %",
        "focal length": f"{100 * (focal / first['fl_x'] - 1):+.2f} %",
        "seconds of cameras": f"{report['seconds']:.0f}",
    }


def measure(source: Path, options: argparse.Namespace) -> list[tuple[str, str]]:
    """Rows of the table: run the command, and compare with the truth."""
    name = source.stem
    words = [sys.executable, "-m", "enerf.cli.main", "train", str(source), "--auto", "--basedir", str(options.work)]
    words += ["--expname", f"run_{name}", "--max_seconds", str(options.seconds), *options.words]
    began = time.perf_counter()
    subprocess.run(words, check=True)
    seconds = time.perf_counter() - began
    metrics = json.loads((options.work / f"run_{name}" / "metrics.json").read_text())
    rows = cameras(source, source.with_name(f"{name}_scene"))
    scores = {"whole test views": metrics["mean"]["psnr"], **metrics.get("exposure", {})}
    rows |= {f"PSNR {key.removeprefix('psnr_')}": f"{value:.2f} dB" for key, value in scores.items()}
    rows |= {"steps": str(metrics["steps"]), "seconds of the command": f"{seconds:.0f}"}
    return list(rows.items())


def main() -> None:
    """Print a table of photographs and video."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--work", type=Path, default=Path("logs/phone"), help="folder of all; default: logs/phone")
    reader.add_argument("--seconds", type=float, default=120.0, help="of training; default: 120")
    reader.add_argument("--only", choices=("photographs", "video"), help="one of the two")
    options, options.words = reader.parse_known_args()
    photographs, video = options.work / "photographs", options.work / "walk.mp4"
    for source in (photographs, video):
        if options.only == ("video" if source is photographs else "photographs"):
            continue
        write = synthetic_photographs.write_photographs if source is photographs else synthetic_photographs.write_video
        began = time.perf_counter()
        write(source)
        written = ("seconds of generating", f"{time.perf_counter() - began:.0f}")
        print(tables.as_text([[source.name, ""], *map(list, [written, *measure(source, options)])]), flush=True)


if __name__ == "__main__":
    main()
