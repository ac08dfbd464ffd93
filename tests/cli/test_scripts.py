"""Tests of the scripts as subprocesses: each runs, and an error is one sentence."""

import csv
import io
import json
import logging
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import trimesh

from enerf.core import image_files
from enerf.datasets.labelled import synthetic as figures_of
from enerf.datasets.scenes import synthetic
from enerf.geometry import synthetic as shapes

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
SMALL = [
    *("--factor", "1", "--llffhold", "3", "--netwidth", "8", "--netwidth_fine", "8", "--netdepth", "2"),
    *("--netdepth_fine", "2", "--use_viewdirs", "--N_rand", "16", "--N_samples", "4", "--N_importance", "4"),
    *("--N_iters", "3", "--i_eval", "0", "--device", "cpu"),
]
SMALL_SHAPE = [
    *("--netwidth", "16", "--hash_levels", "3", "--hash_log2_entries", "12", "--hash_finest", "24", "--lrate", "2e-2"),
    *("--N_points", "512", "--pool", "2048", "--background", "none", "--N_iters", "4", "--i_eval", "2"),
    *("--resolution", "0", "--device", "cpu"),
]


def run(script: str, *words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240, check=False)


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Run a program within this process: what it takes to start Python and torch is spent once a program only."""
    log = logging.getLogger("enerf")
    before = log.handlers[:], log.level

    def run_here(script: str, *words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
        path = str(ROOT / "scripts" / script)
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(path, run_name="__main__")
        return subprocess.CompletedProcess(sys.argv, left.value.code or 0, *capsys.readouterr())

    yield run_here
    log.handlers[:] = before[0]
    log.setLevel(before[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A generated scene and a tiny E-NeRF of it, trained by the script."""
    folder = tmp_path_factory.mktemp("scripts")
    synthetic.write_scene(folder / "toy", views=5, width=16, height=12, supersample=1, progress=False)
    done = run(
        "train_nerf.py", *SMALL, "--equilibrate", "--datadir", folder / "toy", "--basedir", folder, "--expname", "run"
    )
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_help_explains_the_program(script: Path, run_here):
    done = (run_here if script.name in MISTAKES else run)(script.name, "--help")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 8


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_thin(script: Path):
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60


def test_training_prints_its_table_and_where_the_results_are(trained):
    folder, done = trained
    assert "e-nerf" in done.stdout
    assert f"results: {folder / 'run'}" in done.stdout
    assert json.loads((folder / "run" / "metrics.json").read_text())["method"] == "e-nerf"


def test_evaluating_again_gives_the_same_figures_in_every_form(trained):
    folder, _ = trained
    before = json.loads((folder / "run" / "metrics.json").read_text())
    done = run("eval_nerf.py", folder / "run", "--csv", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    header, row = list(csv.reader(io.StringIO(done.stdout)))
    assert dict(zip(header, row, strict=True))["toy"] == f"{before['mean']['psnr']:.2f}"
    assert json.loads((folder / "run" / "metrics.json").read_text())["views"] == before["views"]
    stored = run("eval_nerf.py", folder, "--stored", "--markdown")
    assert stored.returncode == 0, stored.stderr
    assert f"| {before['mean']['psnr']:.2f} |" in stored.stdout


def test_a_video_has_the_frames_that_were_asked_for(trained):
    folder, _ = trained
    done = run("render_video.py", folder / "run", "--path", "interpolate", "--frames", 4, "--png", "--depth")
    assert done.returncode == 0, done.stderr
    path = folder / "run" / "video_interpolate_depth.mp4"
    assert done.stdout.strip() == str(path)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert len(image_files.list_images(path.with_name("video_interpolate_depth_frames"))) == 4


def test_a_video_of_the_cameras_of_a_file_goes_on_where_it_was_stopped(trained, tmp_path):
    folder, _ = trained
    turned = [[1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, z, 0, 0, 0, 1] for z in (0.0, 0.1, 0.2)]
    path = {"render_width": 12, "render_height": 8, "fps": 10, "seconds": 0.3, "keyframes": []}
    path["camera_path"] = [{"camera_to_world": matrix, "fov": 50, "aspect": 1.5} for matrix in turned]
    (tmp_path / "path.json").write_text(json.dumps(path))
    words = [folder / "run", "--path", tmp_path / "path.json", "--png", "--out", tmp_path / "v.mp4", "--device", "cpu"]
    done = run("render_video.py", *words)
    assert done.returncode == 0, done.stderr
    video = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (3, 10)
    frames = image_files.list_images(tmp_path / "v_frames")
    before = [frame.stat().st_mtime_ns for frame in frames]
    frames[1].unlink()
    assert run("render_video.py", *words).returncode == 0
    after = [frame.stat().st_mtime_ns for frame in frames]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_a_comparison_runs_by_its_script(trained):
    folder, _ = trained
    words = [
        "--datadir",
        folder / "toy",
        "--basedir",
        folder / "cmp",
        "--expname",
        "c",
        "--methods",
        "plain,equilibrate",
    ]
    done = run("compare_nerf.py", *SMALL, *words)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[2:4]] == ["plain", "equilibrate"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The generated shapes, and two methods compared on one of them, by the scripts."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes.write_shapes(folder)
    words = ["--mesh", folder / "torus.ply", "--basedir", folder / "logs", "--expname", "c", *SMALL_SHAPE]
    done = run("compare_shapes.py", *words, "--methods", "plain,equilibrate")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_shapes_are_compared_by_their_script(learned):
    folder, done = learned
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["torus", "plain"], ["torus", "equilibrate"]]
    assert lines[4:] == [
        str(folder / "logs" / "c" / name) for name in ("comparison.json", "comparison.md", "curves.png")
    ]


def test_a_shape_is_learned_by_its_script_and_leaves_metrics_and_a_mesh(learned):
    folder, _ = learned
    words = ["--mesh", folder / "torus.ply", "--basedir", folder / "logs", "--expname", "one", *SMALL_SHAPE]
    done = run("fit_shape.py", *words, "--N_iters", "60", "--resolution", "24")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].startswith("torus  mlp, 2×16 relu, hash 3×4")
    assert done.stdout.splitlines()[-1] == f"results: {folder / 'logs' / 'one'}"
    metrics = json.loads((folder / "logs" / "one" / "metrics.json").read_text())
    assert 0 < metrics["field"]["iou_near"] < metrics["field"]["iou"] < 1
    assert trimesh.load(folder / "logs" / "one" / "mesh.ply").is_watertight


SMALL_CLASSIFIER = [
    *("--model", "densenet", "--depth", "10", "--width", "0.5", "--N_batch", "10", "--epochs", "1"),
    *("--eval_images", "10", "--device", "cpu", "--precision", "fp32"),
]


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Path:
    return figures_of.write_cifar(tmp_path_factory.mktemp("figures") / "figures", 40, 20)


def test_a_classifier_is_trained_by_its_script_and_resumed(figures, tmp_path):
    words = ["--images", figures, "--basedir", tmp_path, "--expname", "one", *SMALL_CLASSIFIER]
    done = run("train_classifier.py", *words, "--normalisation", "bn+e", "--layers", "first_conv_and_last_linear")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].startswith("figures  DenseNet-BC-10-6  bn+e-first_conv_and_last_linear")
    assert done.stdout.splitlines()[-1] == f"results: {tmp_path / 'one'}"
    before = (tmp_path / "one" / "metrics.json").read_text()
    again = run("train_classifier.py", "--config", tmp_path / "one" / "config.txt")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "one" / "metrics.json").read_text() == before


def test_normalizers_are_compared_by_the_script(figures, tmp_path):
    words = ["--images", figures, "--basedir", tmp_path, "--expname", "c", *SMALL_CLASSIFIER, "--epochs", "2"]
    done = run("compare_classifiers.py", *words, "--methods", "bn,bn+e")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[2:4]] == [
        ["figures", "DenseNet-BC-10-6", "bn"],
        ["figures", "DenseNet-BC-10-6", "bn+e"],
    ]
    assert lines[4:] == [str(tmp_path / "c" / name) for name in ("comparison.json", "comparison.md", "curves.png")]


MISTAKES = {
    "train_nerf.py": [
        (["--datadir", "nowhere"], "nowhere"),
        (["--N_rnd", "3"], "N_rand"),
        (["--N_rand", "x"], "whole number"),
        (["--config", "no_such.txt"], "no_such.txt"),
        (["--equilibrate", "diagonal"], "row"),
        (["--datadir", ".", "--device", "cuda:99"], "cuda:99"),
        (["--dataset_type", "LINEMOD"], "LINEMOD"),
    ],
    "eval_nerf.py": [(["nowhere"], "nowhere")],
    "export_points.py": [
        (["nowhere", "--out", "new"], "nowhere"),
        (["nowhere"], "--out"),
        (["nowhere", "--out", "new", "--points", "0"], "--points"),
    ],
    "report.py": [
        (["nowhere"], "nowhere"),
        (["nowhere", "--page", "none.html"], "none.html"),
        (["a", "--views", "x"], "--views"),
    ],
    "render_video.py": [
        (["nowhere"], "nowhere"),
        (["nowhere", "--frames", "0"], "--frames"),
        (["nowhere", "--fps", "x"], "--fps"),
        (["nowhere", "--path", "nowhere.json"], "nowhere.json"),
    ],
    "view.py": [
        (["nowhere"], "nowhere"),
        (["a", "b", "c"], "one or two"),
        (["nowhere", "--port", "99999"], "--port"),
    ],
    "bake_planes.py": [
        (["nowhere"], "nowhere"),
        (["nowhere", "--seconds", "x"], "--seconds"),
        (["nowhere", "--planes", "5000"], "--planes"),
    ],
    "export_web.py": [
        (["nowhere"], "nowhere"),
        (["nowhere", "--quality=-1"], "--quality"),
        (["nowhere", "--up", "x"], "--up"),
    ],
    "convert_scene.py": [
        (["nowhere", "--to", "colmap", "--out", "new"], "nowhere"),
        (["nowhere", "--out", "new"], "--to"),
        (["nowhere", "--to", "colmap"], "--out"),
        (["nowhere", "--to", "blender", "--out", "new"], "llff, colmap, transforms"),
        (["nowhere", "--to", "llff", "--out", "new", "--far", "x"], "--far"),
    ],
    "compare_nerf.py": [(["--methods", "plain,foo"], "foo"), (["--seeds", "a"], "--seeds")],
    "fit_shape.py": [
        ([], "--mesh"),
        (["--mesh", "nowhere.obj"], "nowhere.obj"),
        (["--cloud", "nowhere.ply"], "nowhere.ply"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--mesh", "a.ply", "--near", "x"], "--near"),
        (["--mesh", "a.ply", "--activation", "tanh"], "gaussian"),
    ],
    "compare_shapes.py": [(["--mesh", "a.ply", "--methods", "plain,foo"], "foo")],
    "train_classifier.py": [
        ([], "--images"),
        (["--images", "nowhere"], "nowhere"),
        (["--images", "a", "--normalisation", "ln"], "--normalisation"),
        (["--images", "a", "--model", "vit_s", "--normalisation", "bn"], "--normalisation"),
        (["--images", "a", "--normalisation", "bn+f"], "bn+f"),
        (["--images", "a", "--N_batch", "1"], "--N_batch"),
        (["--images", "a", "--equilibrate", "column"], "--equilibrate"),
    ],
    "process_photos.py": [
        ([], "PHOTOS|VIDEO"),
        (["nowhere", "--out", "scene"], "nowhere"),
        (["nowhere", "--camera", "FISH"], "--camera"),
        (["nowhere", "--frames", "2"], "--frames"),
    ],
    "compare_classifiers.py": [
        (["--images", "a", "--methods", "bn,foo"], "foo"),
        (["--images", "a", "--methods", "bn", "--seeds", "x"], "--seeds"),
    ],
}


@pytest.mark.parametrize(
    ("script", "words", "told"), [(s, w, t) for s, cases in MISTAKES.items() for w, t in cases], ids=str
)
def test_a_mistake_is_one_sentence_and_a_non_zero_exit(script, words, told, tmp_path, run_here):
    first = words == MISTAKES[script][0][0]
    done = (run if first else run_here)(script, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert not any(tmp_path.iterdir()), "a refused command left something behind"
