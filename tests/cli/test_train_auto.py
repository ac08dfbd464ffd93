"""``enerf train PHOTOS --auto``: the arguments of the training that it stands for."""

import json
from pathlib import Path

import numpy as np
import pytest

from enerf.cli import main, train_auto
from enerf.config import parser
from enerf.core import images
from enerf.datasets.scenes import poses, synthetic, transforms_writer
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.preprocessing import process, scene_report
from enerf.tasks.nerf.config import NerfConfig
from tests.contents import refusal


def forward(folder: Path) -> Path:
    return synthetic.write_scene(folder, views=4, width=16, height=12, supersample=1, progress=False)


def around(folder: Path, channels: int) -> Path:
    """Cameras around the origin."""
    c2w, names = poses.blender_circle(4), tuple(f"images/{i}.png" for i in range(4))
    for name in names:
        images.write_png(folder / name, np.full((12, 16, channels), 100, np.uint8))
    files = tuple(folder / name for name in names)
    posed = PosedImages(folder / "transforms.json", names, files, (synthetic.camera(16, 12),) * 4, c2w)
    transforms_writer.write(folder / "transforms.json", posed)
    return folder


def config_of(*words: str) -> NerfConfig:
    config, _ = parser.parse(NerfConfig, train_auto.arguments([*map(str, words), "--auto"]))
    return config


def same_preset(config: NerfConfig, name: str) -> bool:
    preset, _ = parser.parse(NerfConfig, ["--config", name])
    return (config.model, config.render, config.train) == (preset.model, preset.render, preset.train)


def test_options_are_chosen_by_how_the_cameras_stand(tmp_path):
    scene = forward(tmp_path / "front")
    config = config_of(scene)
    assert same_preset(config, "fast/forward.txt")
    assert (config.data.datadir, config.data.dataset_type, config.data.factor) == (str(scene), "auto", -1)
    assert config.run.expname == "front"
    assert same_preset(config_of(around(tmp_path / "ring", 3)), "fast/unbounded.txt")
    assert same_preset(config_of(around(tmp_path / "object", 4)), "fast/object.txt")


def test_what_the_user_says_takes_precedence(tmp_path):
    scene = forward(tmp_path / "front")
    config = config_of(scene, "--max_seconds", "60", "--expname", "mine", "--equilibrate")
    assert (config.train.max_seconds, config.run.expname) == (60, "mine")
    assert same_preset(config_of(scene, "--config", "fast/object.txt"), "fast/object.txt")


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_what_a_file_of_the_user_says_takes_precedence_over_what_is_chosen(tmp_path, form):
    scene = forward(tmp_path / "front")
    (tmp_path / "mine.txt").write_text("expname = named\nfactor = 4\ndataset_type = llff\ndatadir = elsewhere\n")
    config = config_of(scene, *form.format(tmp_path / "mine.txt").split())
    assert (config.run.expname, config.data.factor, config.data.dataset_type) == ("named", 4, "llff")
    assert config.data.datadir == str(scene)
    assert config.model.encoding == "positional"  # no preset beside the file


def test_mistakes_are_told_and_help_is_printed_before_cameras_are_computed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(process, "process", None)
    photos = tmp_path / "photos"
    photos.mkdir()
    words = [str(photos), "--auto"]
    assert "unknown option" in refusal(train_auto.arguments, [*words, "--max_secnods", "60"])
    assert "option --max_seconds" in refusal(train_auto.arguments, [*words, "--max_seconds", "soon"])
    assert "option --config: no file" in refusal(train_auto.arguments, [*words, "--config", "nowhere"])
    assert "option --datadir: found it with --auto" in refusal(train_auto.arguments, [*words, "--datadir", "other"])
    with pytest.raises(SystemExit):
        train_auto.arguments([*words, "--help"])
    assert "--max_seconds" in capsys.readouterr().out


def test_a_scene_or_photographs_without_an_option_are_pointed_to_the_right_one(tmp_path):
    told = refusal(main.main, ["train", str(tmp_path), "--atuo"])
    assert f"give a scene by --datadir {tmp_path}, photographs, a video or a scene by enerf train PHOTOS --auto" in told
    assert train_auto.is_wanted(["photos", "--auto=True"])
    scene = forward(tmp_path / "front")
    assert "which is a scene, expected photographs" in refusal(
        train_auto.arguments, [str(scene), "--auto", "--scene", "foo"]
    )


def test_photographs_are_processed_into_a_folder_beside_them(tmp_path, monkeypatch):
    made = []

    def process_photos(source, options):
        made.append((source, Path(options.out)))
        forward(Path(options.out))
        return {}

    monkeypatch.setattr(process, "process", process_photos)
    monkeypatch.setattr(scene_report, "summary", lambda report, folder: "made")
    photos = tmp_path / "photos"
    photos.mkdir()
    assert config_of(photos).data.datadir == str(tmp_path / "photos_scene")
    assert config_of(photos, "--scene", tmp_path / "other").data.datadir == str(tmp_path / "other")
    assert made == [(photos, tmp_path / "photos_scene"), (photos, tmp_path / "other")]


@pytest.mark.parametrize(("gain", "chosen"), [(0.1, "gain"), (0.01, "off")])
def test_photographs_that_differ_in_brightness_have_color_maps(tmp_path, caplog, gain, chosen):
    scene = forward(tmp_path / "front")
    report = {"made_by": "enerf process", "log_gains": {"a": [gain, 0.0, 0.0], "b": [-gain, 0.0, 0.0]}}
    (scene / "report.json").write_text(json.dumps(report))
    with caplog.at_level("INFO"):
        assert config_of(scene).capture.exposure == chosen
    said = "the photographs differ in brightness, by 10 % at the same points: --exposure gain"
    assert (said in caplog.text) == (chosen == "gain")
    assert config_of(scene, "--exposure", "affine").capture.exposure == "affine"
    assert config_of(scene, "--exposure=off").capture.exposure == "off"
    (scene / "report.json").write_text(json.dumps(report | {"made_by": "another program"}))
    assert config_of(scene).capture.exposure == "off"


@pytest.mark.parametrize("words", [["--equilibrate", "photos", "--auto"], ["--auto", "photos"]])
def test_the_photographs_come_first(words):
    told = refusal(main.main, ["train", *words])
    assert told.startswith(
        f"option --auto: found '{words[0]}' as the first argument, expected the folder of photographs"
    )


def test_a_scene_without_a_folder_is_one_sentence(tmp_path):
    assert "option --scene: found no value" in refusal(train_auto.arguments, [str(tmp_path), "--auto", "--scene"])
    assert "does not exist, expected a folder of photographs" in refusal(train_auto.arguments, ["nowhere", "--auto"])


def test_the_two_options_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main.main(["train", "--help"])
    shown = capsys.readouterr().out
    assert "--auto" in shown
    assert "--scene STR" in shown


def test_the_two_options_are_refused_where_they_would_be_ignored(tmp_path):
    assert "option --scene: found 'out' without --auto" in refusal(main.main, ["train", "--scene", "out"])
    (tmp_path / "a.txt").write_text("auto = True\n")
    message = refusal(main.main, ["train", "--config", str(tmp_path / "a.txt")])
    assert message.startswith("option --auto: found it in a configuration file, expected it on the command line")
