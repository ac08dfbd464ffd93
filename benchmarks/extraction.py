"""Coarse-to-fine extraction of a run's mesh against a dense evaluation: evaluations, seconds, memory, same mesh.

    python benchmarks/extraction.py RUN [--resolution 512] [--rounds 2] [--precision fp32] [--share 1]
    python benchmarks/extraction.py RUN --resolution 1024 --rounds 0
    python benchmarks/extraction.py RUN --peers PYTHON [--libraries "VTK flying edges" warp]

Both sides evaluate the same field with the same backend, as commands do. Coarse-to-fine extraction works on bricks by
the C++ kernel; the dense side evaluates every sample of the lattice once, in slabs, and triangulates them with NumPy.
Sides take turns in separate processes, whose peak memory is reported beside that before the extraction. With a
``--share`` below 1 the dense side evaluates evenly spaced slabs only: its seconds and evaluations are divided by the
share, and vertices are compared in those slabs. ``--rounds 0`` runs this project's side alone.

With ``--peers`` the other sides are marching cubes of other libraries in the interpreter ``PYTHON``, on an array of the
field's values at all samples, which they get for free (``isosurface_peer.py``); ours evaluates the field. The last line
is then the seconds of the fastest library over ours.

Otherwise the last line is ``ratio=X noise=LOW..HIGH``: seconds of the dense side over ours.
"""

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import isosurface_peer
import numpy as np
import sides
import torch

from enerf.core.errors import InputError
from enerf.experiments import extract as experiments_extract
from enerf.experiments.options import ExtractOptions
from enerf.geometry.isosurface import cpu_bricks, extract, marching_cubes
from enerf.geometry.isosurface.extract import ExtractionSettings
from enerf.geometry.isosurface.sample_grid import FieldSampler, Lattice

THICK = 8  # cells of a slab
PEER = Path(__file__).with_name("isosurface_peer.py")


def peak() -> float:
    """Peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Extraction:
    """One side: extraction from the field of a run."""

    def __init__(self, run: str, level: str, resolution: int, precision: str, threads: int) -> None:
        torch.set_num_threads(threads)
        chosen = ExtractOptions(precision=precision, level=level, device="cpu")
        self.subject, self.resolution = experiments_extract.open_source(Path(run), chosen), resolution
        self.words = f"{self.subject.name}: {self.subject.description}"
        self.level = self.subject.iso_value
        points = self.subject.box.mean(0).expand(self.subject.points_at_once, 3).contiguous()
        with torch.no_grad():
            self.subject.field(points)  # compiles kernels and allocates memory
        marching_cubes.cases()
        cpu_bricks.available()
        self.before = peak()

    def sparse(self) -> dict[str, Any]:
        """The mesh by coarse-to-fine extraction."""
        began, subject = time.perf_counter(), self.subject
        settings = ExtractionSettings(
            self.resolution,
            subject.iso_value,
            inside=subject.inside,
            slope=subject.slope,
            points_at_once=subject.points_at_once,
        )
        found = extract.extract(subject.field, subject.box, settings)
        seconds = time.perf_counter() - began
        result = {"seconds": seconds, "evaluations": found.evaluations, "plan": str(found.plan)}
        return {**result, "vertices": found.vertices, "faces": found.faces, "before": self.before, "peak": peak()}

    def dense(self, share: float) -> dict[str, Any]:
        """The mesh by dense evaluation, slab by slab."""
        began, subject = time.perf_counter(), self.subject
        lattice = Lattice(subject.box, extract.cells_of(subject.box, self.resolution))
        sampler = FieldSampler(subject.field, lattice, subject.iso_value, subject.inside, subject.points_at_once)
        pieces, starts = marching_cubes.MeshBuilder(lattice), np.arange(0, lattice.cells[0], THICK)
        chosen = starts[np.unique(np.linspace(0, len(starts) - 1, max(1, round(share * len(starts)))).astype(int))]
        last: tuple[int, np.ndarray] | None = None
        for start in chosen:
            stop = min(start + THICK, lattice.cells[0])
            known = last[1] if last is not None and last[0] == start else None
            values = self._slab(sampler, lattice, start, stop, known)
            pieces.add(
                values[None], np.array([[start, 0, 0]]), np.ones((1, *(n - 1 for n in values.shape)), dtype=bool)
            )
            last = (stop, values[-1:])
        vertices, faces = pieces.welded()
        seconds, part = time.perf_counter() - began, len(chosen) / len(starts)
        result = {"seconds": seconds / part, "evaluations": round(sampler.evaluations / part), "share": part}
        kept = [(int(start), int(min(start + THICK, lattice.cells[0]))) for start in chosen]
        along = [(lattice.along[0][a], lattice.along[0][b]) for a, b in kept]
        return {**result, "vertices": vertices, "faces": faces, "slabs": along, "before": self.before, "peak": peak()}

    def save_array(self, path: str) -> None:
        """Write the values at all samples to a ``.npy`` file, relative to the iso value and positive inside."""
        subject = self.subject
        lattice = Lattice(subject.box, extract.cells_of(subject.box, self.resolution))
        sampler = FieldSampler(subject.field, lattice, subject.iso_value, subject.inside, subject.points_at_once)
        whole = np.lib.format.open_memmap(path, "w+", np.float32, lattice.counts)
        for start in range(0, lattice.counts[0], THICK):
            stop = min(start + THICK, lattice.counts[0])
            whole[start:stop] = self._slab(sampler, lattice, start, stop - 1, None)

    def _slab(
        self, sampler: FieldSampler, lattice: Lattice, start: int, stop: int, known: np.ndarray | None
    ) -> np.ndarray:
        """Values of the samples of layers ``start`` to ``stop``; ``known`` are those of the first, if given."""
        _, ny, nz = lattice.counts
        layers = np.arange(start + (known is not None), stop + 1)
        x, y, z = np.meshgrid(layers, np.arange(ny), np.arange(nz), indexing="ij")
        values = sampler.values(np.stack([x.ravel(), y.ravel(), z.ravel()], 1)).reshape(len(layers), ny, nz)
        return values if known is None else np.concatenate([known, values])


def same(found: dict[str, Any], dense: dict[str, Any]) -> str:
    """Number of vertices that only one side has, in the slabs of the dense side."""
    ours_, theirs = found["vertices"], dense["vertices"]
    if dense["share"] < 1:
        within = np.zeros(len(ours_), dtype=bool)
        for low, high in dense["slabs"]:
            within |= (ours_[:, 0] >= low) & (ours_[:, 0] <= high)
        ours_ = ours_[within]
    a, b = ({row.tobytes() for row in np.ascontiguousarray(v)} for v in (ours_, theirs))
    where = "" if dense["share"] == 1 else f" in {dense['share']:.1%} of the slabs"
    return f"vertices{where}: {len(b):,} dense, {len(b - a):,} of them missed, {len(a - b):,} of ours not among them"


def _peer_seconds(python: str, words: list[str]) -> dict[str, Any]:
    """What ``isosurface_peer.py`` prints in another interpreter; ``missing`` says why there is nothing.

    Raises
    ------
    InputError
        If there is no such interpreter.
    """
    try:
        done = subprocess.run([python, *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"option --peers: {python} cannot be run ({error.strerror}), expected a Python") from None
    if done.returncode:
        return {"missing": (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def against_peers(side: sides.Side, args: argparse.Namespace, report: sides.Report) -> None:
    """Compare with other libraries, by turns; prints the seconds of all, and the ratio of the fastest to ours."""
    with tempfile.TemporaryDirectory() as folder:
        array = str(Path(folder) / "values.npy")
        side.call("save_array", array)
        found: dict[str, list[float]] = {"ours": []}
        libraries = list(args.libraries)
        for _ in range(args.rounds):
            ours_ = side.call("sparse")
            found["ours"].append(ours_["seconds"])
            for name in list(libraries):
                answer = _peer_seconds(args.peers, [str(PEER), name, array, "--threads", str(args.threads)])
                if "missing" in answer:
                    report(f"{name} is skipped: {answer['missing']}")
                    libraries.remove(name)
                    found.pop(name, None)
                    continue
                found.setdefault(name, []).extend(answer["seconds"])
                if len(found[name]) == 1:
                    report(f"{name}: {answer['vertices']:,} vertices, {answer['faces']:,} faces")
    for name, seconds in found.items():
        free = "with field evaluations" if name == "ours" else "on the array"
        report(f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}) {free}")
    if len(found) == 1:
        raise InputError(f"option --peers: {args.peers} has none of the libraries, or is no Python")
    fastest = min(
        (name for name in found if name != "ours"), key=lambda name: statistics.median(found[name]), default=""
    )
    report(f"fastest: {fastest}")
    report(sides.ratio_line(sides.ratios(found[fastest], found["ours"])))


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("run", help="the folder of a shape run or of a NeRF's")
    parser.add_argument("--resolution", type=sides.count, default=512)
    parser.add_argument("--level", default="")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "auto"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0, help="share of the slabs that the dense side evaluates")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peers", help="interpreter in which other libraries are installed")
    parser.add_argument("--libraries", nargs="+", default=list(isosurface_peer.PEERS), choices=isosurface_peer.PEERS)
    args = parser.parse_args()
    if args.peers and args.rounds < 1:
        raise InputError("option --rounds: found 0, expected at least 1 with --peers")
    device = torch.device("cpu")
    report = sides.Report(args.out, device)
    made = (args.run, args.level, args.resolution, args.precision, args.threads)
    side = sides.Side("coarse to fine", Extraction, *made)
    report(side.words)
    found: dict[str, Any] = side.call("sparse")
    report(found["plan"])
    report(_summary("coarse to fine", found))
    if args.peers:
        against_peers(side, args, report)
    if args.peers or not args.rounds:
        return
    other = sides.Side("dense", Extraction, *made)
    sparse, dense = [found], [other.call("dense", args.share)]
    report(_summary("dense" + (f" (from {dense[0]['share']:.1%} of it)" if args.share < 1 else ""), dense[0]))
    report(same(found, dense[0]))
    for _ in range(args.rounds - 1):
        sparse.append(side.call("sparse"))
        dense.append(other.call("dense", args.share))
    quotients = sides.ratios([d["seconds"] for d in dense], [s["seconds"] for s in sparse])
    report(f"evaluations: {dense[0]['evaluations'] / found['evaluations']:.1f} times fewer")
    seconds = [statistics.median(x["seconds"] for x in many) for many in (sparse, dense)]
    report(f"seconds, medians of {args.rounds}: {seconds[0]:.1f} coarse to fine, {seconds[1]:.1f} dense")
    report(sides.ratio_line(quotients, 1))


def _summary(name: str, found: dict[str, Any]) -> str:
    return (
        f"{name}: {found['evaluations']:,} evaluations, {found['seconds']:.1f} s, {len(found['vertices']):,} vertices, "
        f"{len(found['faces']):,} faces, peak {found['peak']:.2f} GiB ({found['before']:.2f} before)"
    )


if __name__ == "__main__":
    sides.enter(main)
