"""Photographs mapped from a file or decoded on demand are those in memory; the cache is bounded and checks itself."""

import os
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from enerf.core import images
from enerf.datasets.scenes import decoded_cache, resized_files, storage
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.resized_files import Photo
from enerf.datasets.scenes.storage import Limits

N, H, W = 5, 6, 8
MAPPED = Limits(in_memory=0, cached=10**9)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of decoded photographs."""
    monkeypatch.setenv("ENERF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


def _write(folder, sizes=((H, W),) * N, *, seed=0, alpha=(), opaque=(), deep=()):
    """PNG files of random colors: with alpha, opaque or not, or of 16 bits, where so named."""
    import cv2

    generator = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for i, (h, w) in enumerate(sizes):
        file = folder / f"{i}.png"
        if i in deep:
            cv2.imwrite(str(file), generator.integers(0, 1 << 16, (h, w, 3)).astype(np.uint16))
        else:
            pixels = generator.integers(0, 256, (h, w, 3 + (i in alpha or i in opaque))).astype(np.uint8)
            pixels[..., 3:] |= 255 if i in opaque else 0
            images.write_png(file, pixels)
    return folder


def _photographs(folder, *, scale=1, white=False, keep_alpha=False):
    photos = []
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as photo:
            photos.append(Photo(file, photo.width // scale, photo.height // scale, rotate=False))
    return resized_files.photographs(photos, folder, by_alpha=keep_alpha, white=white, keep_alpha=keep_alpha)


def _same(found, wanted):
    """Whether all images are equal, and pixels of them."""
    assert found.dtype == wanted.dtype
    for view in range(len(wanted)):
        assert torch.equal(found[view], wanted[view])
        assert torch.equal(found[torch.tensor([view]), torch.tensor([1]), torch.tensor([2])][0], wanted[view][1, 2])


KINDS = {
    "plain": ({}, {}),
    "sizes": ({"sizes": [(H, W), (W, H), (H, W), (4, 9)]}, {}),
    "resized": ({}, {"scale": 2}),
    "alpha kept": ({"alpha": (2, 3)}, {"keep_alpha": True}),
    "alpha opaque": ({"opaque": (0, 3)}, {"keep_alpha": True}),
    "alpha over white": ({"alpha": (0, 3)}, {"white": True}),
    "alpha dropped": ({"alpha": (0, 3)}, {}),
    "alpha over white, the first opaque": ({"alpha": (2,)}, {"white": True}),
    "16 bits": ({"deep": (3,)}, {}),
    "16 bits and alpha": ({"deep": (1,), "alpha": (3,)}, {"keep_alpha": True}),
    "16 bits resized": ({"deep": (1,)}, {"scale": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mapped_photographs_are_those_in_memory(kind, tmp_path):
    written, options = KINDS[kind]
    photographs = _photographs(_write(tmp_path / "images", **written), **options)
    wanted = storage.load(photographs, storage.UNBOUNDED)
    for _ in range(2):  # written, and found again
        found = storage.load(photographs, MAPPED)
        assert isinstance(found, PackedImages)
        assert found.is_mapped
        _same(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_photographs_decoded_on_demand_are_those_in_memory(kind, tmp_path):
    written, options = KINDS[kind]
    photographs = _photographs(_write(tmp_path / "images", **written), **options)
    found, wanted = storage.on_demand(photographs), storage.in_memory(photographs)
    _same(found, wanted)
    assert storage.channels_of(found) == storage.channels_of(wanted)


def test_mapped_photographs_take_no_anonymous_memory(tmp_path):
    def anonymous() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024

    side = 512
    photographs = _photographs(_write(tmp_path / "images", sizes=[(side, side)] * 24))
    storage.load(photographs, MAPPED)
    before = anonymous()
    found = storage.load(photographs, MAPPED)
    total = sum(int(found[view].max()) for view in range(24))
    assert total > 0
    assert anonymous() - before < 24 * side * side * 3 // 2


def test_a_file_that_changes_is_decoded_again(tmp_path, cache):
    folder = _write(tmp_path / "images")
    first = storage.load(_photographs(folder), MAPPED)
    kept = first[0].clone()
    _write(folder, seed=1)
    _same(storage.load(_photographs(folder), MAPPED), storage.in_memory(_photographs(folder)))
    assert len(list(cache.iterdir())) == 2
    assert torch.equal(first[0], kept)  # what has been mapped stays
    storage.load(_photographs(folder, scale=2), MAPPED)
    storage.load(_photographs(folder, white=True), MAPPED)
    assert len(list(cache.iterdir())) == 4


def _truncate(path):
    os.truncate(path, path.stat().st_size - 7)


def _cut_pixels(path):
    path.write_bytes(path.read_bytes()[5:])


def _flip(path, *, keep_time=True):
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _empty(path):
    path.write_bytes(b"")


def _lie(path):
    path.write_bytes(b"{" * 64 + (64).to_bytes(8, "little") + decoded_cache.MAGIC)


@pytest.mark.parametrize("damage", [_truncate, _cut_pixels, _flip, lambda p: _flip(p, keep_time=False), _empty, _lie])
def test_damaged_files_are_noticed_and_made_again(damage, tmp_path, cache, caplog):
    photographs = _photographs(_write(tmp_path / "images"))
    del_me = storage.load(photographs, MAPPED)
    del del_me
    (path,) = cache.iterdir()
    damage(path)
    _same(storage.load(photographs, MAPPED), storage.in_memory(photographs))
    assert "decoded again" in caplog.text
    assert list(cache.iterdir()) == [path]


def test_the_files_used_longest_ago_are_removed_for_others(tmp_path, cache):
    scenes = [_photographs(_write(tmp_path / f"images{i}", seed=i)) for i in range(3)]
    limits = Limits(0, 2 * (N * H * W * 3 + 400))
    for each in scenes[:2]:
        storage.load(each, limits)
    first, second = (cache / f"{each.key()}.pixels" for each in scenes[:2])
    for path, age in ((first, 100), (second, 200)):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns - age * 10**9, status.st_mtime_ns))
    storage.load(scenes[2], limits)
    assert (first.exists(), second.exists()) == (True, False)
    assert sum(path.stat().st_size for path in cache.iterdir()) <= limits.cached


def test_photographs_in_use_are_not_removed_for_others(tmp_path, cache, caplog):
    scenes = [_photographs(_write(tmp_path / f"images{i}", seed=i)) for i in range(2)]
    limits = Limits(0, N * H * W * 3 + 400)
    kept = storage.load(scenes[0], limits)
    caplog.set_level("INFO")
    assert torch.equal(storage.load(scenes[1], limits), storage.in_memory(scenes[1]))
    assert "beside files in use" in caplog.text
    _same(kept, storage.in_memory(scenes[0]))
    assert [path.name for path in cache.iterdir()] == [f"{scenes[0].key()}.pixels"]


def test_nothing_is_removed_for_photographs_that_do_not_fit_anyway(tmp_path, cache):
    scenes = [_photographs(_write(tmp_path / f"images{i}", seed=i)) for i in range(3)]
    limits = Limits(0, 2 * (N * H * W * 3 + 400))
    storage.load(scenes[0], limits)
    kept = storage.load(scenes[1], limits)
    assert not decoded_cache.make_room(cache, N * H * W * 3 // 2)
    assert len(list(cache.iterdir())) == 2
    _same(kept, storage.in_memory(scenes[1]))


def test_one_of_several_processes_decodes_the_photographs(tmp_path, cache):
    folder = _write(tmp_path / "images")
    context = get_context("fork")
    told, opened = context.Queue(), context.Event()

    def load():
        write = decoded_cache._write

        def counted(*arguments):
            told.put("wrote")
            opened.wait(20)
            write(*arguments)

        decoded_cache._write = counted
        told.put(int(storage.load(_photographs(folder), MAPPED)[0].sum()))

    processes = [context.Process(target=load) for _ in range(3)]
    for each in processes:
        each.start()
    assert told.get(timeout=30) == "wrote"
    time.sleep(0.3)  # the others wait for the lock now, or come later
    opened.set()
    assert [told.get(timeout=30) for _ in range(3)] == [int(storage.in_memory(_photographs(folder))[0].sum())] * 3
    for each in processes:
        each.join(30)


def test_a_file_that_another_process_replaces_meanwhile_stays(tmp_path, cache, monkeypatch):
    photographs = _photographs(_write(tmp_path / "images"))
    storage.load(photographs, MAPPED)
    (path,) = cache.iterdir()
    verify, other = decoded_cache._verify, path.read_bytes()
    replaced = []

    def replacing(*arguments):
        verify(*arguments)
        (tmp_path / "other").write_bytes(other)
        time = path.stat().st_mtime_ns + 2 * 10**9
        os.utime(tmp_path / "other", ns=(time, time))
        os.replace(tmp_path / "other", path)
        replaced.append(time)

    monkeypatch.setattr(decoded_cache, "_verify", replacing)
    _same(storage.load(photographs, MAPPED), storage.in_memory(photographs))
    assert path.stat().st_mtime_ns == replaced[0]


def test_photographs_beyond_the_bound_are_in_memory_or_decoded_on_demand(tmp_path, cache, monkeypatch, caplog):
    photographs = _photographs(_write(tmp_path / "images"))
    small = Limits(0, N * H * W * 3 - 1)
    assert isinstance(storage.load(photographs, small), torch.Tensor)
    monkeypatch.setattr("enerf.core.files.available_memory", lambda: 2 * N * H * W * 3)
    found = storage.load(photographs, small)
    assert isinstance(found, OnDemandImages)
    assert "--cache_gb" in caplog.text
    assert not cache.exists()


@pytest.mark.parametrize("fails", ["free", "write"])
def test_a_full_disk_is_one_sentence_and_nothing_stays(fails, tmp_path, cache, monkeypatch, caplog):
    caplog.set_level("INFO")
    photographs = _photographs(_write(tmp_path / "images"))
    if fails == "free":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda _: usage._replace(free=100))
    else:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(decoded_cache.os, "replace", full)
    found = storage.load(photographs, MAPPED)
    assert torch.equal(found, storage.in_memory(photographs))
    said = [record.message for record in caplog.records if "kept in memory" in record.message]
    assert len(said) == 1
    assert ("free" if fails == "free" else "No space left on device") in said[0]
    assert list(cache.iterdir()) == []


def test_an_interrupted_decoding_leaves_no_file(tmp_path, cache):
    folder = _write(tmp_path / "images")
    photographs = _photographs(folder)
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(Exception, match=r"3\.png"):
        storage.load(photographs, MAPPED)
    assert list(cache.iterdir()) == []


def test_a_file_larger_than_the_memory_is_mapped(tmp_path):
    total = 1 << 40
    (tmp_path / "sparse").touch()
    try:
        os.truncate(tmp_path / "sparse", total)
    except OSError:
        pytest.skip("this file system has no sparse files of that size")
    with (tmp_path / "sparse").open("rb") as file:
        found = decoded_cache._mapped(file, (total // 4, 4), "uint8")
    assert found[-1].tolist() == [0, 0, 0, 0]
