"""Tensors on disk: safetensors files that carry a checksum of their content.

The bytes depend on the content alone. There is one metadata key because safetensors writes
two or more in a random order (safetensors issue 584).
"""

import json
import mmap
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from src import files


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """CRC-32 over the arrays' bytes, by name: every change of up to 32 bits in a row shows."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(arrays[name].data, crc)
    return f"{crc:08x}"


def write(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays; raises as `files.replacing`."""
    # safetensors writes the raw buffer: an array in Fortran order would come back scrambled.
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    files.write(path, save(ordered, metadata={"crc32": checksum(ordered)}))


def mapped(path: str) -> dict[str, np.ndarray]:
    """Map the arrays of a file of sound form; what is written to them stays in memory."""
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    found = {}
    for name, part in header.items():
        if name != "__metadata__":
            kind, bits = part["dtype"][0], int(part["dtype"][1:])  # of F32, for one
            dtype, place = f"<{kind.lower()}{bits // 8}", start + part["data_offsets"][0]
            found[name] = np.ndarray(part["shape"], dtype, content, place)
    return found


def read(path: str, framework: str = "np", verify: bool = True) -> dict[str, Any]:
    """Read what `write` wrote: views of the memory-mapped file, of which nothing is copied.

    Args:
        path: the file.
        framework: "np" for NumPy arrays, "pt" for torch tensors on the CPU.
        verify: compare the checksum, for which the whole file is read.

    Raises:
        OSError: the file is missing, may not be read, or is damaged.
    """
    with files.reading(path), safe_open(path, framework=framework) as file:
        names = file.keys()
        # safetensors has checked the form; it would copy NumPy's arrays.
        found = mapped(path) if framework == "np" else {n: file.get_tensor(n) for n in names}
        arrays = {name: np.asarray(tensor) for name, tensor in found.items()}
        if verify and checksum(arrays) != (file.metadata() or {}).get("crc32"):
            raise ValueError("its checksum differs")
        return found


def recorded_checksum(path: str) -> str:
    """Return the checksum that `write` put into a file; raises as `read`."""
    with files.reading(path), safe_open(path, framework="np") as file:
        return str(file.metadata()["crc32"])
