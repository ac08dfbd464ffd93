"""``enerf generate``: what it writes, how mistakes are reported, and the deprecated modules it replaces."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from enerf.cli import generate
from enerf.core.errors import InputError
from enerf.datasets.labelled import load
from enerf.datasets.labelled import synthetic as labelled
from enerf.datasets.scenes import synthetic as scenes
from enerf.geometry import synthetic as shapes

ROOT = Path(__file__).resolve().parents[2]
SMALL_SCENE = ["--views", "2", "--width", "8", "--height", "6", "--supersample", "1"]


def test_a_scene_is_written_where_the_output_says(tmp_path, capsys):
    generate.main(["scene", "--out", str(tmp_path / "demo"), *SMALL_SCENE])
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "demo")
    assert "rendering" in printed.err
    assert len(list((tmp_path / "demo/images").iterdir())) == 2


def test_shapes_are_written_where_the_output_says(tmp_path, capsys):
    generate.main(["shape", "--out", str(tmp_path)])
    assert capsys.readouterr().out.split() == [str(tmp_path / f"{name}.ply") for name in shapes.SHAPES]


@pytest.mark.parametrize("kind", ["cifar", "idx", "folder"])
def test_labelled_images_can_be_read_again(tmp_path, kind, capsys):
    generate.main(["labelled", "--out", str(tmp_path / "it"), "--kind", kind, "--n_train", "20", "--n_test", "10"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "it")
    assert len(load.load(tmp_path / "it").test) == 10


def test_labelled_images_take_their_folder_without_an_option_too(tmp_path, capsys):
    generate.main(["labelled", str(tmp_path / "it"), "--n_train", "20", "--n_test", "10"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "it")
    with pytest.raises(InputError, match=r"found two folders, .*it and --out .*other, expected one"):
        generate.main(["labelled", str(tmp_path / "it"), "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_defaults_are_those_of_the_functions():
    options = vars(generate._parser("enerf generate").parse_args(["scene"]))
    assert options["what"] == "scene"
    chosen = {name: options[name] for name in ("views", "width", "height", "supersample", "seed")}
    assert chosen == {"views": 20, "width": 160, "height": 120, "supersample": 3, "seed": 0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: scene|photographs|shape|labelled"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["scene", "--heigth", "3"], "unknown option 'heigth'"),
        (["labelled", "x", "--kind", "tar"], "invalid choice: 'tar'"),
        (["labelled", "--out="], "found an empty path, expected a file or a folder"),
        (["photographs", "--frames", "3"], "option --frames: found 3 without --video, expected --views, or --video"),
        (["photographs", "--video", "--views", "3"], "option --views: found 3 with --video, expected --frames"),
    ],
)
def test_a_mistyped_command_is_one_sentence_and_imports_nothing_heavy(words, sentence):
    code = (
        "import sys\nfrom enerf.cli import generate\n"
        "from enerf.core.errors import InputError\n"
        f"try:\n    generate.main({words!r})\n"
        f"except InputError as error:\n    assert {sentence!r} in str(error), error\n"
        "else:\n    raise AssertionError('accepted')\n"
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_a_mistake_is_one_sentence():
    command = [sys.executable, "-m", "enerf.cli.generate", "scene", "--out", "nowhere", "--views", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: views is 0, expected 1 or more")


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [("scenes", scenes, "write_scene"), ("shapes", shapes, "write_shapes"), ("labelled", labelled, "write_cifar")],
)
def test_the_deprecated_modules_warn_and_have_the_same_functions(old, new, name):
    sys.modules.pop(f"enerf.{old}.synthetic", None)
    with pytest.warns(DeprecationWarning, match=rf"enerf\.{old}\.synthetic has moved: import {new.__name__}"):
        module = importlib.import_module(f"enerf.{old}.synthetic")
    assert getattr(module, name) is getattr(new, name)
    assert set(module.__all__) <= set(vars(module))


def test_the_deprecated_modules_still_run_as_commands(tmp_path):
    command = [sys.executable, "-m", "enerf.scenes.synthetic", "--out", str(tmp_path / "demo"), *SMALL_SCENE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == str(tmp_path / "demo")
    assert "run `enerf generate scene`" in done.stderr
