"""CIFAR's files: pickles that run commands or ask for gigabytes, binary files of the wrong length."""

import pickle
import struct
from pathlib import Path

import numpy as np

from tests.corpus.damage import Evil, cut, flipped
from tests.corpus.inputs import classifier, copied
from tests.corpus.registry import Command, table

PICK = {
    "evil": ("refuse", pickle.dumps(Evil())),
    "evil_nested": ("refuse", pickle.dumps({b"data": Evil(), b"labels": []}, 2)),
    "memo_2e28": ("refuse", b"\x80\x02}r" + struct.pack("<I", 2**28) + b"."),
    "memo_2e31": ("refuse", b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."),
    "binbytes8_2e62": ("refuse", b"\x80\x04\x8e" + struct.pack("<Q", 2**62)),
    "bytearray8": ("refuse", b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"x."),
    "frame_2e62": ("refuse", b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}."),
    "long4": ("refuse", b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"."),
    "deep_list": ("refuse", b"\x80\x02" + b"]" * 10 + b"(" * 1000000 + b"."),
    "deep_tuple": ("refuse", b"\x80\x02)" + b"\x85" * 1000000 + b"."),
    "persid": ("refuse", b"Pabc\n."),
    "ext": ("refuse", b"\x80\x02\x82\x01."),
    "inst_os": ("refuse", b"(S'touch enerf-executed'\nios\nsystem\n."),
    "getattr": ("refuse", b"c__builtin__\ngetattr\n(c__builtin__\n__import__\nS'x'\ntR."),
    "class_getattr": ("refuse", b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.__new__\x93."),
    "dtype_eval": ("refuse", b"\x80\x02cnumpy\ndtype\nX\x05\x00\x00\x00O8,O8\x85R."),
    "dtype_bomb": ("refuse", b"\x80\x02cnumpy\ndtype\nX\x0f\x00\x00\x00(2147483647,)f8\x85R."),
    "frombuffer": (
        "refuse",
        b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(C\x04abcdcnumpy\ndtype\nX\x02\x00\x00\x00u1\x85RK\x04X\x01\x00\x00\x00CtR.",
    ),
    "state_fn": ("refuse", b"\x80\x02c_codecs\nencode\n}b."),
    "no_data": ("refuse", pickle.dumps({b"labels": [1]}, 2)),
    "data_float": ("refuse", pickle.dumps({b"data": np.zeros((10, 3072)), b"labels": list(range(10))}, 2)),
    "labels_neg": ("refuse", pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [-1] * 10}, 2)),
    "labels_true": pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": [True] * 10}, 2),
    "labels_array2d": (
        "refuse",
        pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": np.zeros((10, 1), int)}, 2),
    ),
    "labels_huge": ("refuse", pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [10**50, 0]}, 2)),
    "list": ("refuse", pickle.dumps([1], 2)),
    "text": ("refuse", b"hello"),
    "empty": ("refuse", b""),
    "set_key": ("refuse", pickle.dumps({(1, 2): 3}, 2)),
    "surrogate_key": ("refuse", pickle.dumps({b"data": 1, "\ud800": 2}, 2)),
}


def _nested_tuples(depth: int) -> bytes:
    """A dict whose key is a tuple of two references to a tuple of two references to ..., whose hash never ends."""
    operations = b"\x80\x02})q\x00"
    for i in range(depth):
        operations += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return operations + b"K\x01s."


def _cifar(rows: int = 10) -> bytes:
    return pickle.dumps({b"data": np.zeros((rows, 3072), np.uint8), b"labels": [i % 10 for i in range(rows)]}, 2)


MORE_PICK = {
    "nested_tuples": ("refuse", _nested_tuples(60)),
    "dup": ("refuse", b"\x80\x02}K\x012s."),
    "long_label": (
        "refuse",
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10**4400]}, 2),
    ),
    "protocol_0": ("accept", pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": list(range(10))}, 0)),
    "protocol_4": ("accept", pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": list(range(10))}, 4)),
    "protocol_5": ("accept", pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": list(range(10))}, 5)),
    "labels_array": ("accept", pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": np.arange(10)}, 2)),
    "text_keys": ("accept", pickle.dumps({"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}, 2)),
    "labels_missing_one": ("refuse", _cifar()[:-2] + b"."),
    "data_3071": ("refuse", pickle.dumps({b"data": np.zeros((10, 3071), np.uint8), b"labels": list(range(10))}, 2)),
    "data_object": ("refuse", pickle.dumps({b"data": np.array([None] * 10), b"labels": list(range(10))}, 2)),
    "set": ("refuse", pickle.dumps({b"data": {1, 2}, b"labels": []}, 4)),
    "unicode_8_2e62": ("refuse", b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x."),
    "put_negative": ("refuse", b"}p-1\n."),
    "put_text": ("refuse", b"}pabc\n."),
    "get_missing": ("refuse", b"\x80\x02h\x07."),
    "stop_only": ("refuse", b"."),
    "proto_255": ("refuse", b"\x80\xff}."),
    **{f"cut{i}": ("refuse", cut(_cifar(), i, 8)) for i in (1, 4, 7)},
    **{f"flip{i}": flipped(_cifar(), i, 3) for i in range(8)},
}


@table("cifar_py", PICK | MORE_PICK)
def _(folder: Path, raw: bytes) -> Command:
    images = copied("cifar_py", folder)
    (images / "data_batch_3").write_bytes(raw)
    return classifier(folder, images)


CBIN = {"empty": b"", "odd": b"x" * 3074, "label_10": bytes([10]) + bytes(3072), "short": bytes(3072)}


@table("cifar_bin", CBIN, "refuse")
def _(folder: Path, raw: bytes) -> Command:
    images = copied("cifar_bin", folder)
    (images / "data_batch_3.bin").write_bytes(raw)
    return classifier(folder, images)


MISSING = {"batch": "data_batch_2.bin", "test": "test_batch.bin"}


@table("cifar_missing", MISSING, "refuse")
def _(folder: Path, name: str) -> Command:
    images = copied("cifar_bin", folder)
    (images / name).unlink()
    return classifier(folder, images)


@table("cifar_meta", {"short": b"cat\ndog\n", "binary": bytes(range(256)), "empty": b"", "huge": b"x\n" * 10**6})
def _(folder: Path, raw: bytes) -> Command:
    images = copied("cifar_bin", folder)
    (images / "batches.meta.txt").write_bytes(raw)
    return classifier(folder, images)
