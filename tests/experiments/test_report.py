"""Reports of runs: what they say, what they say is missing, what they survive, and how they look in a browser."""

import base64
import json
import shlex
import shutil
from pathlib import Path

import pytest

from enerf.cli import report as command
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.datasets.labelled import synthetic as figures
from enerf.datasets.scenes import synthetic
from enerf.experiments import compare, report, reported_runs, reproduction
from enerf.experiments.options import CompareOptions, ReportOptions
from enerf.geometry import synthetic as shapes
from enerf.tasks import registry
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
    again = compare.variant_config(config, "equilibrate", 0.005, 0)
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
        (["{logs}/half", "--page", "{tmp}/none.html"], "--page"),
        (["{logs}/half", "--page", "{logs}/half/train.jsonl"], "no HTML page"),
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
    look(page)
    printed = base64.b64decode(page.call("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF")
    names = "[...document.querySelectorAll('img:not(.stage img), input, select, video, svg[role], iframe')]"
    labels = "(each) => each.alt || each.ariaLabel || each.title || each.labels?.length"
    assert page.evaluate(f"{names}.filter((each) => !({labels})(each)).length") == 0
