"""From photographs to a scene: accuracy, failures, folders that are refused, resuming."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enerf.cli import process as command
from enerf.core import images
from enerf.datasets.scenes import colmap, poses, synthetic_phone, synthetic_photographs, transforms_file
from enerf.preprocessing import colmap_process, work_folder
from enerf.preprocessing import process as processing
from enerf.preprocessing.options import ProcessOptions
from enerf.preprocessing.photographs import Collection
from tests.contents import refusal
from tests.preprocessing.captures import CENTER, arc, errors, look_at, needs_pycolmap, pictures, turned, write

ROOT = Path(__file__).resolve().parents[2]
VIEWS = arc(10, 0.25)


def run(source: Path, scene: Path, **options) -> dict:
    return processing.process(source, ProcessOptions(out=str(scene), threads=2, **options))


def accuracy(scene: Path, true: np.ndarray) -> tuple[float, float]:
    """Errors of the poses in ``transforms.json``, whose views are named by their index."""
    posed = transforms_file.read(scene / "transforms.json")
    return errors(posed.c2w, true[[int(Path(name).stem) for name in posed.names]])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("photos") / "photos", VIEWS)


@pytest.fixture(scope="module")
def scene(tmp_path_factory, photos) -> Path:
    folder = tmp_path_factory.mktemp("scene") / "a scene"
    run(photos, folder)
    return folder


@needs_pycolmap
def test_poses_are_those_that_the_pictures_were_rendered_from(scene):
    centers, degrees = accuracy(scene, VIEWS)
    assert centers < 0.01
    assert degrees < 0.3


@needs_pycolmap
def test_the_folder_holds_all_that_is_promised(scene, photos):
    report = json.loads((scene / "report.json").read_text())
    assert report["registered"] == [f"{i:02d}.png" for i in range(10)]
    assert report["not_registered"] == {}
    assert report["reprojection_error"]["mean"] < 1
    assert report["cameras"][0]["focal_length_deviation"] > 0
    assert abs(report["cameras"][0]["focal_length"] - 288) < 3 * report["cameras"][0]["focal_length_deviation"]
    model, posed = (
        colmap.read(scene / "sparse" / "0", scene / "images"),
        transforms_file.read(scene / "transforms.json"),
    )
    np.testing.assert_allclose(posed.c2w[np.argsort(posed.names)], model.c2w, atol=1e-9)
    assert model.points is not None
    assert len(model.points.xyz) == report["points"] > 200
    for file in posed.files:
        assert file.read_bytes() == (photos / file.name).read_bytes()
    with Image.open(scene / "cameras.png") as picture:
        assert picture.size[0] > 2 * picture.size[1] * 0.9
    assert colmap.detect(scene)


@needs_pycolmap
def test_a_finished_scene_is_left_as_it_is(scene, photos, capsys):
    before = (scene / "transforms.json").stat()
    command.main([str(photos), "--out", str(scene), "--threads", "1"])
    told = capsys.readouterr().out
    assert told.startswith("10 of 10 photographs registered")
    assert told.splitlines()[-1] == f"next: enerf train --datadir '{scene}'"
    assert (scene / "transforms.json").stat() == before
    assert "with --overwrite to replace it" in refusal(run, photos, scene, features=200)


@needs_pycolmap
def test_a_finished_scene_is_known_without_its_folder_of_work(scene, photos, tmp_path):
    other = tmp_path / "scene"
    shutil.copytree(scene, other, ignore=shutil.ignore_patterns("colmap"))
    assert run(photos, other)["registered"] == run(photos, scene)["registered"]
    told = refusal(run, photos, other, principal_point="center")
    assert "made of other options, expected another folder for the new one (--out, or --scene with --auto)" in told
    removed = sorted((other / "images").iterdir())[1]
    removed.unlink()
    told = refusal(run, photos, other)
    assert f"found a finished scene without images/{removed.name}, expected all of its files" in told


@pytest.fixture
def any_pycolmap(monkeypatch):
    """What is refused is so before pycolmap is used."""
    monkeypatch.setattr(colmap_process, "version", lambda: "4")


def test_without_pycolmap_one_sentence_names_the_extra(monkeypatch, photos, tmp_path):
    monkeypatch.setattr(colmap_process.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'enerf[sfm]'" in refusal(run, photos, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()


@pytest.mark.usefixtures("any_pycolmap")
def test_folders_that_are_not_the_commands_are_refused(photos, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        words = refusal(run, photos, tmp_path / "other", overwrite=overwrite)
        assert "found" in words
        assert "notes.txt, which this command has not made" in words
    assert os.listdir(tmp_path / "other") == ["notes.txt"]
    assert "a folder inside of" in refusal(run, photos, photos / "scene")
    assert "which contains the input" in refusal(run, photos, photos.parent)
    assert "which is no folder" in refusal(run, photos, tmp_path / "other" / "notes.txt")
    assert "expected the new folder of the scene" in refusal(processing.process, photos, ProcessOptions())


@pytest.mark.usefixtures("any_pycolmap")
def test_inputs_that_are_no_photographs_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    for source, words in (
        (tmp_path / "pipe.mp4", "found a named pipe"),
        (Path("/dev/zero"), "found a character device"),
        (tmp_path / "none", "not found"),
        (tmp_path / "empty", "found no photograph"),
        (tmp_path / "one.png", "found one photograph"),
    ):
        assert words in refusal(run, source, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()


JOB = colmap_process.Job(["1.png"], ["a.png"], [], False, 100, 100, "exhaustive", "incremental", 2.0, "auto", 1)
FAILURES = [
    (
        "os.write(1, b'{\"event\": ' + b'9' * 40); os.kill(os.getpid(), 9)",
        "signal 9, as if memory had run out, expected",
    ),
    (
        "sys.stderr.write('  what():  disk full\\n*** SIGABRT; stack trace: ***\\n'); os.abort()",
        "signal 6 (disk full), ",
    ),
    ("raise MemoryError('much')", "exit code 1 (MemoryError: much), expected a result"),
    ("sys.stderr.write('I20260101 all is well\\n'); os._exit(3)", "exit code 3, expected a result"),
]


@pytest.mark.parametrize(("code", "words"), FAILURES)
def test_a_process_that_dies_is_told_with_its_own_last_error(code, words, tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "dying.py").write_text(f"import json, os, sys\n{code}\n")
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the working folder was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(colmap_process, "_ROOT", tmp_path / "modules")
    monkeypatch.setattr(colmap_process, "_MODULE", "dying")
    (tmp_path / colmap_process.LOG).write_text("E20260101 an error of an earlier call\n")
    assert words in refusal(colmap_process.run, tmp_path, JOB)


IMPORT = """
import json, os, sys
from pathlib import Path
import pycolmap
from enerf.preprocessing.colmap_worker import Worker

folder = Path(sys.argv[1])
worker = Worker(folder, json.loads((folder / "job.json").read_text()), print)
if sys.argv[2] == "killed":
    worker._set_camera = lambda *of: os._exit(1)
worker._import()
with pycolmap.Database.open(worker.database) as database:
    (camera,) = database.read_all_cameras()
    names = [image.name for image in database.read_all_images()]
print(json.dumps([*camera.params.tolist(), camera.has_prior_focal_length, *names]))
"""


@needs_pycolmap
def test_cameras_begin_as_planned_after_kills_and_damage_and_with_a_file_that_colmap_cannot_read(photos, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("01.png", "02.png"):
        (tmp_path / "images" / name).write_bytes((photos / name).read_bytes())
    (tmp_path / "images" / "00.png").write_text("no image")
    cameras = [{"members": [0, 1, 2], "model": "SIMPLE_RADIAL", "parameters": [300.0, 160, 120, 0], "has_prior": True}]
    (tmp_path / "job.json").write_text(json.dumps({"names": ["00.png", "01.png", "02.png"], "cameras": cameras}))
    environment, command = os.environ | {"PYTHONPATH": str(ROOT)}, [sys.executable, "-c", IMPORT, str(tmp_path)]
    assert subprocess.run([*command, "killed"], env=environment, capture_output=True, check=False).returncode == 1
    for cut in (None, None, 20_000, 100):
        if cut:
            (tmp_path / "database.db").write_bytes((tmp_path / "database.db").read_bytes()[:cut])
        done = subprocess.run([*command, "whole"], env=environment, capture_output=True, check=True)
        assert json.loads(done.stdout) == [300, 160, 120, 0, True, "01.png", "02.png"]
        assert sorted(os.listdir(tmp_path)) == ["database.db", "images", "job.json"]


def test_changed_masks_of_a_video_are_noticed(tmp_path):
    (tmp_path / "video.mp4").touch()
    options = ProcessOptions(masks=str(tmp_path / "masks"))
    found = []
    for value in (0, 1):
        images.write_png(tmp_path / "masks" / "frame_0001.png", np.full((2, 2 + 30 * value), 1))
        found.append(processing._key(tmp_path / "video.mp4", Collection((), {}), options, "4")["files"])
    assert found[0] != found[1]


def test_starting_over_deletes_only_what_was_recorded(tmp_path):
    old, new = ({"files": key, "options": "o", "all_options": "a"} for key in ("1", "2"))
    assert not work_folder.begin(tmp_path, old, overwrite=False)
    work_folder.record_files(tmp_path, ["images/a/1.png", "images/2.png"])
    for name in ("images/a/1.png", "images/2.png", "images/mine.png", "colmap/database.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert not work_folder.begin(tmp_path, old, overwrite=False)
    assert (tmp_path / "images" / "a" / "1.png").exists()
    assert not work_folder.begin(tmp_path, new, overwrite=False)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["colmap/work.json", "images/mine.png"]
    assert not (tmp_path / "images" / "a").exists()


MANY = arc(20, 0.4, seed=1)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("many") / "photos", MANY, supersample=2)


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("mapper", "pairs"), [("incremental", "sequential"), ("global", "exhaustive")])
def test_twenty_views_are_accurate(many, tmp_path, mapper, pairs):
    run(many, tmp_path / "scene", mapper=mapper, pairs=pairs)
    centers, degrees = accuracy(tmp_path / "scene", MANY)
    assert centers < 0.01
    assert degrees < 0.3


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("views", "words"),
    [(turned(8, 0.25), "turned on the spot"), (np.repeat(VIEWS[:1], 4, axis=0), "the camera did not move")],
)
def test_cameras_at_one_place_are_refused(tmp_path, views, words):
    photos = write(tmp_path / "photos", views)
    assert words in refusal(run, photos, tmp_path / "scene")
    assert not (tmp_path / "scene" / "transforms.json").exists()


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pictures_of_other_things_are_left_out_by_name(photos, tmp_path, caplog):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        images.write_png(folder / f"noise {i}.png", np.random.default_rng(i).random((240, 320, 3)))
    assert "no two of the 3 photographs that show the same things" in refusal(run, folder, tmp_path / "a")
    images.write_png(folder / "blank.png", np.ones((240, 320, 3)))
    for path in photos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    report = run(folder, tmp_path / "b")
    assert set(report["not_registered"]) == {"blank.png", "noise 0.png", "noise 1.png", "noise 2.png"}
    assert report["not_registered"]["noise 0.png"] == "shows nothing that the others show"
    assert "no key points" in report["not_registered"]["blank.png"]
    assert "10 of 14 photographs are registered" in caplog.text
    assert accuracy(tmp_path / "b", VIEWS)[0] < 0.01


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_turned_photographs_and_masks(photos, tmp_path):
    """Photographs that are stored sideways, and a label over the same place of all, which a mask hides."""
    folder = tmp_path / "photos"
    (folder / "masks").mkdir(parents=True)
    turned_back = Image.Exif()
    turned_back[0x0112] = 6
    turned_back.get_ifd(0x8769)[0xA405] = 31
    label = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    kept = np.full((240, 320), 255, np.uint8)
    kept[100:160, 120:210] = 0
    for path in photos.iterdir():
        pixels = np.asarray(Image.open(path)).copy()
        pixels[100:160, 120:210] = label
        raw = np.ascontiguousarray(np.rot90(pixels))  # orientation 6 turns it back, clockwise
        Image.fromarray(raw).save(folder / f"{path.stem}.jpg", exif=turned_back, quality=98, subsampling=0)
        Image.fromarray(kept).save(folder / "masks" / f"{path.stem}.png")
    report = run(folder, tmp_path / "scene")
    assert len(report["registered"]) == 10
    centers, degrees = accuracy(tmp_path / "scene", VIEWS)
    assert centers < 0.02
    assert degrees < 0.5
    posed = transforms_file.read(tmp_path / "scene" / "transforms.json")
    assert posed.cameras[0].width == 320
    for mask in posed.masks:
        np.testing.assert_array_equal(np.asarray(Image.open(mask)), kept)


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_closed_loop_of_a_video(tmp_path):
    angles = np.concatenate([np.linspace(0, 1, 8), np.ones(5), np.linspace(1, 2 * np.pi, 32)])
    true = np.array([look_at([0.9 * np.cos(a), 0.5 * np.sin(a), 0.3 * np.sin(2 * a)], CENTER) for a in angles.tolist()])
    images.write_mp4(tmp_path / "a b.mp4", pictures(true), fps=10)
    report = run(tmp_path / "a b.mp4", tmp_path / "scene", frames=20)
    assert len(report["registered"]) == 20
    posed = colmap.read(tmp_path / "scene")
    assert _nearest(posed.c2w, true) < 0.03


def _nearest(found: np.ndarray, true: np.ndarray) -> float:
    """Root-mean-square distance of the found centers from the true path, as a part of its spread, after alignment.

    Times of the frames are unknown: they are those of the nearest points of the path, found alternately.
    """
    chosen = np.linspace(0, len(true) - 1, len(found)).astype(int)
    for _ in range(30):
        a, b = found[:, :, 3], true[chosen][:, :, 3]
        left, scales, right = np.linalg.svd((b - b.mean(0)).T @ (a - a.mean(0)))
        sign = np.diag([1, 1, np.linalg.det(left @ right)])
        turn = left @ sign @ right
        scale = (scales * np.diag(sign)).sum() / ((a - a.mean(0)) ** 2).sum()
        moved = (a - a.mean(0)) @ turn.T * scale + b.mean(0)
        distance = np.linalg.norm(moved[:, None] - true[None, :, :, 3], axis=-1)
        chosen = distance.argmin(1)
    spread = np.sqrt(((true[:, :, 3] - true[:, :, 3].mean(0)) ** 2).sum(1).mean())
    return float(np.sqrt((distance.min(1) ** 2).mean()) / spread)


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_photographs_of_a_phone_all_around(tmp_path):
    """Distortion, two exposures, a blurred photograph, masks, and photographs that are stored sideways."""
    photos = synthetic_photographs.write_photographs(tmp_path / "phone", 50, width=400, progress=False)
    report = run(photos, tmp_path / "scene")
    assert len(report["registered"]) == 50
    assert [camera["model"] for camera in report["cameras"]] == ["OPENCV", "SIMPLE_RADIAL"]
    frames = json.loads(synthetic_photographs.truth_path(photos).read_text())["frames"]
    true = {Path(frame["file_path"]).name: frame["transform_matrix"][:3] for frame in frames}
    posed = transforms_file.read(tmp_path / "scene" / "transforms.json")
    centers, degrees = errors(posed.c2w, np.array([true[Path(name).name] for name in posed.names]))
    assert centers < 0.01
    assert degrees < 0.5
    gains, shots = report["log_gains"], synthetic_phone.shots(50)
    red = {
        is_dark: np.mean(
            [gain[0] for name, gain in gains.items() if shots[int(Path(name).stem[-4:]) - 1].is_dark == is_dark]
        )
        for is_dark in (False, True)
    }
    assert 0.7 < np.exp(red[True] - red[False]) < 0.9


def start(photos: Path, scene: Path) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "enerf.cli.main", "process", str(photos), "--out", str(scene), "--threads", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds child processes in /proc")
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_poses(photos, scene, tmp_path):
    other = tmp_path / "scene"
    said = ""
    for attempt in range(20):
        process = start(photos, other)
        time.sleep(1.5 * 1.12**attempt)  # to 13 seconds: a busy machine needs 6 to begin
        inner = children(process.pid)
        process.kill()
        said += process.communicate()[1]
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{child}/fd").exists() for child in inner) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{child}/fd").exists() for child in inner), "COLMAP outlived its parent"
        if (other / "transforms.json").exists():
            break
    assert "going on with what an earlier call has done" in said
    run(photos, other)
    assert (other / "transforms.json").read_bytes() == (scene / "transforms.json").read_bytes()
    assert (other / "sparse_pc.ply").read_bytes() == (scene / "sparse_pc.ply").read_bytes()


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_ends_colmap_and_the_next_call_goes_on(photos, tmp_path):
    process = start(photos, tmp_path / "scene")
    deadline = time.monotonic() + 30
    while not (tmp_path / "scene" / "colmap" / "database.db").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    inner = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.rstrip().endswith("interrupted")
    assert not any(Path(f"/proc/{child}/fd").exists() for child in inner)
    assert len(run(photos, tmp_path / "scene")["registered"]) == 10


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_changed_photographs_start_over(photos, tmp_path, caplog):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(photos.iterdir())[:6]:
        (folder / path.name).write_bytes(path.read_bytes())
    run(folder, tmp_path / "scene")
    caplog.set_level(logging.INFO)
    last = sorted(photos.iterdir())[-1]
    (folder / "05.png").unlink()
    (folder / last.name).write_bytes(last.read_bytes())
    assert "made of other photographs, expected another folder" in refusal(run, folder, tmp_path / "scene")
    report = run(folder, tmp_path / "scene", overwrite=True)
    assert "found other photographs than before, starting over" in caplog.text
    assert last.name in [*report["registered"], *report["not_registered"]]
    assert not (tmp_path / "scene" / "images" / "05.png").exists()


@needs_pycolmap
@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["fern", "flower"])
def test_poses_of_real_photographs_are_near_those_published(tmp_path, name):
    folder = Path(os.environ.get("ENERF_DATA", "")) / "llff" / name
    if "ENERF_DATA" not in os.environ or not (folder / "images_8").is_dir():
        pytest.skip(f"ENERF_DATA names no folder with llff/{name}/images_8")
    rows = np.load(folder / "poses_bounds.npy")[:, :15].reshape(-1, 3, 5)
    report = run(folder / "images_8", tmp_path / "scene")
    assert len(report["registered"]) == len(rows)
    centers, degrees = errors(colmap.read(tmp_path / "scene").c2w, poses.from_llff_axes(rows[:, :, :4]))
    assert centers < 0.02
    assert degrees < 0.3
