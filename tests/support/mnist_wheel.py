"""Builds a wheel like the one on PyPI: a Python 2 pickle of three pairs of arrays, written by hand.

Python 3 cannot write such pickles, and the tests need broken and hostile ones.
"""

import gzip
import hashlib
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.sources import wheel


def pickled_text(text: bytes) -> bytes:
    """Return the opcodes of a Python 2 `str`."""
    return b"T" + struct.pack("<i", len(text)) + text


def pickled_array(array: np.ndarray, is_fortran: bool = False) -> bytes:
    """Return the opcodes that NumPy under Python 2 wrote for an array."""
    order, code = array.dtype.newbyteorder("=").str[0], array.dtype.str[1:].encode()
    order = b">" if array.dtype.str[0] == ">" else b"<"
    shape = b"(" + b"".join(b"J" + struct.pack("<i", size) for size in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\n(" + pickled_text(code) + b"K\x00K\x01tR"
    dtype += b"(K\x03" + pickled_text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t"
    empty += pickled_text(b"b") + b"tR"
    data = array.tobytes("F" if is_fortran else "C")
    state = shape + dtype + (b"I01\n" if is_fortran else b"I00\n") + pickled_text(data)
    return empty + b"(K\x01" + state + b"tb"


def pickled_data(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Return the pickle of three (images, labels) pairs, float32 (N, 784) / 256 and int64 (N,)."""
    pairs = b""
    for rows in np.array_split(np.arange(len(labels)), 3):
        pixels = images[rows].astype("<f4") / np.float32(256)
        pairs += b"(" + pickled_array(pixels) + pickled_array(labels[rows].astype("<i8")) + b"t"
    return b"(" + pairs + b"t."


def put_wheel(home: Path, pickled: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep a wheel with this pickle where the real one is kept, and pin its hash."""
    path = home / "pypi" / wheel.WHEEL
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(wheel.MEMBER, gzip.compress(pickled, compresslevel=1))
    monkeypatch.setattr(wheel, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path
