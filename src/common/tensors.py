"""Tensors on disk: safetensors files that carry a checksum of their content.

The bytes depend on the content alone. There is one metadata key because safetensors writes
two or more in a random order (safetensors issue 584).
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from src.common import files


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


def read(path: str, framework: str = "np", verify: bool = True) -> dict[str, Any]:
    """Read what `write` wrote.

    Args:
        path: the file.
        framework: "np" for NumPy arrays, which are copied; "pt" for torch tensors on the CPU,
            which are views of the memory-mapped file.
        verify: compare the checksum, for which the whole file is read.

    Raises:
        OSError: the file is missing, may not be read, or is damaged.
    """
    with _opened(path, framework) as file:
        try:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            arrays = {name: np.asarray(tensor) for name, tensor in found.items()}
        except (TypeError, AttributeError) as error:  # a type that NumPy does not have
            raise ValueError(error) from error
        if verify and checksum(arrays) != (file.metadata() or {}).get("crc32"):
            raise ValueError("its checksum differs")
        return found


def recorded_checksum(path: str) -> str:
    """Return the checksum that `write` put into a file; raises as `read`."""
    with _opened(path, "np") as file:
        return str((file.metadata() or {})["crc32"])


@contextmanager
def _opened(path: str, framework: str) -> Iterator[Any]:
    with files.reading(path):
        try:
            with safe_open(path, framework=framework) as file:
                yield file
        except SafetensorError as error:
            raise ValueError(error) from error
