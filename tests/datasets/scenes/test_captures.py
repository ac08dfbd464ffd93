"""Raw data of Polycam, recordings of Record3D, and what is said of files of other programs that are no scene."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest

from enerf.datasets.scenes import formats, polycam, record3d
from enerf.datasets.scenes.settings import SceneSettings
from tests.contents import refusal
from tests.datasets.scenes import exports

SETTINGS = SceneSettings(factor=1, llffhold=2, pose_check=False)


@pytest.fixture
def scene(tmp_path):
    """A scene that a test may write in a program's form."""
    return exports.posed(tmp_path / "scene")


@pytest.mark.parametrize("corrected", [True, False])
def test_raw_data_of_polycam_is_read(corrected, scene, caplog):
    folder = exports.write_polycam(scene, corrected=corrected)
    posed = polycam.read(folder)
    exports.require_same(posed, scene)
    assert posed.bounds is not None
    np.testing.assert_allclose(posed.bounds, np.tile(exports.DEPTH, (4, 1)), rtol=0.05)
    assert posed.depth_unit == 0.001
    assert ("poses are not optimized" in caplog.text) is not corrected
    loaded = formats.load("polycam", folder, replace(SETTINGS, depths=True))
    assert loaded.depths is not None
    assert len(loaded.depths) == 4 * 108


def test_keyframes_without_image_or_depth_map_are_said(scene, caplog):
    folder = exports.write_polycam(scene)
    keyframes = folder / "keyframes"
    next((keyframes / "corrected_images").iterdir()).unlink()
    for path in (keyframes / "depth").iterdir():
        path.unlink()
    posed = polycam.read(folder)
    assert len(posed.names) == 3
    assert posed.bounds is None
    assert posed.depths == ()
    assert "images do not exist and are left out, 1 of 4" in caplog.text


def test_files_of_a_run_on_polycams_data_are_cameras_images_and_depth_maps(scene):
    found = formats.input_files("polycam", exports.write_polycam(scene), SETTINGS)
    assert [path.suffix for path in found] == [".json"] * 4 + [".png"] * 8
    assert all(path.is_file() for path in found)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fx", None, "has fx None, expected a number"),
        ("t_12", "1", "has t_12 '1', expected a number"),
        ("fx", -5, "has fl_x -5"),
    ],
)
def test_damaged_cameras_of_polycam_are_one_sentence(key, value, words, scene):
    folder = exports.write_polycam(scene)
    file = polycam.camera_files(folder)[1]
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert words in refusal(polycam.read, folder)


@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("per_frame", [True, False])
def test_a_recording_of_record3d_is_read(unpacked, per_frame, scene):
    folder = exports.write_record3d(scene, unpacked=unpacked, per_frame=per_frame)
    assert formats.detect(folder) == ("record3d", "a recording of Record3D")
    exports.require_same(record3d.read(folder), scene)
    assert formats.input_files("record3d", folder, SETTINGS)[0].name.startswith("metadata")


def test_of_long_recordings_300_frames_are_read(scene, caplog):
    folder = exports.write_record3d(scene)
    content = json.loads((folder / "metadata.json").read_text())
    content["poses"] = [[0, 0, 0, 1, 0.001 * i, 0, 0] for i in range(400)]
    content["perFrameIntrinsicCoeffs"] = []
    (folder / "metadata.json").write_text(json.dumps(content))
    for i in range(400):
        shutil.copyfile(folder / "rgb" / "0.png", folder / "rgb" / f"{i}.png") if i else None
    with caplog.at_level(logging.INFO, "enerf"):
        posed = record3d.read(folder)
    assert (len(posed.names), posed.names[0], posed.names[-1]) == (300, "rgb/0.png", "rgb/399.png")
    assert "300 of 400 frames are read, evenly chosen" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("poses", [], "has no list of poses"),
        ("poses", [[0, 0, 0, 1, 0, 0]], "the pose of frame 0 a list of 6, expected 7 numbers"),
        ("poses", [[0, 0, 0, 0, 0, 0, 0]], "quaternion of length 0"),
        ("K", [1], "has K a list of 1, expected 9 numbers"),
        ("w", None, "has w a list of 1, expected 1 numbers"),
        ("perFrameIntrinsicCoeffs", [[1, 2]] * 4, "expected 4 numbers"),
    ],
)
def test_damaged_recordings_are_one_sentence(key, value, words, scene):
    folder = exports.write_record3d(scene)
    file = folder / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert words in refusal(record3d.read, folder)


def test_metadata_of_other_data_sets_is_no_recording(tmp_path):
    (tmp_path / "rgb").mkdir()
    (tmp_path / "metadata.json").write_text('{"0001": {"warp_id": 0}}')
    assert not record3d.detect(tmp_path)
    assert "found no recording of Record3D" in refusal(record3d.read, tmp_path / "rgb")
    assert "found no cameras of Polycam" in refusal(polycam.read, tmp_path)


# Files that are no scene ----------------------------------------------------------------------------------------------

_HEADER = "#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2\n"


@pytest.mark.parametrize(
    ("name", "text", "what", "advice"),
    [
        ("cameras.xml", '<?xml version="1.0"?>\n<document version="2.0.0">\n<chunk>', "Metashape", "Colmap"),
        ("project.psx", "", "a project of Metashape", "Colmap"),
        ("scene.csv", _HEADER, "a table of cameras of RealityScan", "Colmap"),
        ("a.xmp", '<x:xmpmeta><rdf:RDF xmlns:xcr="http://www.capturingreality.com/">', "RealityScan", "Colmap"),
        ("a.rsproj", "", "a project of RealityScan", "Colmap"),
        ("bundle.out", "# Bundle file v0.3\n", "Bundler", "COLMAP"),
        ("a.r3d", "", "a recording of Record3D", "unpack it"),
        ("capture.zip", "", "an archive", "unpack it"),
        ("room.splat", "", "a finished model", "enerf process"),
    ],
)
def test_folders_of_other_programs_are_one_sentence_with_what_to_export(name, text, what, advice, tmp_path):
    (tmp_path / "a.jpg").write_text("")
    (tmp_path / name).write_text(text)
    for path in (tmp_path, tmp_path / name):
        message = refusal(formats.detect, path)
        assert what in message
        assert advice in message
        assert "expected" in message


@pytest.mark.parametrize(("name", "text"), [("a.xml", "<html>"), ("a.csv", "name,x\n"), ("a.out", "1 2 3")])
def test_files_of_other_content_are_no_exports(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert "is no scene, expected" in refusal(formats.detect, tmp_path)
