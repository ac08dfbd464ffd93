"""Reports of runs: what they say, what they say is missing, what they survive, and how they look in a browser."""

import base64
import json
import os
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from enerf.cli import report as command
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.datasets.labelled import synthetic as figures
from enerf.datasets.scenes import synthetic
from enerf.experiments import compare, report, report_charts, report_pictures, reported_runs, reproduction, variants
from enerf.experiments.options import CompareOptions, ReportOptions
from enerf.export.page import Page
from enerf.export.page import write as write_page
from enerf.geometry import synthetic as shapes
from enerf.reporting.presentation import PictureOf, Presentation
from enerf.tasks import registry
from enerf.tasks.nerf import planes, presentation
from tests import browser

NERF = (
    "--factor 1 --llffhold 3 --netwidth 8 --netwidth_fine 8 --netdepth 2 --netdepth_fine 2 --use_viewdirs --N_rand 16 "
    "--N_samples 4 --N_importance 4 --N_iters 6 --i_eval 2 --i_print 1 --i_spectrum 2 --eval_rays 16 --device cpu"
)
SHAPE = (
    "--netwidth 16 --hash_levels 3 --hash_log2_entries 12 --hash_finest 24 --lrate 2e-2 --N_points 512 --pool 2048 "
    "--background none --N_iters 60 --i_eval 20 --resolution 24 --device cpu"
)
CLASSIFIER = "--model densenet --depth 10 --width 0.5 --N_batch 10 --epochs 1 --eval_images 10 --device cpu"
HOSTILE = "<script>window.hacked=1<!--"


def configured(kind: str, words: str, *more: object):
    task = registry.task(kind)
    return parser.parse(task.load("config"), [*words.split(), *map(str, more)])[0], task


def trained(kind: str, words: str, *more: object) -> Path:
    config, task = configured(kind, words, *more)
    task.load("train")(config)
    return config.folder


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    """A sweep of two methods and rates, a run named like a script, an unfinished run, a shape, a classifier."""
    folder = tmp_path_factory.mktemp("report")
    synthetic.write_scene(folder / "fern", views=7, width=24, height=18, supersample=1, progress=False)
    scene = ("--datadir", folder / "fern", "--basedir", folder)
    base, _ = configured("nerf", NERF, *scene, "--expname", "sweep")
    compare.compare(base, CompareOptions(methods="plain,equilibrate", lrates="1e-3,5e-3"))
    trained("nerf", NERF, *scene, "--expname", HOSTILE)
    trained("nerf", NERF, *scene, "--expname", "half", "--no_final_eval")
    shapes.write_shapes(folder / "shapes")
    trained("shape", SHAPE, "--mesh", folder / "shapes" / "torus.ply", "--basedir", folder, "--expname", "torus")
    figures.write_cifar(folder / "figures", 40, 20)
    trained("classifier", CLASSIFIER, "--images", folder / "figures", "--basedir", folder, "--expname", "figures_run")
    write_page(Page("mesh", "a page of several files", (), {}), folder / "web", one_file=False)
    (folder / "mine.html").write_text("<html>mine</html>")
    return folder


def page_of(tmp_path: Path, *folders: Path, **chosen) -> tuple[str, list[str]]:
    """Text of the report of some runs, and what it says is missing."""
    out = tmp_path / "report.html"
    written = report.write(folders, ReportOptions(out=str(out), **chosen), "0")
    return out.read_text(encoding="utf-8"), written.notes


def test_a_report_has_table_curves_pictures_options_and_commands(logs, tmp_path):
    text, _ = page_of(tmp_path, logs / "sweep")
    metrics = json.loads((logs / "sweep" / "plain@0.001_seed0" / "metrics.json").read_text())
    assert f"{metrics['mean']['psnr']:.2f}" in text
    assert "published: NeRF paper (TensorFlow)" in text
    assert "images of 24×18 (factor 1) instead of 1008×756 (factor 4)" in text
    assert "the scene is recognized by the name of its folder only" in text
    for heading in ("test PSNR of fixed pixels", "seconds of training", "median stable rank", "Sweep of lrate"):
        assert heading in text
    assert text.count('alt="image') == 3 * (1 + 4 + 4)  # a photograph, four renderings and four error maps a view
    assert "Options that differ between the 4 runs" in text
    assert "enerf compare nerf" in text
    assert "Python 3" in text


def test_shapes_and_classifiers_have_sections_of_their_own(logs, tmp_path):
    text, _ = page_of(tmp_path, logs / "torus", logs / "figures_run")
    for expected in ("No published results of shapes are stored", "mesh, front", "IoU near", "test accuracy [%]"):
        assert expected in text
    assert "its own split" not in text


def test_what_is_missing_is_said(logs, tmp_path):
    (tmp_path / "logs").mkdir()
    for name in ("half", "sweep/plain@0.001_seed0", "sweep/equilibrate@0.001_seed0"):
        shutil.copytree(logs / name, tmp_path / "logs" / Path(name).name)
    one, other = tmp_path / "logs" / "plain@0.001_seed0", tmp_path / "logs" / "equilibrate@0.001_seed0"
    (one / "metrics.json").write_text('{"steps": 6, "scene": "fern"}')
    shutil.rmtree(other / "test")
    (other / "train.jsonl").write_text('{"step": 1, "loss": 0.1}\nnot json\n{"step": "x"}\n[]\n')
    (tmp_path / "logs" / "begun").mkdir()
    (tmp_path / "logs" / "begun" / "config.txt").write_text("")
    text, notes = page_of(tmp_path, tmp_path / "logs", page="")
    said = "\n".join(notes)
    for sentence in (
        "half: it has not been evaluated",
        "plain@0.001_seed0: its metrics.json is incomplete",
        "equilibrate@0.001_seed0: 3 lines of its train.jsonl cannot be read",
        "equilibrate@0.001_seed0 has no rendered test views",
        "begun is left out: it has no checkpoint yet",
        "no condition numbers were recorded",
    ):
        assert sentence in said
    assert "half: it has not been evaluated" in text


@pytest.mark.parametrize("name", ["torus", "figures_run", "sweep/plain@0.001_seed0"])
def test_metrics_of_wrong_types_are_said_or_left_out(logs, tmp_path, name):
    run = tmp_path / "logs" / "run"
    shutil.copytree(logs / name, run)
    shutil.copytree(logs / name, tmp_path / "logs" / "whole")
    metrics = json.loads((run / "metrics.json").read_text())
    for key in ("history", "inputs", "method", "protocol", "steps", "scene", "shape", "dataset"):
        for wrong in (5, None, [5]):
            (run / "metrics.json").write_text(json.dumps(metrics | {key: wrong}))
            assert "whole" in page_of(tmp_path, tmp_path / "logs", views=0)[0]


def test_missing_photographs_and_unfinished_runs_are_said(logs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(logs / "half", run)
    shutil.copytree(logs / "sweep" / "plain@0.001_seed0" / "test" / "final", run / "test" / "000004")
    text, notes = page_of(tmp_path, run, datadir=str(tmp_path / "nowhere"))
    assert any("shows test views of step 4" in note for note in notes)
    assert any("has no photographs in this report" in note for note in notes)
    assert text.count('<img src="data:image/webp') == 3


def test_a_run_that_is_not_at_its_end_is_unfinished(logs):
    run = reported_runs.read(logs / "half", "half")
    assert run.state == "finished at step 6"
    run.options["N_iters"] = 10
    assert run.state == "unfinished: step 6 of 10"
    run.options["max_seconds"] = run.seconds / 2
    assert run.state.startswith("finished after")


def test_every_run_is_reproduced_by_its_command(logs):
    runs, _ = reported_runs.read_all([logs / "sweep", logs / HOSTILE, logs / "torus", logs / "figures_run"])
    for run in runs:
        words = shlex.split(reproduction.command(run))
        assert words[:2] == ["enerf", run.task.command]
        config, _ = parser.parse(run.task.load("config"), words[2:])
        assert parser.to_dict(config) == {name: run.options[name] for name in parser.to_dict(config)}


def test_a_comparison_is_reproduced_by_its_command(logs):
    runs, _ = reported_runs.read_all([logs / "sweep"])
    words = shlex.split(reproduction.comparison_command(runs))
    assert words[:3] == ["enerf", "compare", "nerf"]
    config, (chosen,) = parser.parse(runs[0].task.load("config"), words[3:], extra=[CompareOptions])
    assert (chosen.methods, chosen.seeds, chosen.lrates) == ("plain,equilibrate", "0", "0.001,0.005")
    again = variants.variant_config(config, "equilibrate", 0.005, 0)
    run = next(run for run in runs if run.name == "equilibrate@0.005_seed0")
    assert parser.to_dict(again) == {name: run.options[name] for name in parser.to_dict(again)}
    runs[0].options["N_rand"] = 17  # was changed by hand
    assert reproduction.comparison_command(runs) is None


def test_the_command_prints_its_file_and_logs_what_is_missing(logs, tmp_path, capsys, caplog):
    command.main([str(logs / "half"), "--out", str(tmp_path / "r.html"), "--views", "0"])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'r.html'} (")
    assert "it has not been evaluated" in caplog.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere"),
        (["{logs}/half", "--out", "{tmp}"], "found a folder"),
        (["{logs}/half", "--page", "{tmp}/none.html"], "none.html does not exist, expected a self-contained HTML page"),
        (["{logs}/half", "--page", "{logs}/half/train.jsonl"], "no HTML page"),
        (["{logs}/half", "--page", "{logs}/web/index.html"], "loads page.js"),
        (["{logs}/half", "--out", "{logs}/half/metrics.json"], "--out"),
        (["{logs}/half", "--out", "{logs}/mine.html"], "has not written"),
        (["{logs}/half", "--views", "-1"], "--views"),
        ([], "RUN"),
    ],
)
def test_a_mistake_is_one_sentence(logs, tmp_path, words, told):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=told):
        command.main([word.format(logs=logs, tmp=tmp_path) for word in words])
    assert sorted(tmp_path.iterdir()) == before


def test_videos_are_embedded_within_their_limit(logs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(logs / "half", run)
    (run / "video_spiral.mp4").write_bytes(b"v" * 900_000)
    (run / "video_spiral_depth.mp4").write_bytes(b"d" * 900_000)
    text, _ = page_of(tmp_path, run, video_mb=1.0)
    assert text.count("data:video/mp4") == 1
    assert "video_spiral_depth.mp4: not embedded: 0.9 MB" in text
    assert "data:video/mp4" not in page_of(tmp_path, run, video_mb=0.0)[0]


def test_videos_of_color_come_before_those_of_depth_and_share_their_limit_between_tasks(logs, tmp_path):
    for name in ("half", "torus"):
        shutil.copytree(logs / name, tmp_path / name)
        for kind in ("a_depth", "b"):
            (tmp_path / name / f"{kind}.mp4").write_bytes(b"v" * 900_000)
    runs, _ = reported_runs.read_all([tmp_path / "half", tmp_path / "torus"])
    found = report_pictures.videos(runs, 2.0)
    shown = [each.name for some in found.values() for each in some if each.uri]
    assert shown == ["half: b.mp4", "torus: b.mp4"]
    os.utime(tmp_path / "half" / "b.mp4", (0, 0))
    notes = [each.note for each in report_pictures.videos(runs, 2.0)["nerf"]]
    assert [note for note in notes if "older than the newest checkpoint" in note] == [notes[0]]


def test_test_views_of_an_earlier_step_are_not_shown_beside_newer_figures(logs, tmp_path):
    source = logs / "sweep" / "plain@0.001_seed0"
    make, saved = presentation.PRESENTATION.pictures, reported_runs.read(source, "a").options
    metrics = json.loads((source / "metrics.json").read_text())
    shutil.copytree(source, tmp_path / "run")
    run = tmp_path / "run"
    assert make(run, saved, metrics, "", 1)[1] == []
    pictures, notes = make(run, saved, metrics | {"views": []}, "", 1)  # measured again, on fixed pixels
    assert pictures[0].caption == "PSNR not measured"
    assert "not recorded" in notes[0]
    shutil.copytree(run / "test" / "final", run / "test" / "000008")
    assert make(run, saved, metrics, "", 1)[1] == ["shows test views of step 8"]


def test_a_mesh_of_an_earlier_evaluation_is_named_as_such(logs):
    run = reported_runs.read(logs / "torus", "torus")
    make = run.presentation.pictures
    assert make(run.folder, run.options, run.metrics, "", 1)[1] == []
    without = {key: each for key, each in run.metrics.items() if key != "mesh"}
    assert "earlier evaluation" in make(run.folder, run.options, without, "", 1)[1][0]


def test_one_new_path_is_not_taken_for_the_data_of_several_scenes(logs, tmp_path):
    with pytest.raises(InputError, match=r"--datadir: .* fern, torus\.ply"):
        page_of(tmp_path, logs / "half", logs / "torus", datadir=str(logs / "fern"))
    assert not any(tmp_path.iterdir())


def test_runs_that_differ_in_more_than_one_option_are_no_sweep(logs):
    runs, _ = reported_runs.read_all([logs / "sweep"])
    assert [each.heading for each in report_charts.sweeps(runs)] == ["Sweep of lrate"]
    for run in runs:
        run.group = run.name  # not of a comparison
    runs[0].options["N_rand"] = 17
    runs[1].options["N_rand"] = 17
    assert list(report_charts._by_method(runs, "N_rand")) == []
    runs[1].options["lrate"] = runs[0].options["lrate"]
    runs[1].metrics["method"] = runs[0].metrics["method"]
    runs[1].metrics["inputs"] = {"digest": "of other data"}
    assert report_charts.sweeps(runs[:2]) == []


def test_errors_beside_maps_are_those_of_pixels_that_count():
    picture, reference = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    picture[0] = 1.0
    mask = np.array([[False, False], [True, True]])
    one = PictureOf("a", picture, reference, "photograph", "", mask)
    run = reported_runs.ReportedRun(Path("a"), "a", "a", registry.task("nerf"), {}, 0, 0.0, [])
    shown = report_pictures._view("a", [(run, one)], 100).pictures
    assert shown[-1].caption == "mean 0.0000"


def test_views_of_two_scenes_with_one_name_are_not_compared(logs, tmp_path, monkeypatch):
    runs, _ = reported_runs.read_all([logs / "half", logs / HOSTILE])
    runs[1].options["datadir"] = "data/flower"
    references = {runs[0].folder: np.zeros((2, 2, 3)), runs[1].folder: np.ones((2, 2, 3))}

    def pictures(folder, *more):
        return [PictureOf("image000.png", np.full((2, 2, 3), 0.5), references[folder], "photograph", "")], []

    monkeypatch.setattr(reported_runs.ReportedRun, "presentation", Presentation((), (), pictures=pictures))
    for reference, names in ((1.0, ["fern: image000.png, 2×2", "flower: image000.png, 2×2"]), (0.0, ["image000.png"])):
        references[runs[1].folder] = np.full((2, 2, 3), reference)
        found, _ = report_pictures.views(runs, ReportOptions())
        assert [view.name for view in found] == names


def test_numbers_of_hundreds_of_digits_are_left_out(logs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(logs / "half", run)
    huge = "1" + "0" * 400
    (run / "train.jsonl").write_text(f'{{"step": 1, "loss": {huge}}}\n{{"step": {huge}, "loss": 1}}\n')
    (run / "metrics.json").write_text(f'{{"steps": 6, "fit_psnr": {huge}}}')
    _, notes = page_of(tmp_path, run)
    assert any("1 lines of its train.jsonl" in note for note in notes)


@pytest.fixture(scope="module")
def chrome():
    with browser.launched() as chrome:
        yield chrome


def opened(chrome, path: Path, width: int = 1200, *, dark: bool = False, media: str = "") -> browser.Page:
    page = chrome.open("about:blank", width=width, height=900)
    look(page, dark=dark, media=media)
    page.go(path.as_uri())
    return page


def look(page: browser.Page, *, dark: bool = False, media: str = "") -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.call("Emulation.setEmulatedMedia", media=media, features=[scheme])


@pytest.mark.timeout(240)
def test_the_page_works_in_a_browser_and_a_run_named_like_a_script_does_nothing(logs, tmp_path, chrome):
    evil = logs / HOSTILE
    metrics = json.loads((evil / "metrics.json").read_text())
    metrics |= {"method": HOSTILE, "scene": "<img src=x onerror=window.hacked=1>"}
    (evil / "metrics.json").write_text(json.dumps(metrics))
    with (evil / "train.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, "spectrum": {HOSTILE: {"kappa": 2.0, "stable_rank": 1.5}}}) + "\n")
    (tmp_path / "scene.html").write_text(
        "<!doctype html><html><body><script>try { parent.hacked = 1; parent.document.title = 'x' } catch (e) {}"
        "</script></body></html>"
    )
    for embedded in ("", str(tmp_path / "scene.html")):
        page_of(tmp_path, evil, logs / "sweep", logs / "torus", title=HOSTILE, page=embedded)
        page = opened(chrome, tmp_path / "report.html")
        assert page.evaluate("window.hacked === undefined && document.title") == HOSTILE
        assert [*page.messages, *page.logged] == []
        local = ("data:", "about:", (tmp_path / "report.html").as_uri())
        assert [address for address in page.requests if not address.startswith(local)] == []
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


@pytest.mark.timeout(240)
def test_the_divider_is_moved_by_keys_and_by_dragging(logs, tmp_path, chrome):
    page_of(tmp_path, logs / "sweep", logs / "torus")
    page = opened(chrome, tmp_path / "report.html")
    at = "document.querySelector('.stage').style.getPropertyValue('--at')"
    assert page.evaluate(at) == "50%"
    page.evaluate("document.querySelector('.compare input').focus()")
    page.key("ArrowRight")
    assert page.evaluate(at) == "50.5%"
    page.evaluate("document.querySelector('.stage').scrollIntoView({block: 'center', behavior: 'instant'})")
    x, y, width = page.evaluate(
        "(() => { const box = document.querySelector('.stage').getBoundingClientRect();"
        " return [box.x, box.y + box.height / 2, box.width] })()"
    )
    page.drag((x + width / 2, y), (x + width / 4, y))
    assert abs(float(page.evaluate(at).rstrip("%")) - 25) < 1
    shown = "document.querySelector('.stage .below').alt"
    before = page.evaluate(shown)
    page.evaluate(
        "(() => { const right = document.querySelectorAll('.compare select')[1];"
        " right.value = '3'; right.dispatchEvent(new Event('change')) })()"
    )
    assert page.evaluate(shown) != before


@pytest.mark.timeout(240)
def test_the_page_fits_narrow_windows_dark_ones_and_paper(logs, tmp_path, chrome):
    page_of(tmp_path, logs / "sweep", logs / "torus", logs / "figures_run")
    for width, dark, media in ((360, False, ""), (1400, True, ""), (720, True, "print")):
        page = opened(chrome, tmp_path / "report.html", width, dark=dark, media=media)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (media == "print" or not dark)
    assert page.evaluate("getComputedStyle(document.querySelector('.compare')).display") == "none"
    lines = "(cell) => { const range = document.createRange(); range.selectNodeContents(cell); "
    lines += "return range.getClientRects().length > 1 && !cell.textContent.trim().includes(' ') }"
    broken = f"[...document.querySelectorAll('td.n')].filter({lines})"
    assert page.evaluate(f"{broken}.map((cell) => cell.textContent)") == []
    look(page)
    printed = base64.b64decode(page.call("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF")
    names = "[...document.querySelectorAll('img:not(.stage img), input, select, video, svg[role], iframe')]"
    labels = "(each) => each.alt || each.ariaLabel || each.title || each.labels?.length"
    assert page.evaluate(f"{names}.filter((each) => !({labels})(each)).length") == 0


@pytest.mark.timeout(240)
def test_planes_are_embedded_and_drawn(logs, tmp_path, chrome, capsys, caplog):
    shutil.copytree(logs / "half", tmp_path / "half")
    planes.bake_folder(tmp_path / "half", 6, 0.1, device="cpu")
    words = [str(tmp_path / "half"), str(logs / "torus"), "--out", str(tmp_path / "r.html"), "--views", "0", "--planes"]
    command.main(words)
    assert "no planes" not in caplog.text
    page = opened(chrome, tmp_path / "r.html", 800)
    assert page.evaluate("document.querySelectorAll('iframe').length") == 1
    page.evaluate("document.querySelector('iframe').scrollIntoView({block: 'center', behavior: 'instant'})")
    x, y, width, height = page.evaluate(
        "(box => [box.x, box.y, box.width, box.height])(document.querySelector('iframe').getBoundingClientRect())"
    )
    ends, picture = time.monotonic() + browser.SECONDS, np.zeros((1, 1, 3))
    while picture.std() < 8 and time.monotonic() < ends:  # of the sandboxed page's canvas, below its caption
        shown = page.screenshot()
        picture = shown[int(y + 0.3 * height) : int(y + 0.7 * height), int(x + 0.3 * width) : int(x + 0.7 * width)]
        time.sleep(0.3)
    assert picture.std() >= 8
    assert page.messages == []


def test_runs_without_planes_are_named(logs, tmp_path):
    def refuses(folder, source):
        raise InputError(f"{folder}: found a scene that is not forward-facing")

    for run, told in (("half", "half has no planes: "), ("torus", "no run has planes")):
        chosen = ReportOptions(out=str(tmp_path / "r.html"), planes=True, views=0)
        assert any(note.startswith(told) for note in report.write([logs / run], chosen, "0", refuses).notes)
