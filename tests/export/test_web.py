"""``enerf export-web``: pages of runs and of mesh files, and what is refused."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from enerf.cli import export_web as command
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from enerf.export import web
from enerf.export.options import WebOptions
from enerf.geometry import synthetic as shapes
from enerf.rendering.render import Picture
from enerf.tasks.nerf import planes as nerf_planes
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape import train as shape_train
from enerf.tasks.shape.config import ShapeConfig
from tests.export.stacks import forward_scene

NERF = (
    "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 6 --N_importance 6 "
    "--factor 1 --llffhold 3 --N_iters 4 --i_print 0 --i_eval 0 --i_img 0 --i_spectrum 0 --eval_rays 20 --device cpu "
    "--backend torch --precision fp32"
)
SHAPE = (
    "--netwidth 16 --hash_levels 3 --hash_log2_entries 12 --hash_finest 24 --lrate 2e-2 --N_points 512 --pool 2048 "
    "--background none --N_iters 60 --i_eval 0 --resolution 0 --device cpu"
)


def meta_of(text: str) -> dict:
    return json.loads(re.search(r"^const META = (.*);$", text, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A NeRF run and a shape run."""
    folder = tmp_path_factory.mktemp("runs")
    synthetic.write_scene(folder / "toy", views=6, width=16, height=12, supersample=1, progress=False)
    shapes.write_shapes(folder)
    where = ["--datadir", str(folder / "toy"), "--basedir", str(folder), "--expname", "nerf"]
    nerf_train.train(parser.parse(NerfConfig, [*NERF.split(), *where])[0])
    where = ["--mesh", str(folder / "torus.ply"), "--basedir", str(folder), "--expname", "shape"]
    shape_train.train(parser.parse(ShapeConfig, [*SHAPE.split(), *where])[0])
    return folder


def test_a_scene_becomes_a_folder_by_the_command(runs, tmp_path, capsys):
    words = [str(runs / "nerf"), "--out", str(tmp_path / "page"), "--seconds", "0", "--device", "cpu"]
    command.main(words)
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"[\d.]+ layers a pixel; a frame of 1008 × 756 pixels has [\d.]+ million fragments", lines[0])
    assert lines[1].startswith("PSNR on test views:")
    assert lines[-1] == str(tmp_path / "page" / "index.html")
    text = (tmp_path / "page" / "index.html").read_text()
    assert "<b>toy</b>" in text
    assert "4 steps" in text
    assert re.search(r"PSNR \d+\.\d\d dB on test views", text)
    meta = meta_of((tmp_path / "page" / "page.js").read_text())
    assert len(meta["hull"]) >= 3
    assert meta["tiles"] > 0


def test_planes_that_the_user_has_made_are_shown_and_kept(runs, tmp_path):
    path = nerf_planes.bake_folder(runs / "nerf", 7, 0.1, device="cpu")
    before = (path.stat().st_ino, path.read_bytes())
    web.export_web(runs / "nerf", WebOptions(out=str(tmp_path / "page"), device="cpu"))  # by default tuned for 60 s
    assert (path.stat().st_ino, path.read_bytes()) == before


def test_views_that_masks_exclude_have_no_part_in_the_psnr():
    scene = replace(forward_scene(), test=(0, 1))
    masks = torch.zeros(5, 40, 40, 1, dtype=torch.bool)

    def renders(through):
        return Picture(torch.zeros(1600, 3), torch.zeros(1600), torch.ones(1600))

    assert math.isnan(web.psnr(renders, replace(scene, masks=masks)))
    masks[1] = True
    assert web.psnr(renders, replace(scene, masks=masks)) == pytest.approx(-20 * math.log10(0.5))


def test_a_shape_is_beside_the_mesh_that_it_was_fitted_to(runs, tmp_path):
    out = tmp_path / "shape.html"
    web.export_web(runs / "shape", WebOptions(out=str(out), single=True, resolution=32, title="<i>"))
    text = out.read_text()
    assert "<b>&lt;i&gt;</b>" in text
    assert [mesh["name"] for mesh in meta_of(text)["meshes"]] == ["fitted", "original"]


def test_a_mesh_file_keeps_its_colors_and_is_decimated(tmp_path):
    ball = trimesh.creation.icosphere(4)
    colors = np.tile(np.array([[200, 10, 10, 255]], np.uint8), (len(ball.vertices), 1))
    path = tmp_path / "ball.ply"
    trimesh.Trimesh(ball.vertices, ball.faces, vertex_colors=colors, process=False).export(path)
    made = web.export_web(path, WebOptions(single=True, faces=1000, original=str(path), up="z"))
    out = tmp_path / "ball_web.html"
    assert made.splitlines()[-1] == str(out)
    meshes = meta_of(out.read_text())["meshes"]
    assert [mesh["faces"] <= 1000 for mesh in meshes] == [True, True]
    assert all(mesh["colors"] for mesh in meshes)


def test_a_scene_that_is_not_forward_facing_is_refused(runs, tmp_path):
    synthetic.write_scene(tmp_path / "toy", views=6, width=16, height=12, supersample=1, progress=False)
    where = ["--datadir", str(tmp_path / "toy"), "--basedir", str(tmp_path), "--expname", "open", "--no_ndc"]
    nerf_train.train(parser.parse(NerfConfig, [*NERF.split(), *where, "--no_final_eval"])[0])
    with pytest.raises(InputError, match="forward-facing"):
        web.export_web(tmp_path / "open", WebOptions(out=str(tmp_path / "page")))
    assert not (tmp_path / "page").exists()


def test_mistakes_are_found_before_the_work(runs, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        web.export_web(tmp_path / "nowhere", WebOptions())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        web.export_web(runs / "nerf", WebOptions(out=str(tmp_path / "full")))
    with pytest.raises(InputError, match=r"\.html"):
        web.export_web(runs / "nerf", WebOptions(out=str(tmp_path / "page"), single=True))
    (tmp_path / "text.ply").write_text("no mesh")
    with pytest.raises(InputError, match=r"text\.ply"):
        web.export_web(tmp_path / "text.ply", WebOptions())


def test_costs_are_in_words():
    assert web.cost(24.0, (1000, 1000)) == (
        "24.0 layers a pixel; a frame of 1000 × 1000 pixels has 24.0 million fragments and moves 480 MB"
    )
