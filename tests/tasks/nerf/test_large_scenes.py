"""Runs whose photographs are in a mapped file, or are drawn in blocks: the same results, and the same when resumed."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from enerf.core.errors import InputError
from enerf.datasets.scenes import decoded_cache, storage, synthetic
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.engine import checkpoint as engine_checkpoint
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import train as nerf_train

BASE = [
    *("--netdepth", "2", "--netwidth", "16", "--netdepth_fine", "2", "--netwidth_fine", "16", "--N_rand", "32"),
    *("--N_samples", "8", "--N_importance", "8", "--N_iters", "8"),
    *("--i_testset", "0", "--i_video", "0", "--i_img", "0"),
    *("--i_eval", "4", "--eval_rays", "20", "--i_print", "4", "--i_weights", "4", "--i_spectrum", "0"),
    *("--factor", "1", "--llffhold", "4", "--device", "cpu", "--final_pixels", "--lrate_decay", "1"),
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=8, width=16, height=12, supersample=1, progress=False)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENERF_CACHE", str(tmp_path / "cache"))


def _no_memory(monkeypatch):
    """Decoded photographs do not fit in memory."""
    monkeypatch.setattr(storage, "IN_MEMORY", 0)


def _no_room(monkeypatch):
    """They fit nowhere."""

    def nowhere(*_):
        raise decoded_cache.NoRoom("there is no room")

    _no_memory(monkeypatch)
    monkeypatch.setattr(decoded_cache, "mapped", nowhere)
    monkeypatch.setattr(storage, "HEADROOM", 1 << 60)


def _trained(config):
    """Metrics of a run, and the weights and moments of its last checkpoint."""
    metrics = nerf_train.train(config)
    content, _ = engine_checkpoint.newest(config.folder, ["nerf"])
    moments = content["optimiser"]["state"]
    return metrics, [*content["model"].values(), *(moments[i]["exp_avg"] for i in sorted(moments))]


def _same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True)) and a[0]["curve"] == b[0]["curve"]


def test_a_run_on_mapped_photographs_is_that_on_photographs_in_memory(make, monkeypatch, tmp_path):
    wanted = _trained(make("memory"))
    _no_memory(monkeypatch)
    found = _trained(make("mapped"))
    assert list((tmp_path / "cache" / "decoded").iterdir())
    assert _same(found, wanted)
    assert found[0]["mean"] == wanted[0]["mean"]


@pytest.fixture
def opaque(scene, tmp_path) -> Path:
    """The scene with photographs that have an alpha channel without transparent pixels."""
    folder = Path(shutil.copytree(scene, tmp_path / "opaque"))
    for file in (folder / "images").iterdir():
        with Image.open(file) as photo:
            photo.convert("RGBA").save(file)
    return folder


@pytest.mark.parametrize("words", [(), ("--no_batching", "--precrop_iters", "5"), ("opaque",)])
def test_blocks_are_the_same_for_all_storages_and_when_resumed(words, make, opaque, monkeypatch, caplog):
    caplog.set_level("INFO")
    words = ("--datadir", str(opaque), "--no_pose_check") if words == ("opaque",) else words
    words = ("--batches", "blocks", "--block_gb", "2e-6", *words)  # three images
    whole = _trained(make("whole", *words))
    assert "from a block of 3 of 6 training views" in caplog.text
    with monkeypatch.context() as patch:
        _no_memory(patch)
        assert nerf_setup.prepare(make("mapped", *words)).scene.images.is_mapped
        assert _same(_trained(make("mapped", *words)), whole)
    _no_room(monkeypatch)
    nerf_train.train(make("parts", *words, "--N_iters", "4", "--no_final_eval"))
    assert isinstance(nerf_setup.prepare(make("parts", *words)).scene.images, OnDemandImages)
    assert _same(_trained(make("parts", *words)), whole)
    assert not _same(_trained(make("other", *words, "--block_gb", "1e-6")), whole)


def test_photographs_that_fit_nowhere_are_drawn_in_blocks_which_is_recorded(make, monkeypatch):
    with monkeypatch.context() as patch:
        _no_room(patch)
        assert nerf_setup.prepare(make("run")).config.train.batches == "blocks"
        nerf_train.train(make("run", "--N_iters", "4", "--no_final_eval"))
        with pytest.raises(InputError, match="--cache_gb"):
            nerf_setup.prepare(make("all", "--batches", "all"))
    resumed = nerf_setup.prepare(make("run")).config.train  # also where there is room
    assert (resumed.batches, resumed.block_steps) == ("blocks", 1)
    assert nerf_setup.prepare(make("new")).config.train.batches == "all"


def test_a_damaged_photograph_of_a_block_is_one_sentence(make, monkeypatch, scene, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(scene, copy)
    _no_room(monkeypatch)
    config = make("run", "--datadir", str(copy), "--batches", "blocks", "--block_gb", "2e-6", "--no_pose_check")
    run = nerf_setup.prepare(config)
    for file in sorted((copy / "images").iterdir()):
        with Image.open(file) as photo:
            size = photo.size
        file.write_bytes(file.read_bytes()[:-40])
        assert size == (16, 12)
    step = nerf_train.step_function(run)
    with pytest.raises(InputError, match="cannot be read"):
        step(run.state)
