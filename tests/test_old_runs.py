"""Runs written by earlier code are opened, evaluated, rendered, extracted, analyzed and resumed.

``fixtures/old_runs`` holds runs of commit 6b46685, the data they were trained on, and ``expected.json``: commands, and
what that code computed with them. Everything goes through the scripts; no module of ``enerf`` is imported here.
"""

import json
import logging
import lzma
import os
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "fixtures" / "old_runs"
EXPECTED = json.loads((FOLDER / "expected.json").read_text()) if (FOLDER / "expected.json").is_file() else {}
NERFS = ["nerf", "hash", "conditioned"]


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the fixture folder, which is the working directory; logging is put back afterwards."""
    folder = unpacked(FOLDER, tmp_path / "old_runs")
    monkeypatch.chdir(folder)
    log = logging.getLogger("enerf")
    before = log.handlers[:], log.level
    yield folder
    log.handlers[:] = before[0]
    log.setLevel(before[1])


def unpacked(packed: Path, folder: Path) -> Path:
    """A copy of the fixture folder with its checkpoints unpacked."""
    shutil.copytree(packed, folder)
    for path in folder.rglob("*.pt.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()
    return folder


def call(script: str, *words: str) -> None:
    """Run a script in this process as its command line would; it must exit with 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    assert caught.value.code == 0


# What the commands of a case leave. ``fixtures/make_old_runs.py`` fills ``expected.json`` by these functions too.


def evaluate_results(case: dict, folder: Path) -> dict:
    """Metrics, and some pixels (0 to 255) of a test view."""
    metrics = json.loads((folder / case["run"] / "metrics.json").read_text())
    found = {"metrics": {name: _value(metrics, name) for name in case["metrics"]}}
    if "picture" in case:
        picture = cv2.imread(str(folder / case["run"] / case["picture"]))
        found["colors"] = [picture[row, column, ::-1].tolist() for row, column in case["pixels"]]
    return found


def extract_results(case: dict, folder: Path) -> dict:
    """Size of the mesh in the file, in the coordinates of the data."""
    mesh = trimesh.load(folder / "out.ply", process=False)
    return {
        "vertices": len(mesh.vertices),
        "area": float(mesh.area),
        "volume": float(mesh.volume),
        "bounds": mesh.bounds.tolist(),
        "colored": mesh.visual.kind == "vertex",
    }


def resume_results(case: dict, folder: Path) -> dict:
    """Step, sum and norm of every tensor of the model in the last checkpoint."""
    path = checkpoints(folder / case["run"])[-1]
    content = torch.load(path, weights_only=True)
    weights = {name: w.double() for name, w in content["model"].items()}
    sums = {name: [float(f"{w.sum():.9g}"), float(f"{w.norm():.9g}")] for name, w in weights.items()}
    return {"step": content["step"], "weights": sums}


def analyze_results(case: dict, folder: Path) -> dict:
    """Step, and condition number by layer, of each checkpoint."""
    (run,) = json.loads((folder / "out" / "analysis.json").read_text())["runs"].values()
    records = run["records"]
    kappas = [{name: layer["kappa"] for name, layer in record["layers"].items()} for record in records]
    return {"steps": [record["step"] for record in records], "kappas": kappas}


def _value(metrics: dict, name: str) -> float:
    for key in name.split("."):
        metrics = metrics[key]
    return metrics


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("*.pt"))


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(run.rglob("*.pt"))}


@pytest.mark.parametrize("name", EXPECTED["evaluate"])
def test_old_runs_are_evaluated_as_before(name, copy):
    case = EXPECTED["evaluate"][name]
    before = contents(copy / case["run"])
    for path in case["remove"]:
        (copy / path).unlink()
    call(*case["command"])
    found = evaluate_results(case, copy)
    assert found["metrics"] == pytest.approx(case["metrics"], rel=1e-4, abs=1e-3)
    np.testing.assert_allclose(found.get("colors", 0), case.get("colors", 0), atol=1)
    assert contents(copy / case["run"]) == before, "a finished run was trained again"


def test_a_video_of_an_old_run_is_rendered(copy):
    call("render_video.py", "runs/hash", "--frames", "3", "--factor", "2", "--out", "out.mp4", "--device", "cpu")
    assert cv2.VideoCapture(str(copy / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize("name", EXPECTED["extract"])
def test_the_mesh_of_an_old_run_is_extracted_as_before(name, copy):
    case = EXPECTED["extract"][name]
    call(*case["command"])
    found = extract_results(case, copy)
    assert found["vertices"] == pytest.approx(case["vertices"], rel=1e-2)
    for figure in ("area", "volume"):
        assert found[figure] == pytest.approx(case[figure], rel=1e-2)
    size = np.ptp(case["bounds"], axis=0).max()
    np.testing.assert_allclose(found["bounds"], case["bounds"], atol=1e-3 * size)
    assert found["colored"] == case["colored"]


@pytest.mark.parametrize("name", EXPECTED["resume"])
def test_old_runs_go_on_where_they_stopped(name, copy):
    case = EXPECTED["resume"][name]
    run = copy / case["run"]
    before, last = contents(run), int(checkpoints(run)[-1].stem)
    journal = (run / "train.jsonl").read_text()
    words = case["command"]
    if name == "shape":  # its learning rate depends on its length
        with pytest.raises(AssertionError):
            call(*words)
        assert before == contents(run)
        words = [*words, "--resume_with_changes"]
    call(*words)
    added = (run / "train.jsonl").read_text().removeprefix(journal).splitlines()
    assert sorted({json.loads(line)["step"] for line in added}) == list(range(last + 1, case["step"] + 1))
    assert before.items() <= contents(run).items(), "an earlier checkpoint was changed"
    found = resume_results(case, copy)
    assert found["step"] == case["step"]
    assert found["weights"].keys() == case["weights"].keys()
    assert not differing(found["weights"], case["weights"], torch.load(checkpoints(run)[-1], weights_only=True))


def differing(found: dict, expected: dict, content: dict, tolerance: float = 1e-4) -> dict[str, float]:
    """Tensors whose sum or norm differs by more than this, relative to the norm; a sum of n has √n times the room."""
    errors = {}
    for name, (total, norm) in expected.items():
        size = max(norm, 1e-3)
        room = size * content["model"][name].numel() ** 0.5
        errors[name] = max(abs(found[name][0] - total) / room, abs(found[name][1] - norm) / size)
    return {name: error for name, error in errors.items() if not error <= tolerance}


def test_an_old_comparison_is_finished(copy):
    folder = copy / "runs" / "comparison"
    before, table = contents(folder), json.loads((folder / "comparison.json").read_text())
    journals = {path: path.read_text() for path in folder.rglob("train.jsonl")}
    words = ["--config", "runs/comparison/plain_seed0/config.txt", "--expname", "comparison", "--seeds", "0"]
    call("compare_nerf.py", *words, "--methods", "plain,equilibrate")
    assert json.loads((folder / "comparison.json").read_text()) == table
    assert {path: path.read_text() for path in folder.rglob("train.jsonl")} == journals
    assert contents(folder) == before


@pytest.mark.parametrize("name", EXPECTED["analyze"])
def test_old_checkpoints_are_analyzed_as_before(name, copy):
    case = EXPECTED["analyze"][name]
    call(*case["command"])
    found = analyze_results(case, copy)
    assert found["steps"] == case["steps"]
    for kappas, expected in zip(found["kappas"], case["kappas"], strict=True):
        assert kappas == pytest.approx(expected, rel=1e-3)


def test_the_fixture_names_no_machine(copy):
    places = [os.sep + name + os.sep for name in ("work", "tmp", "home", "root")]
    texts = {path: path.read_text() for path in [*copy.rglob("*.json*"), *copy.rglob("*.txt")]}
    texts |= {path: str(torch.load(path, weights_only=True)["config"]) for path in copy.rglob("*.pt")}
    assert len(texts) > 20
    assert not [path for path, text in texts.items() if any(place in text for place in places)]
