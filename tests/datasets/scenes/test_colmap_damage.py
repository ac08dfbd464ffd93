"""Damaged and impossible COLMAP models: every one is refused in one sentence, in bounded memory."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.core.errors import InputError
from enerf.datasets.scenes import colmap, colmap_binary, colmap_records, colmap_text
from enerf.datasets.scenes.posed_images import PosedImages
from tests.contents import refusal
from tests.datasets.scenes import models
from tests.memory import least_peak

PARTS = ("cameras", "images", "points3D")
CAMERAS = "7 PINHOLE 8 6 5 5 4 3\n"
IMAGES = "1 1 0 0 0 1 2 3 7 a.jpg\n1 2 5 3 4 -1\n"
POINTS = "5 1 2 3 10 20 30 0.5 1 0\n"


def _text_model(folder: Path, cameras: str = CAMERAS, images: str = IMAGES, points: str = POINTS) -> Path:
    folder.mkdir(exist_ok=True)
    for part, content in zip(PARTS, (cameras, images, points), strict=True):
        (folder / f"{part}.txt").write_text(content, encoding="utf-8")
    return folder


def _camera(number=1, model=1, width=8, height=6, parameters=(5.0, 5.0, 4.0, 3.0)) -> bytes:
    return struct.pack(f"<IiQQ{len(parameters)}d", number, model, width, height, *parameters)


def _image(name=b"a.jpg", number=1, pose=(1.0, 0, 0, 0, 1, 2, 3), camera=1) -> bytes:
    return struct.pack("<I7dI", number, *pose, camera) + name + b"\0" + struct.pack("<Q", 0)


def _point(number=1, xyz=(1.0, 2, 3), length=0) -> bytes:
    return struct.pack("<Q3d3BdQ", number, *xyz, 1, 2, 3, 0.5, length) + bytes(8 * length)


def _binary_model(folder: Path, cameras=None, images=None, points=None) -> Path:
    folder.mkdir(exist_ok=True)
    records = (cameras or [_camera()], images or [_image()], points or [_point()])
    for part, found in zip(PARTS, records, strict=True):
        (folder / f"{part}.bin").write_bytes(struct.pack("<Q", len(found)) + b"".join(found))
    return folder


@pytest.mark.parametrize("suffix", ["bin", "txt"])
@pytest.mark.parametrize("part", PARTS)
def test_a_file_cut_at_any_byte_is_refused(tmp_path, part, suffix):
    scene = models.random_scene(0, n_views=2, n_points=2, n_observations=4)
    colmap.write(tmp_path, scene, text=suffix == "txt")
    file = tmp_path / f"{part}.{suffix}"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        if (part, suffix, length) == ("points3D", "txt", 0):  # means a model without points
            continue
        assert str(file) in refusal(colmap.read, tmp_path), length


@given(data=st.data(), suffix=st.sampled_from(["bin", "txt"]), part=st.sampled_from(PARTS))
def test_damaged_bytes_are_refused_or_change_the_content_only(tmp_path_factory, data, suffix, part):
    folder = tmp_path_factory.mktemp("model")
    colmap.write(folder, models.random_scene(0, n_views=2, n_points=3, n_observations=5), text=suffix == "txt")
    file = folder / f"{part}.{suffix}"
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    file.write_bytes(content)
    try:
        assert isinstance(colmap.read(folder), PosedImages)
    except InputError:
        assert str(folder) in refusal(colmap.read, folder)


@pytest.mark.parametrize("count", [3, 10**9, 2**31, 2**61, 2**63, 2**64 - 1])
@pytest.mark.parametrize("part", PARTS)
def test_counts_beyond_the_file_are_refused_before_anything_is_allocated(tmp_path, part, count):
    _binary_model(tmp_path)
    file = tmp_path / f"{part}.bin"
    file.write_bytes(struct.pack("<Q", count) + file.read_bytes()[8:])
    assert f"found a header of {count:,}" in refusal(colmap.read, tmp_path)
    assert least_peak(lambda: refusal(colmap.read, tmp_path), repeats=2) < 1e6


@pytest.mark.parametrize("count", [1, 10**9, 2**60, 2**61, 2**63, 2**64 - 1])
def test_counts_of_observations_beyond_the_file_are_refused(tmp_path, count):
    _binary_model(tmp_path, images=[_image()[:-8] + struct.pack("<Q", count)])
    assert "images.bin" in refusal(colmap.read, tmp_path)
    _binary_model(tmp_path, points=[_point()[:-8] + struct.pack("<Q", count), _point(2)])
    assert "points3D.bin" in refusal(colmap.read, tmp_path)


def test_bytes_after_the_last_record_are_refused(tmp_path):
    for part in PARTS:
        _binary_model(tmp_path)
        with (tmp_path / f"{part}.bin").open("ab") as file:
            file.write(b"\0")
        assert "found 1 bytes after the last" in refusal(colmap.read, tmp_path)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("part", "record", "words"),
    [
        (
            "cameras",
            _camera(model=18),
            "found the number 18 as model of camera 1, expected one of COLMAP's models, 0 to",
        ),
        ("cameras", _camera(model=-1), "found the number -1"),
        ("cameras", _camera(width=0), "found an image of 0 x 6 pixels"),
        ("cameras", _camera(height=10**6 + 1), "found an image of 8 x 1000001 pixels"),
        ("cameras", _camera(width=2**63), "found an image of"),
        ("cameras", _camera(parameters=(0.0, 5, 4, 3)), "found fx = 0 of PINHOLE"),
        ("cameras", _camera(parameters=(5.0, -5, 4, 3)), "found fy = -5 of PINHOLE"),
        ("cameras", _camera(parameters=(NAN, 5, 4, 3)), "found fx = nan"),
        ("cameras", _camera(parameters=(5.0, 5, INFINITY, 3)), "found cx = inf"),
        ("cameras", _camera(model=17, parameters=(8.0, 7.0)), "EQUIRECTANGULAR"),
        ("cameras", _camera() + _camera(), "after the last"),
        ("images", _image(pose=(0.0, 0, 0, 0, 1, 2, 3)), "quaternion that is no rotation in image a.jpg"),
        ("images", _image(pose=(NAN, 0, 0, 0, 1, 2, 3)), "quaternion that is no rotation in image a.jpg"),
        ("images", _image(pose=(1e300, 1e300, 0, 0, 1, 2, 3)), "quaternion that is no rotation in image a.jpg"),
        ("images", _image(pose=(1.0, 0, 0, 0, 1, INFINITY, 3)), "translation that is not finite in image a.jpg"),
        ("images", _image(camera=2), "found camera 2 for image a.jpg, expected one of cameras.bin"),
        ("images", _image(name=b"\xff.jpg"), "expected UTF-8"),
        ("images", _image(name=b""), "expected a file inside"),
        ("images", _image(name=b"."), "expected a file inside"),
        ("images", _image(name=b"/etc/passwd"), "absolute image name '/etc/passwd'"),
        ("images", _image(name=b"C:\\a.jpg"), "absolute image name"),
        ("images", _image(name=b"../../x"), "expected a file inside"),
        ("images", _image(name=b"a\\..\\..\\x"), "expected a file inside"),
        ("images", _image(name=b"a\nb.jpg"), "control characters"),
        ("images", _image(name=b"a" * 300), "found an image name of 300 bytes"),
        ("images", _image(name=b"a/" * 5000), "found a name of more than 4,095 bytes"),
        ("points3D", _point(xyz=(1.0, NAN, 3)), "position that is not finite in point 1"),
        ("points3D", _point(xyz=(1.0, -INFINITY, 3)), "position that is not finite in point 1"),
        ("points3D", _point(number=2**64 - 1), "identifier 18446744073709551615"),
    ],
    ids=lambda value: None if isinstance(value, str) else "record",
)
def test_impossible_values_are_named(tmp_path, part, record, words):
    _binary_model(tmp_path, **{part.removesuffix("3D"): [record]})
    message = refusal(colmap.read, tmp_path)
    assert words in message
    assert str(tmp_path / part) in message


def test_repeated_identifiers_and_names_are_refused(tmp_path):
    twice = "with the identifier 1, expected unique ones"
    assert twice in refusal(colmap.read, _binary_model(tmp_path, cameras=[_camera(), _camera()]))
    assert twice in refusal(colmap.read, _binary_model(tmp_path, images=[_image(), _image(b"b.jpg")]))
    assert twice in refusal(colmap.read, _binary_model(tmp_path, points=[_point(), _point()]))
    for name in (b"a.jpg", b"./a.jpg"):
        _binary_model(tmp_path, images=[_image(), _image(name, number=2)])
        assert "two images of the name 'a.jpg'" in refusal(colmap.read, tmp_path)


def test_models_without_images_or_cameras_are_refused(tmp_path):
    _binary_model(tmp_path)
    for part, words in (("images", "found no registered image"), ("cameras", "found no camera")):
        _binary_model(tmp_path)
        (tmp_path / f"{part}.bin").write_bytes(bytes(8))
        assert words in refusal(colmap.read, tmp_path)
        (tmp_path / f"{part}.bin").unlink()
        assert "found no COLMAP model" in refusal(colmap.read, tmp_path)
    assert "found no registered image" in refusal(colmap.read, _text_model(tmp_path / "text", images="# nothing\n"))


@pytest.mark.parametrize(
    ("part", "content", "words"),
    [
        ("cameras", "# a\n7 PINHOLE 8\n", "line 2: found 3 words"),
        ("cameras", "7 PINHOLES 8 6 5 5 4 3\n", "line 1: found the camera model 'PINHOLES'"),
        ("cameras", "7 PINHOLE 8 6 5 5 4\n", "line 1: found 3 parameters"),
        ("cameras", "7 PINHOLE 8.5 6 5 5 4 3\n", "line 1: found '8.5', expected a whole number"),
        ("cameras", "7 PINHOLE 8 6 5 x 4 3\n", "line 1: found 'x', expected a number"),
        ("cameras", f"{'9' * 5000} PINHOLE 8 6 5 5 4 3\n", "line 1: found '999"),
        ("images", "1 1 0 0 0 1 2 3 7\n\n", "line 1: found 9 words"),
        ("images", "1 1 0 0 0 1 2 y 7 a.jpg\n\n", "line 1: found 'y'"),
        ("images", "1 1 0 0 0 1 2 3 -7 a.jpg\n\n", "line 1: found '-7'"),
        ("images", "1 1 0 0 0 1 2 3 7 a.jpg\n1 2\n", "line 2: found 2 words, expected X, Y, POINT3D_ID"),
        ("images", "1 1 0 0 0 1 2 3 7 a.jpg\n1 2 z\n", "line 2: found an identifier"),
        ("images", "1 1 0 0 0 1 2 3 7 ../a.jpg\n\n", "line 1: found the image name '../a.jpg'"),
        ("images", "1 1 0 0 0 1 2 3 7 a\0.jpg\n\n", "control characters"),
        ("points", "\n5 1 2 3 10 20 30\n", "line 2: found 7 words"),
        ("points", "5 1 2 3 10 20 30 0.5 1\n", "line 1: found 9 words"),
        ("points", "5 1 2 3 10 20 256 0.5\n", "line 1: found '256', expected a whole number from 0 to 255"),
        ("points", "5 1 2 w 10 20 30 0.5\n", "line 1: found 'w', expected a number"),
        ("points", "-5 1 2 3 10 20 30 0.5\n", "identifier"),
        ("points", "5 1 2 3 10 20 30 0.5 q 0\n", "line 1: found 'q'"),
        ("points", f"{2**64} 1 2 3 10 20 30 0.5\n", "line 1: found '18446744073709551616'"),
        ("points", "5 1 2 inf 10 20 30 0.5\n", "not finite in point 5"),
    ],
)
def test_malformed_lines_are_named(tmp_path, part, content, words):
    message = refusal(colmap.read, _text_model(tmp_path, **{part: content}))
    assert words in message
    assert str(tmp_path / part) in message


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    _text_model(tmp_path)
    (tmp_path / "images.txt").write_bytes(IMAGES.encode("utf-16"))
    assert "not UTF-8" in refusal(colmap.read, tmp_path)


def test_a_text_file_with_less_than_its_comment_says_is_refused(tmp_path):
    _text_model(tmp_path, images=f"# Number of images: 2, mean observations per image: 3\n{IMAGES}")
    assert "found 1 images, expected the 2 that its comment announces" in refusal(colmap.read, tmp_path)


@pytest.mark.parametrize("suffix", ["bin", "txt"])
@pytest.mark.parametrize("part", PARTS)
def test_pipes_devices_and_folders_are_refused(tmp_path, part, suffix):
    colmap.write(tmp_path, models.random_scene(0), text=suffix == "txt")
    file = tmp_path / f"{part}.{suffix}"
    makers = {
        "a named pipe": os.mkfifo,
        "a character device": lambda path: path.symlink_to("/dev/zero"),
        "a folder": Path.mkdir,
    }
    for kind, make in makers.items():
        file.unlink()
        make(file)
        assert f"found {kind}, expected a file" in refusal(colmap.read, tmp_path)
        if kind == "a folder":
            file.rmdir()
            file.symlink_to(tmp_path / "nothing")
    assert "cannot be read (No such file or directory)" in refusal(colmap.read, tmp_path)


def test_files_with_braces_in_their_path_are_named(tmp_path):
    folder = tmp_path / "{0}{x}"
    assert str(folder) in refusal(colmap.read, _binary_model(folder, images=[_image(pose=(0.0,) * 7)]))


def test_readers_accept_what_they_are_tested_with(tmp_path):
    for suffix, layout in (("bin", colmap_binary), ("txt", colmap_text)):
        model = (_binary_model if suffix == "bin" else _text_model)(tmp_path / suffix)
        assert len(layout.read_cameras(model / f"cameras.{suffix}")) == 1
        assert layout.read_images(model / f"images.{suffix}").names == ("a.jpg",)
        points = layout.read_points(model / f"points3D.{suffix}")
        assert isinstance(points, colmap_records.Points3D)
        assert points.xyz.tolist() == [[1, 2, 3]]
