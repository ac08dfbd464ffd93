"""Tests of whole extractions, on a tiny trained run: what is written, said, refused, and left alone."""

import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from enerf.config import parser
from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from enerf.engine import checkpoint
from enerf.experiments import extract
from enerf.experiments.options import ExtractOptions
from enerf.geometry import texture, write
from enerf.geometry.preview.raycast import MeshScene
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import train as nerf_train

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    **{"factor": 1, "llffhold": 3, "netwidth": 8, "netwidth_fine": 16, "netdepth": 2, "netdepth_fine": 2},
    **{"multires": 3, "multires_views": 1, "use_viewdirs": True, "N_rand": 64, "N_samples": 8, "N_importance": 8},
    **{"N_iters": 20, "i_eval": 0, "i_img": 0, "device": "cpu", "lrate": 1e-2, "density": "softplus"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extract")
    scene = synthetic.write_scene(folder / "toy", views=5, width=24, height=18, supersample=1, progress=False)
    config = parser.from_dict(
        nerf_config.NerfConfig, {**TINY, "datadir": str(scene), "basedir": str(folder), "expname": "run"}
    )
    nerf_train.train(config)
    return config.folder


@pytest.fixture(scope="module")
def some(trained) -> ExtractOptions:
    """Options with a level that the field crosses."""
    with pytest.raises(InputError) as told:
        extract.extract(trained, ExtractOptions(resolution=24, level="1e9", device="cpu"))
    low, high = map(float, re.search(r"ranges over \[(.*), (.*)\]", str(told.value)).groups())
    return ExtractOptions(resolution=24, level=str((low + high) / 2), device="cpu")


def test_a_level_that_is_not_crossed_is_told_with_the_range(trained):
    sentence = r"run: the field does not cross the iso value 1e\+09; it ranges over \["
    with pytest.raises(InputError, match=sentence):
        extract.extract(trained, ExtractOptions(resolution=16, level="1e9", device="cpu"))
    assert not (trained / "mesh.ply").exists()


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "glb"])
def test_a_mesh_is_written_in_the_asked_format_and_described(trained, some, tmp_path, suffix):
    out = tmp_path / f"it.{suffix}"
    words = extract.extract(trained, replace(some, out=str(out)))
    mesh = trimesh.load_mesh(out, process=False)
    first, *_, last = words.splitlines()
    assert last == str(out)
    vertices, faces = (int(n.replace(",", "")) for n in re.match(r"([\d,]+) vertices, ([\d,]+) faces", first).groups())
    assert len(mesh.faces) == faces
    assert suffix == "stl" or len(mesh.vertices) == vertices
    assert re.search(r"field evaluations: [\d.]+ % of the [\d,]+ of the dense grid$", first)
    assert os.listdir(tmp_path) == [out.name]
    if suffix != "stl":
        assert mesh.visual.kind == "vertex"


def test_it_lies_in_the_world_of_the_files(trained, some):
    """In front of the cameras near the origin, no farther than the farthest bound."""
    extract.extract(trained, some)
    vertices = trimesh.load_mesh(trained / "mesh.ply").vertices
    assert vertices[:, 2].max() < 0
    assert vertices[:, 2].min() > -1.5 * 9


def test_colors_are_those_of_the_field_along_a_training_cameras_sight(trained, some):
    subject = extract.open_source(trained, some)
    run = nerf_setup.open_run(trained, "cpu")
    point = np.array([[0.2, -0.1, -5.0]])
    (color,) = subject.colors(point, np.array([[0.0, 0.0, 1.0]]))
    at = torch.from_numpy(subject.from_world(point)).float()
    scene_point = run.scene.world_to_scene.numpy() @ [*point[0], 1.0]
    sights = scene_point[:3] - run.scene.c2w[list(run.scene.train), :, 3].double().numpy()
    run.fields.requires_grad_(False)
    every = [run.fields.fine(at[:, None], torch.from_numpy(s / np.linalg.norm(s)).float()[None]).rgb for s in sights]
    assert min(float((rgb[0, 0] - torch.from_numpy(color)).abs().max()) for rgb in every) < 1e-2  # backends round


def test_the_field_is_the_density_of_the_fine_network(trained, some):
    subject = extract.open_source(trained, some)
    run = nerf_setup.open_run(trained, "cpu")
    points = 0.5 * torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = run.fields.fine(points[:, None], torch.zeros(100, 3)).density[:, 0]
        found = subject.field(points)
    assert not found.requires_grad
    assert float((found - expected).abs().max()) < 0.05 * float(expected.max())


def test_pictures_and_the_field_as_rays_see_it_are_beside_the_mesh(trained, some, tmp_path):
    out = tmp_path / "it.ply"
    small = replace(some, out=str(out), views=extract.BESIDE, traced=True, frames=2, size=24)
    words = extract.extract(trained, small).splitlines()
    folder = tmp_path / "it_views"
    names = {"front.png", "left.png", "right.png", "above.png", "turntable.mp4", "traced.png"}
    assert set(os.listdir(folder)) == names
    assert {Path(line).name for line in words[1:-1]} == names
    assert images.read(folder / "front.png").shape == images.read(folder / "traced.png").shape == (24, 32, 3)


def test_polish_is_applied_in_turn(trained, some, tmp_path):
    out = tmp_path / "it.ply"
    plain = replace(some, out=str(out), no_colors=True)
    extract.extract(trained, plain)
    every = trimesh.load_mesh(out, process=False)
    extract.extract(trained, replace(plain, largest=1, smooth=2, decimate=60, crop=1))
    fewer = trimesh.load_mesh(out, process=False)
    assert len(fewer.faces) < len(every.faces)
    assert fewer.visual.kind is None
    extract.extract(trained, replace(plain, closed=True))
    assert trimesh.load_mesh(out).is_watertight


def test_the_plan_the_range_and_the_check_are_told(trained, some, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="enerf"):
        extract.extract(trained, replace(some, check=1.0))
    for words in (
        "as requested; densities are per unit of NDC",
        "cells: about",
        "values of the field range over [",
        "checked all",
    ):
        assert words in caplog.text
    assert "extract" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"out": "mesh.xyz"}, r"found the suffix '\.xyz', expected one of \.obj"),
        ({"level": "high"}, "option --level: found 'high', expected a finite number"),
        ({"level": "nan"}, "option --level: found 'nan'"),
        ({"resolution": 100_000}, r"GiB, more than the 2 GiB allowed"),
        ({"resolution": 512, "memory": 0.05}, r"cells need about .* GiB, more than the 0.05 GiB allowed"),
    ],
    ids=["suffix", "level", "nan", "resolution", "memory"],
)
def test_what_makes_no_sense_is_one_sentence_before_the_work(trained, some, tmp_path, changes, sentence):
    chosen = replace(some, **{"out": str(tmp_path / "it.ply"), **changes})
    with pytest.raises(InputError, match=sentence):
        extract.extract(trained, chosen)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_no_run_and_a_run_of_another_kind_are_told(trained, some, tmp_path):
    with pytest.raises(InputError, match="found no checkpoints"):
        extract.extract(tmp_path, some)
    other = tmp_path / "other" / "checkpoints"
    other.mkdir(parents=True)
    content = checkpoint.read(checkpoint.checkpoints(trained)[-1])
    torch.save({**content, "config": {"kind": "poem"}}, other / "000001.pt")
    with pytest.raises(InputError, match="found a run of kind 'poem', expected one of nerf"):
        extract.extract(other.parent, some)


def test_depth_maps_are_fused_and_a_texture_is_embedded(trained, tmp_path, caplog):
    pytest.importorskip("xatlas")
    out = tmp_path / "it.glb"
    chosen = ExtractOptions(method="fusion", resolution=24, between=1, texture=64, out=str(out), device="cpu")
    with caplog.at_level(logging.INFO, logger="enerf"):
        words = extract.extract(trained, replace(chosen, all_parts=True))
    assert "5 depth maps of 2,160 pixels in all, truncated at" in caplog.text  # of 3 views, and 2 between them
    assert words.splitlines()[-1] == str(out)
    mesh = trimesh.load_mesh(out, process=False)
    assert mesh.visual.kind == "texture"
    assert mesh.visual.material.baseColorTexture.size == (64, 64)
    assert f" {len(mesh.faces):,} faces, " in words  # of the file, not of the mesh before its decimation
    views = replace(chosen, fusion_rays=500, all_parts=True, views=str(tmp_path / "views"), frames=0, size=24)
    extract.extract(trained, replace(views, out=""))
    assert (trained / "mesh.glb").exists()
    assert images.read(tmp_path / "views" / "front.png").shape == (24, 32, 3)


def test_a_mesh_with_a_texture_is_decimated_and_described_as_it_is_written(trained, some, tmp_path, monkeypatch):
    pytest.importorskip("xatlas")
    monkeypatch.setattr(texture, "MOST_FACES", 100)
    out = tmp_path / "it.glb"
    words = extract.extract(trained, replace(some, out=str(out), texture=64))
    faces = int(re.search(r"([\d,]+) faces", words).group(1).replace(",", ""))
    assert len(trimesh.load_mesh(out, process=False).faces) == faces <= 110
    made = extract.mesh_of(trained, replace(some, texture=64))
    assert made.texture is not None
    np.testing.assert_allclose(made.texture.vertices[made.texture.faces], made.vertices[made.faces])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"level": "3"}, "option --level: found '3', expected none with --method fusion"),
        ({"texture": 64, "out": "it.obj"}, r"it\.obj: found the suffix '\.obj', expected \.glb"),
        ({"texture": 64, "no_colors": True}, "option --texture: found 64, expected 0: --no_colors is given"),
        ({"texture": 2}, "option --texture: found 2, expected 0 or at least 16 texels"),
        ({"method": "march", "between": 2}, "option --between: found 2, expected 0 without --method fusion"),
        ({"method": "march", "no_fill": True}, "option --no_fill: found True, expected False without --method fusion"),
        ({"method": "march", "fusion_rays": 500}, "option --fusion_rays: found 500, expected 4000000 without --method"),
        ({"decimate": 3}, "option --decimate: found 3, expected 0 or at least 4 faces"),
    ],
    ids=["level", "suffix", "no colors", "tiny", "between", "no fill", "rays", "decimate"],
)
def test_options_that_contradict_fusion_or_textures_are_refused(trained, tmp_path, changes, sentence, monkeypatch):
    """Before the run is opened, which renders the depth maps."""
    monkeypatch.setattr(extract.registry, "with_part", None)
    chosen = {"method": "fusion", "resolution": 16, "out": str(tmp_path / "it.glb"), "device": "cpu", **changes}
    with pytest.raises(InputError, match=sentence):
        extract.extract(trained, ExtractOptions(**chosen))
    assert os.listdir(tmp_path) == []


def test_an_interruption_leaves_the_old_mesh(trained, some, tmp_path, monkeypatch):
    out = tmp_path / "it.ply"
    out.write_bytes(b"old")

    def cut(path, *_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(write.WRITERS, ".ply", cut)
    with pytest.raises(KeyboardInterrupt):
        extract.extract(trained, replace(some, out=str(out)))
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["it.ply"]


def test_the_door_takes_a_box_and_opens(trained, some, tmp_path):
    out = tmp_path / "it.ply"
    box = ["-2", "-2", "-8", "2", "2", "-4"]
    command = [sys.executable, str(ROOT / "scripts" / "extract_mesh.py"), str(trained), "--box", *box]
    command += ["--resolution", "20", "--level", some.level, "--out", str(out), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    vertices = trimesh.load_mesh(out).vertices
    assert (vertices >= [-2.001, -2.001, -8.001]).all()
    assert (vertices <= [2.001, 2.001, -3.999]).all()
    wrong = subprocess.run([*command[:3], "--box", "0"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")


@pytest.mark.slow
def test_the_mesh_of_a_trained_demo_lies_where_its_geometry_is(tmp_path):
    """Depths that the rays of a view have on the mesh and in the scene itself, in the world."""
    scene = synthetic.write_scene(tmp_path / "demo", views=20, progress=False)
    fast = [*("--config", "fast/fern.txt", "--datadir", str(scene), "--factor", "1", "--basedir", str(tmp_path))]
    fast += [*("--expname", "run", "--N_rand", "1024", "--N_iters", "500", "--i_eval", "0", "--no_final_eval")]
    nerf_train.train(parser.parse(nerf_config.NerfConfig, [*fast, "--device", "cpu"])[0])
    extract.extract(tmp_path / "run", ExtractOptions(resolution=192, crop=4, floaters=0.02, device="cpu"))
    mesh = trimesh.load_mesh(tmp_path / "run" / "mesh.ply", process=False)
    camera, c2w = synthetic.camera(), synthetic.poses(20)[8]
    y, x = np.meshgrid(np.arange(0.5, camera.height, 2), np.arange(0.5, camera.width, 2), indexing="ij")
    local = np.stack([(x - camera.cx) / camera.fx, (camera.cy - y) / camera.fy, -np.ones_like(x)], -1).reshape(-1, 3)
    directions = local / np.linalg.norm(local, axis=1, keepdims=True) @ c2w[:, :3].T
    origins = np.repeat(c2w[None, :, 3], len(directions), 0)
    true = synthetic.trace(origins, directions)[1]
    found = MeshScene(np.asarray(mesh.vertices), np.asarray(mesh.faces)).hits(origins, directions)[0]
    hit = np.isfinite(found)
    assert hit.mean() > 0.7
    assert np.median(np.abs(found - true)[hit] / true[hit]) < 0.06
