"""The process that runs COLMAP: key points, matches, and structure from motion of the photographs of a job.

It is started by ``colmap_process``, reads ``job.json`` in its work folder, and reports one JSON object a line on
standard output. COLMAP's own log goes to standard error. It ends when standard input is closed, so that it does not
survive the process that started it. What it has finished is in the database: a second call goes on.

No image library is imported here: pycolmap exports symbols of its own copy of zlib, which crash OpenCV's in the same
process.
"""

import json
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from enerf.preprocessing import pairs, reconstruction
from enerf.preprocessing.diagnosis import FLAT, LEAST_MATCHES, MOSTLY

DATABASE, IMAGES, MASKS, MODEL = "database.db", "images", "masks", "model"
_STEP, _PAIRS_STEP = 4, 64  # photographs and pairs between two reports


class Worker:
    """Runs structure from motion of one job, in steps that go on where an earlier call stopped.

    ``job`` is the content of ``job.json``, the fields of ``colmap_process.Job``.
    """

    def __init__(self, folder: Path, job: dict[str, Any], report: Any) -> None:
        self.folder, self.job, self.report = folder, job, report
        self.names: list[str] = job["names"]
        self.database = folder / DATABASE

    def run(self) -> None:
        """Do all that is missing, and report the result."""
        self._import()
        self._extract()
        self._match()
        counts, found = self._summary()
        self.report({"event": "matched", "features": counts, "pairs": found})
        flat = [kind in FLAT for _, _, kind, matches, _ in found if matches >= LEAST_MATCHES]
        is_flat = sum(flat) >= MOSTLY * len(flat)
        result = reconstruction.reconstruct(self.folder, self.job, self.report, is_flat=is_flat)
        self.report({"event": "result", **result})

    def _import(self) -> None:
        """Create the database with cameras and names, unless there is one; it gets its name at the end."""
        import pycolmap

        if self.database.exists() and _is_whole(self.database):
            return
        began = self.database.with_name(f"new_{DATABASE}")
        for path in (*self.folder.glob(f"{DATABASE}*"), *self.folder.glob(f"{began.name}*")):
            path.unlink()
        pycolmap.Database.open(began).close()
        for camera in self.job["cameras"]:
            options = pycolmap.ImageReaderOptions()
            options.camera_model = camera["model"]
            names = [self.names[i] for i in camera["members"]]
            pycolmap.import_images(
                began,
                self.folder / IMAGES,
                camera_mode=pycolmap.CameraMode.SINGLE,
                image_names=names,
                options=options,
            )
            self._set_camera(began, names, camera)
        os.replace(began, self.database)

    def _set_camera(self, path: Path, names: Sequence[str], camera: dict[str, Any]) -> None:
        """Write the parameters that estimation begins with."""
        import pycolmap

        with pycolmap.Database.open(path) as database:
            found = (database.read_image_with_name(name) for name in names)
            image = next((image for image in found if image is not None), None)
            if image is None:
                return
            stored = database.read_camera(image.camera_id)
            stored.params, stored.has_prior_focal_length = camera["parameters"], camera["has_prior"]
            database.update_camera(stored)

    def _extract(self) -> None:
        """Detect key points of the photographs that have none yet."""
        import pycolmap

        with pycolmap.Database.open(self.database) as database:
            ids = {image.name: image.image_id for image in database.read_all_images()}
            missing = [name for name in self.names if name in ids and not database.exists_keypoints(ids[name])]
        options = pycolmap.FeatureExtractionOptions()
        options.max_image_size, options.num_threads = self.job["max_size"], self.job["threads"]
        options.use_gpu = False
        options.sift.max_num_features = self.job["features"]
        reader = pycolmap.ImageReaderOptions()
        if self.job["masks"]:
            reader.mask_path = self.folder / MASKS
        self._progress("extract", len(ids) - len(missing), len(ids))
        step = max(_STEP, self.job["threads"])
        for start in range(0, len(missing), step):
            for model, names in self._by_model(missing[start : start + step]).items():
                reader.camera_model = model
                pycolmap.extract_features(
                    self.database,
                    self.folder / IMAGES,
                    image_names=names,
                    camera_mode=pycolmap.CameraMode.PER_IMAGE,
                    reader_options=reader,
                    extraction_options=options,
                    device=pycolmap.Device.cpu,
                )
            self._progress("extract", len(ids) - len(missing) + min(start + step, len(missing)), len(ids))

    def _by_model(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Names of photographs by the models of their cameras."""
        model_of = {self.names[i]: camera["model"] for camera in self.job["cameras"] for i in camera["members"]}
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(model_of[name], []).append(name)
        return found

    def _match(self) -> None:
        """Match the pairs that are not matched yet."""
        import pycolmap

        with pycolmap.Database.open(self.database) as database:
            ids = {image.name: image.image_id for image in database.read_all_images()}
            wanted = self._wanted(database, ids)
            missing = [
                (a, b)
                for a, b in wanted
                if not (database.exists_matches(ids[a], ids[b]) and database.exists_two_view_geometry(ids[a], ids[b]))
            ]
        matching, verification = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
        matching.num_threads, matching.use_gpu = self.job["threads"], False
        verification.ransac.random_seed, verification.ransac.num_threads = 0, 1
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = self.folder / "pairs.txt"
        self._progress("match", len(wanted) - len(missing), len(wanted))
        for start in range(0, len(missing), _PAIRS_STEP):
            chosen = missing[start : start + _PAIRS_STEP]
            pairing.match_list_path.write_text("".join(f"{a} {b}\n" for a, b in chosen))
            pycolmap.match_image_pairs(
                self.database,
                matching_options=matching,
                pairing_options=pairing,
                verification_options=verification,
                device=pycolmap.Device.cpu,
            )
            self._progress("match", len(wanted) - len(missing) + min(start + _PAIRS_STEP, len(missing)), len(wanted))

    def _wanted(self, database: Any, ids: dict[str, int]) -> list[tuple[str, str]]:
        """Names of the pairs that the strategy chooses, neighboring ones together."""
        names = [name for name in self.names if name in ids]
        if self.job["pairs"] == "exhaustive":
            chosen = pairs.exhaustive(len(names))
        else:
            described = [np.asarray(database.read_descriptors(ids[name]).data) for name in names]
            chosen = sorted({*pairs.sequential(len(names)), *pairs.similar(described)})
        return [(names[i], names[j]) for i, j in chosen]

    def _summary(self) -> tuple[list[int], list[list[float]]]:
        """Number of key points of each photograph, and the pairs of photographs whose matches fit a common geometry.

        The number is -1 for a photograph that COLMAP's database does not have. Each pair is: index, index, COLMAP's
        number of the kind of geometry, number of matches, median distance between matched key points in pixels.
        """
        import pycolmap

        with pycolmap.Database.open(self.database) as database:
            indices = {name: i for i, name in enumerate(self.names)}
            images = {image.image_id: indices[image.name] for image in database.read_all_images()}
            counts = [-1] * len(self.names)
            points = {}
            for number, index in images.items():
                points[number] = np.asarray(database.read_keypoints(number))[:, :2]
                counts[index] = len(points[number])
            found = []
            for pair, geometry in zip(*database.read_two_view_geometries(), strict=True):
                a, b = pycolmap.pair_id_to_image_pair(pair)
                matches = np.asarray(geometry.inlier_matches)
                if len(matches):
                    moved = np.linalg.norm(points[a][matches[:, 0]] - points[b][matches[:, 1]], axis=1)
                    kind = int(geometry.config)
                    found.append([images[a], images[b], kind, len(matches), float(np.median(moved))])
        return counts, found

    def _progress(self, stage: str, done: int, total: int) -> None:
        self.report({"event": "progress", "stage": stage, "done": done, "total": total})


def _is_whole(path: Path) -> bool:
    """Whether a database can be read; a power failure or a full disk may have damaged it."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as database:
        return bool(database.execute("PRAGMA quick_check").fetchone() == ("ok",))
    return False


def _end_with_parent() -> None:
    """End this process when standard input is closed."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str]) -> None:
    """Run the reconstruction that a work folder describes; ``arguments`` has the path of that folder."""
    folder = Path(arguments[0])
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print
    _end_with_parent()

    def report(event: dict[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    shutil.rmtree(folder / MODEL, ignore_errors=True)
    Worker(folder, json.loads((folder / "job.json").read_text(encoding="utf-8")), report).run()


if __name__ == "__main__":
    main(sys.argv[1:])
