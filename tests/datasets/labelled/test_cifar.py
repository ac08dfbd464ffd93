"""Tests of CIFAR's files: both formats and their archives give the same bytes; no code in them is executed."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from enerf.datasets.labelled import load, safe_pickle, synthetic
from tests.contents import refusal


def _refused(path, **options):
    return refusal(load.load, path, **options)


@pytest.fixture
def binary(tmp_path):
    return synthetic.write_cifar(tmp_path / "cifar-10-batches-bin", 25, 7)


def _rows(path, before=1):
    rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, before + 3072)
    return rows[:, before:], rows[:, before - 1].tolist()


def _as_pickles(binary, folder, protocol):
    folder.mkdir(parents=True)
    for path in binary.glob("*.bin"):
        data, labels = _rows(path)
        contents = {"batch_label": path.stem, "labels": labels, "data": np.array(data), "filenames": ["a.png"]}
        (folder / path.stem).write_bytes(pickle.dumps(contents, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in synthetic.CLASSES]}))
    return folder


def _old_pickle(rows, labels):
    """As Python 2 wrote it: text without a coding, numpy under its old name."""

    def text(value):
        return b"T" + len(value).to_bytes(4, "little") + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(M"
        + len(rows).to_bytes(2, "little")
        + b"M\x00\x0ctcnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + text(rows.tobytes())
        + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def _same(one, other):
    assert one.classes == other.classes
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_binary_files_hold_what_was_written_to_the_byte(binary):
    read, made = load.load(binary), synthetic.figures(25, 32, 3, seed=0)
    assert torch.equal(read.train.images, made.images)
    assert torch.equal(read.train.labels, made.labels)
    assert (read.channels, read.size, read.classes, read.note) == (3, 32, synthetic.CLASSES, "")
    assert read.name == "cifar-10-batches-bin"
    _same(read, load.load(binary.parent))  # the folder that it lies in


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_pickled_form_is_the_binary_form(binary, tmp_path, protocol):
    _same(load.load(_as_pickles(binary, tmp_path / "python", protocol)), load.load(binary))


def test_files_that_python_2_wrote_are_read(binary, tmp_path):
    folder = _as_pickles(binary, tmp_path / "python", 2)
    for path in binary.glob("*.bin"):
        (folder / path.stem).write_bytes(_old_pickle(*_rows(path)))
    _same(load.load(folder), load.load(binary))


@pytest.mark.parametrize(("suffix", "mode"), [(".tar.gz", "w:gz"), (".tar", "w"), (".tar.xz", "w:xz")])
def test_archives_hold_what_their_folder_holds(binary, tmp_path, suffix, mode):
    with tarfile.open(tmp_path / f"cifar-10-binary{suffix}", mode) as archive:
        archive.add(binary, binary.name)
    read = load.load(tmp_path / f"cifar-10-binary{suffix}")
    _same(read, load.load(binary))
    assert read.name == "cifar-10-batches-bin"


@pytest.mark.parametrize("form", ["binary", "python"])
def test_of_cifar_100_the_fine_labels_are_taken(tmp_path, form):
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (6, 3072), np.uint8)
    coarse, fine = [1, 2, 3, 4, 5, 6], [0, 99, 50, 7, 7, 98]
    for name in ("train", "test"):
        if form == "binary":
            (tmp_path / f"{name}.bin").write_bytes(np.c_[np.array([coarse, fine], np.uint8).T, rows])
        else:
            contents = {b"data": rows, b"coarse_labels": coarse, b"fine_labels": fine}
            (tmp_path / name).write_bytes(pickle.dumps(contents))
    if form == "python":
        (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]}))
    read = load.load(tmp_path)
    assert read.train.labels.tolist() == fine
    assert np.array_equal(read.test.images.flatten(1), rows)
    assert read.classes[7] == ("7" if form == "binary" else "class 7")


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_a_command_is_refused_and_nothing_runs(binary, tmp_path):
    folder = _as_pickles(binary, tmp_path / "python", 2)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": _Evil(tmp_path / "ran")}))
    words = _refused(folder)
    assert "data_batch_3" in words
    assert "system" in words
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(U\x011tR.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tU\x01btR.",
        b"cnumpy\ndtype\n(U\x01OK\x00K\x01tR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00bz2tR.",
        b"c_codecs\nencode\n(N}X\x03\x00\x00\x00runNstb.",
        b"Pwhat\n.",
        b"\x80\x02}",
        b"",
        b"]." * 3,
        b"hello",
    ],
)
def test_pickles_of_anything_but_arrays_are_refused_in_words(program):
    with pytest.raises(ValueError, match=r"\w"):
        safe_pickle.read(program)


def test_arrays_of_any_order_and_kind_of_number_come_out_of_pickles():
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array([1], ">i4")):
        for protocol in (2, 3, 4, 5):
            assert np.array_equal(safe_pickle.read(pickle.dumps({"a": array}, protocol))["a"], array)


def test_a_label_out_of_range_is_named_with_its_file_and_row(binary):
    path = binary / "data_batch_2.bin"
    data = bytearray(path.read_bytes())
    data[2 * 3073] = 10
    path.write_bytes(data)
    assert "data_batch_2.bin: row 2 has the label 10, expected 0 to 9" in _refused(binary)


def test_damage_is_one_sentence_each(binary, tmp_path):
    meta = binary / "batches.meta.txt"
    meta.write_text("cat\ndog\n")
    assert "names 2 different classes, expected 10" in _refused(binary)
    meta.unlink()
    assert load.load(binary).classes == tuple("0123456789")
    (binary / "data_batch_5.bin").write_bytes(b"\0" * 3000)
    assert "has 3,000 bytes, expected rows of 3,073" in _refused(binary)
    (binary / "data_batch_5.bin").unlink()
    assert "lacks data_batch_5.bin" in _refused(binary)
    assert "--image_size only for folders" in _refused(synthetic.write_cifar(tmp_path / "b", 5, 5), image_size=8)


def test_pickles_that_end_too_soon_or_hold_something_else_are_one_sentence(binary, tmp_path):
    folder = _as_pickles(binary, tmp_path / "python", 4)
    path = folder / "test_batch"
    whole = path.read_bytes()
    contents = pickle.loads(whole)
    path.write_bytes(whole[:1000])
    assert "test_batch cannot be read" in _refused(folder)
    for change, words in (
        ({"data": contents["data"][:3]}, "3 images and 7 labels"),
        ({"data": [1, 2]}, "no rows of 3072 bytes"),
        ({"labels": ["a"]}, "no list of numbers"),
        ({"labels": [11] * 7}, "row 0 has the label 11"),
    ):
        path.write_bytes(pickle.dumps({**contents, **change}))
        assert words in _refused(folder)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_members_that_would_lie_outside_of_an_archive_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    assert "expected names without '..'" in _refused(tmp_path / "a.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_that_ends_too_soon_is_one_sentence_wherever(binary, tmp_path, mode):
    path = tmp_path / "cifar.tar"
    with tarfile.open(path, mode) as archive:
        archive.add(binary, "cifar")
    whole = path.read_bytes()
    for cut in (0, 10, 600, 1536, len(whole) // 2 // 512 * 512, len(whole) * 3 // 4, len(whole) - 11000):
        path.write_bytes(whole[:cut])
        assert "cifar.tar" in _refused(path)


def test_damage_in_the_middle_of_an_archive_is_noticed(binary, tmp_path):
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(binary, "cifar")
    whole = bytearray(path.read_bytes())
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 8):
        data = bytearray(whole)
        data[place] ^= 255
        path.write_bytes(data)
        assert "cifar.tar.gz" in _refused(path)


def test_what_is_not_recognised_is_listed_beside_what_is_expected(tmp_path):
    assert "does not exist" in _refused(tmp_path / "none")
    assert "holds nothing" in _refused(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    words = _refused(tmp_path)
    assert "notes.txt" in words
    assert "train-images-idx3-ubyte" in words
    assert "is no archive" in _refused(tmp_path / "notes.txt")
    for name in ("a", "b"):
        synthetic.write_cifar(tmp_path / name, 5, 5)
    assert "holds 2 data sets (a/, b/), expected one" in _refused(tmp_path)
