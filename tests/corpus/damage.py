"""Files with chosen defects: flipped bits, headers that lie, bombs that unpack to gigabytes."""

import gzip
import io
import os
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from tests.corpus.inputs import EXECUTED


class Evil:
    """An object whose pickle runs a command."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {EXECUTED}",)


def flipped(data: bytes, seed: int, n: int = 3) -> bytes:
    """Return the data with ``n`` random bits flipped."""
    source, changed = random.Random(seed), bytearray(data)
    for _ in range(n):
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def zeroed(data: bytes, seed: int, n: int = 512) -> bytes:
    """Return the data with ``n`` bytes at a random place set to zero, as a lost sector leaves them."""
    start = random.Random(seed).randrange(max(1, len(data) - n))
    return data[:start] + bytes(n) + data[start + n :]


def cut(data: bytes, part: int, of: int) -> bytes:
    """Return the first ``part`` / ``of`` of the data."""
    return data[: len(data) * part // of]


def npy(header: str | bytes, version: tuple[int, int] = (1, 0), body: bytes = b"") -> bytes:
    """Return a numpy file with the given text as its header."""
    text = header.encode("latin-1") if isinstance(header, str) else header
    size = 2 if version[0] == 1 else 4
    text += b" " * (-(8 + size + len(text) + 1) % 64) + b"\n"
    length = struct.pack("<H", min(len(text), 65535)) if size == 2 else struct.pack("<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    depth: int = 8,
    kind: int = 2,
    rows: bytes = b"",
    extra: bytes = b"",
    idat: bytes | None = None,
) -> bytes:
    """Return a PNG of the declared size with the given rows, or the given compressed data."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(rows) if idat is None else idat)
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + _chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """Return a PNG chunk with 200 MiB of compressed text."""
    return _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))


def bomb_png(width: int, height: int, depth: int = 8, kind: int = 2) -> bytes:
    """Return a black PNG of that size, compressed a thousand times; the height is a multiple of 64."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[kind]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row * 64) for _ in range(height // 64)) + packer.flush()
    return png(width, height, depth, kind, idat=packed)


def encoded(mode: str, form: str, size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Return an image of noise in a mode and format of Pillow."""
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.convert("RGB").quantize(16)
    else:
        image = image.convert(mode) if mode in ("RGBA", "LA", "PA") else image.convert("RGB").convert(mode)
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def blank(form: str, size: tuple[int, int], **options: Any) -> bytes:
    """Return a black gray image of any size in a format of Pillow."""
    stream = io.BytesIO()
    Image.new("L", size).save(stream, form, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    """Return EXIF data with an orientation."""
    data = Image.Exif()
    data[274] = orientation
    return data.tobytes()


def zipped(files: Mapping[str, bytes], **options: Any) -> bytes:
    """Return a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def zip_bomb(n: int) -> bytes:
    """Return a zip archive of ``n`` files of almost 1 GiB of zeros each."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i in range(n):
            with archive.open(f"data_batch_{i + 1}.bin", "w", force_zip64=True) as file:
                for _ in range(60):
                    file.write(bytes(1 << 24))
    return stream.getvalue()


def tarred(entries: Iterable[tuple[Any, ...]], mode: str = "w:gz") -> bytes:
    """Return a tar archive of names, bytes and optionally attributes of the header."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data, *more in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in (more[0] if more else {}).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tar_header(name: bytes, size: int, kind: bytes) -> bytearray:
    """Return one header block of a tar archive."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block[136:148], block[156:157], block[257:265] = b"00000000000\0", kind, b"ustar\x0000"
    return with_checksum(block)


def sparse_header(name: bytes, real: int) -> bytearray:
    """Return the header of a sparse member of GNU tar, which holds nothing and claims ``real`` bytes."""
    block = tar_header(name, 0, b"S")
    block[386:398], block[398:410], block[483:495] = b"%011o\0" % 0, b"%011o\0" % 0, b"%011o\0" % real
    return with_checksum(block)


def with_checksum(block: bytearray) -> bytearray:
    """Return a tar header with its checksum."""
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def gzipped(*parts: bytes | bytearray) -> bytes:
    """Return the gzip stream of the concatenated parts."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)
    return stream.getvalue()
