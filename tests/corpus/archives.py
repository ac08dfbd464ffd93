"""idx files and archives of labelled images: bombs, names that lead out, damaged headers and streams."""

import gzip
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.corpus.damage import (
    cut,
    flipped,
    gzipped,
    sparse_header,
    tar_header,
    tarred,
    with_checksum,
    zip_bomb,
    zipped,
)
from tests.corpus.inputs import base, classifier, copied, special_file
from tests.corpus.registry import Command, table

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def _idx(n: int, height: int, width: int, body: bytes, magic: tuple[int, ...] = (0, 0, 8, 3)) -> bytes:
    return struct.pack(">4B3I", *magic, n, height, width) + body


IDX = {
    "2e32": _idx(2**32 - 1, 28, 28, b""),
    "1e9": _idx(10**6, 1000, 1, b""),
    "gib": _idx(1 << 20, 28, 28, b""),
    "zero": _idx(0, 28, 28, b""),
    "zero_side": _idx(20, 0, 0, b""),
    "not_square": _idx(20, 28, 27, bytes(20 * 28 * 27)),
    "short": _idx(20, 28, 28, bytes(100)),
    "long": _idx(20, 28, 28, bytes(20 * 784 + 1)),
    "magic": _idx(20, 28, 28, bytes(20 * 784), (0, 0, 9, 3)),
    "header_cut": b"\0\0\x08\x03\0\0",
    "count_differs": _idx(19, 28, 28, bytes(19 * 784)),
    "1x1": _idx(20, 1, 1, bytes(20)),
}


@table("idx", IDX)
def _(folder: Path, raw: bytes) -> Command:
    images = copied("idx", folder)
    (images / IMAGES).write_bytes(gzip.compress(raw))
    return classifier(folder, images)


@table("idx_plain", IDX)
def _(folder: Path, raw: bytes) -> Command:
    images = copied("idx", folder)
    (images / IMAGES).unlink()
    (images / IMAGES.removesuffix(".gz")).write_bytes(raw)
    return classifier(folder, images)


def _bomb(whole: bytes) -> bytes:
    return gzipped(_idx(20, 28, 28, b""), *[bytes(1 << 24)] * 64)


IDX_GZ = {
    "not_gz": ("refuse", lambda whole: b"hello"),
    "cut": ("refuse", lambda whole: whole[:-100]),
    "crc": ("refuse", lambda whole: whole[:-6] + b"\xff\xff" + whole[-4:]),
    "bomb": ("refuse", _bomb),
    "claims_1GiB": ("refuse", lambda whole: gzip.compress(_idx(1 << 20, 32, 32, bytes(1000)))),
    "trailing": lambda whole: whole + b"trailing bytes",
    "empty": ("refuse", lambda whole: b""),
    "twice": ("refuse", lambda whole: whole * 2),
    "plain": ("refuse", gzip.decompress),
    "xz": ("refuse", lambda whole: lzma.compress(gzip.decompress(whole))),
    **{f"flip{i}": (lambda whole, i=i: flipped(whole, i, 2)) for i in range(6)},
}


@table("idx_gz", IDX_GZ)
def _(folder: Path, change: Callable[[bytes], bytes]) -> Command:
    images = copied("idx", folder)
    (images / IMAGES).write_bytes(change((images / IMAGES).read_bytes()))
    return classifier(folder, images)


@table("idx_labels", {"255": [255] * 20, "gap": [0, 1, 2, 4] * 5, "few": [0, 1, 2], "one_class": [0] * 20})
def _(folder: Path, labels: list[int]) -> Command:
    images = copied("idx", folder)
    raw = struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + bytes(labels)
    (images / LABELS).write_bytes(gzip.compress(raw))
    return classifier(folder, images)


def _cifar() -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted(base("cifar_bin").iterdir())]


def _encrypted(archive: bytes) -> bytes:
    """The archive with the mark of an encrypted member in its directory."""
    start = b"PK\x01\x02\x14\x03\x14\x00"
    return archive.replace(start + b"\0\0", start + b"\x01\0")


def _gz(parts: list[bytes | bytearray]) -> bytes:
    return gzipped(*parts)


ARCH = {
    "dotdot": ("refuse", lambda: tarred([("../../evil", b"x"), *_cifar()])),
    "absolute": ("refuse", lambda: tarred([("/nonexistent/enerf-executed", b"x"), *_cifar()])),
    "backslash": ("refuse", lambda: tarred([("..\\evil", b"x"), *_cifar()])),
    "drive": ("refuse", lambda: tarred([("C:evil", b"x"), *_cifar()])),
    "symlink": lambda: tarred([("link", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), *_cifar()]),
    "hardlink": lambda: tarred([("link", b"", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}), *_cifar()]),
    "device": lambda: tarred([("dev", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}), *_cifar()]),
    "fifo": lambda: tarred([("p", b"", {"type": tarfile.FIFOTYPE}), *_cifar()]),
    "data_is_link": (
        "refuse",
        lambda: tarred(
            [
                ("test_batch.bin", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
                *[c for c in _cifar() if c[0] != "test_batch.bin"],
            ]
        ),
    ),
    "dup_members": lambda: tarred([*_cifar(), *_cifar()]),
    "zip": ("accept", lambda: zipped(dict(_cifar()))),
    "zip_dotdot": ("refuse", lambda: zipped({"../x": b"", **dict(_cifar())})),
    "xz": ("accept", lambda: tarred(_cifar(), "w:xz")),
    "bz2": ("accept", lambda: tarred(_cifar(), "w:bz2")),
    "plain": ("accept", lambda: tarred(_cifar(), "w")),
    "nested_tar": ("refuse", lambda: tarred([("a.tar", tarred(_cifar(), "w"))])),
    "empty": ("refuse", lambda: b""),
    "empty_tar": ("refuse", lambda: tarred([])),
    "empty_zip": ("refuse", lambda: zipped({})),
    "text": ("refuse", lambda: b"hello"),
    "cut": ("refuse", lambda: tarred(_cifar())[:-500]),
    "cut_plain": ("refuse", lambda: tarred(_cifar(), "w")[:20000]),
    "size_2e40": ("refuse", lambda: _gz([tar_header(b"data_batch_1.bin", 2**40, b"0"), bytes(512)])),
    "size_neg": (
        "refuse",
        lambda: _gz([tar_header(b"x", 0, b"0")[:124] + b"\xff" * 12 + tar_header(b"x", 0, b"0")[136:], bytes(1024)]),
    ),
    "longname_2.5GiB": (
        "refuse",
        lambda: _gz([tar_header(b"././@LongLink", 2684354560, b"L"), *[bytes(1 << 24)] * 160]),
    ),
    "pax_2.5GiB": ("refuse", lambda: _gz([tar_header(b"p", 2684354560, b"x"), *[bytes(1 << 24)] * 160])),
    "longname_chain": (
        "refuse",
        lambda: _gz([*([tar_header(b"././@LongLink", 512, b"L") + b"a" * 511 + b"\0"] * 3000), bytes(1024)]),
    ),
    "pax_bad": (
        "refuse",
        lambda: _gz([tar_header(b"p", 512, b"x") + b"999999999999 path=x\n".ljust(512, b"\0"), bytes(1024)]),
    ),
    "pax_size_text": (
        "refuse",
        lambda: _gz(
            [
                tar_header(b"p", 512, b"x") + b"16 size=abcdefg\n".ljust(512, b"\0"),
                tar_header(b"data_batch_1.bin", 0, b"0"),
                bytes(1024),
            ]
        ),
    ),
    "pax_sparse": (
        "refuse",
        lambda: _gz(
            [
                tar_header(b"p", 512, b"x") + b"24 GNU.sparse.map=a,b,c\n".ljust(512, b"\0"),
                tar_header(b"data_batch_1.bin", 0, b"0"),
                bytes(1024),
            ]
        ),
    ),
    "sparse_bomb": (
        "refuse",
        lambda: _gz([sp for i in range(9) for sp in (sparse_header(b"train/a/%d.png" % i, 1 << 30),)] + [bytes(1024)]),
    ),
    "zip_bomb_1GiB": ("refuse", lambda: zip_bomb(3)),
    "zip_badcrc": ("refuse", lambda: flipped(zipped(dict(_cifar())), 5, 3)),
    "zip_size_lie": (
        "refuse",
        lambda: zipped(dict(_cifar())).replace(struct.pack("<I", 30730), struct.pack("<I", 2**31 - 1)),
    ),
    "zip_encrypted": ("refuse", lambda: _encrypted(zipped(dict(_cifar())))),
    "gz_garbage": ("refuse", lambda: gzip.compress(b"x" * 1000)),
    "gz_cut": ("refuse", lambda: gzip.compress(b"x" * 100000)[:50]),
    "gz_multi": lambda: gzip.compress(tarred(_cifar(), "w")[:10240]) + gzip.compress(tarred(_cifar(), "w")[10240:]),
    "xz_bad": ("refuse", lambda: flipped(tarred(_cifar(), "w:xz"), 1, 5)),
    "xz_bigdict": ("refuse", lambda: b"\xfd7zXZ\0\0\4\xe6\xd6\xb4F" + bytes(100)),
    "names_1e5": lambda: tarred([*_cifar(), *((f"d{i}/x", b"") for i in range(20000))]),
    "deep_name": lambda: tarred([*_cifar(), ("a/" * 5000 + "x", b"")]),
    "surrogate_name": lambda: tarred([*_cifar(), ("a\udcff", b"x")]),
    "newline_name": ("refuse", lambda: tarred([("a\nerror: b", b"x")])),
    "macos": ("accept", lambda: tarred([("._data_batch_1.bin", b"x"), (".DS_Store", b"x"), *_cifar()])),
    **{f"flip_tar{i}": (lambda i=i: flipped(tarred(_cifar(), "w"), i, 20)) for i in range(4)},
    **{f"flip_gz{i}": (lambda i=i: flipped(tarred(_cifar()), i, 2)) for i in range(4)},
    **{
        f"flip_zip{i}": (lambda i=i: flipped(zipped(dict(_cifar()), compression=zipfile.ZIP_DEFLATED), i, 4))
        for i in range(6)
    },
}
MORE_ARCH = {
    "longlink_1MiB": ("refuse", lambda: _gz([tar_header(b"././@LongLink", 1 << 20, b"K"), bytes(1 << 20)])),
    "longname_4095": lambda: tarred([*_cifar(), ("a/" * 2047, b"x")]),
    "pax_global_bomb": ("refuse", lambda: _gz([tar_header(b"g", 1 << 30, b"g"), *[bytes(1 << 24)] * 4])),
    "pax_xattr": lambda: tarred([(name, data, {"pax_headers": {"comment": "x" * 999}}) for name, data in _cifar()]),
    "member_1GiB": ("refuse", lambda: _gz([tar_header(b"data_batch_1.bin", 1 << 30, b"0"), *[bytes(1 << 24)] * 64])),
    "member_many": (
        "refuse",
        lambda: _gz([tar_header(b"a%d.bin" % (i % 9), 1 << 24, b"0") + bytes(1 << 24) for i in range(20)]),
    ),
    "zip_ratio": ("refuse", lambda: zip_bomb(1)),
    "zip_inside": ("refuse", lambda: zipped({"a.zip": zip_bomb(1)})),
    "zip_prefix": lambda: b"#!/bin/sh\n" + zipped(dict(_cifar())),
    "zip_trailing": lambda: zipped(dict(_cifar())) + bytes(100),
    "zip_lzma": ("accept", lambda: zipped(dict(_cifar()), compression=zipfile.ZIP_LZMA)),
    "zip_names_1e5": lambda: zipped({**dict(_cifar()), **{f"d{i}/x": b"" for i in range(20000)}}),
    "zip_absolute": ("refuse", lambda: zipped({"/nonexistent/x": b"", **dict(_cifar())})),
    "zip_nul": lambda: zipped({"a\0b": b"", **dict(_cifar())}),
    "rar": ("refuse", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(500)),
    "7z": ("refuse", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(500)),
    "zstd": ("refuse", lambda: b"\x28\xb5\x2f\xfd" + bytes(500)),
    "html": ("refuse", lambda: b"<!DOCTYPE html>" + b" " * 1000),
    "git_lfs_pointer": ("refuse", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    "root_folder": ("accept", lambda: tarred([("cifar-10-batches-bin/" + name, data) for name, data in _cifar()])),
    "two_roots": ("refuse", lambda: tarred([(f"{top}/{name}", data) for top in "ab" for name, data in _cifar()])),
    "cut_half": ("refuse", lambda: cut(tarred(_cifar()), 1, 2)),
    "checksum_wrong": (
        "refuse",
        lambda: _gz([with_checksum(tar_header(b"x", 0, b"0"))[:148] + b"0000000\0" + bytes(356)]),
    ),
    **{f"flip_xz{i}": (lambda i=i: flipped(tarred(_cifar(), "w:xz"), i, 2)) for i in range(3)},
    **{f"flip_bz{i}": (lambda i=i: flipped(tarred(_cifar(), "w:bz2"), i, 2)) for i in range(3)},
}


@table("archive", ARCH | MORE_ARCH)
def _(folder: Path, make: Callable[[], bytes]) -> Command:
    (folder / "a.tar.gz").write_bytes(make())
    return classifier(folder, folder / "a.tar.gz")


PLACES = {
    "cifar_bin": ("cifar_bin", "data_batch_1.bin"),
    "cifar_py": ("cifar_py", "data_batch_1"),
    "idx": ("idx", IMAGES),
    "idx_labels": ("idx", LABELS),
}
SPECIAL = {f"{place}_{kind}": (place, kind) for place in (*PLACES, "archive") for kind in ("fifo", "devzero", "loop")}
SPECIAL |= {f"{place}_{kind}": (place, kind) for place in PLACES for kind in ("folder", "dangling", "empty")}


@table("labelled_file", {name: ("refuse", [*chosen]) for name, chosen in SPECIAL.items()})
def _(folder: Path, chosen: list[str]) -> Command:
    place, kind = chosen
    if place == "archive":
        special_file(folder / "a.tar", kind)
        return classifier(folder, folder / "a.tar")
    images = copied(PLACES[place][0], folder)
    (images / PLACES[place][1]).unlink()
    special_file(images / PLACES[place][1], kind)
    return classifier(folder, images)
