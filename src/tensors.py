"""Tensors on disk: safetensors files that carry a checksum of their content.

The bytes depend on the content alone. There is one metadata key because safetensors writes
two or more in a random order (safetensors issue 584).
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

# DVC takes a read-only file in its cache for sound, and so would hand out a damaged one for ever.
REMEDY = "`rm {path}; chmod -R u+w $(dvc cache dir)/files; dvc repro` restores it"


def checksum(arrays: dict[str, np.ndarray]) -> str:
    """CRC-32 over the arrays' bytes, by name: every change of up to 32 bits in a row shows."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(arrays[name], crc)
    return f"{crc:08x}"


def write(path: str, **arrays: np.ndarray) -> None:
    """Write named arrays, then read them back and compare.

    Raises:
        OSError: names the path; what stood there before still stands.
    """
    # safetensors writes the raw buffer: an array in Fortran order would come back scrambled.
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    part = Path(f"{path}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, part, metadata={"crc32": checksum(arrays)})
        written = read(str(part), "np", **{name: str(a.dtype) for name, a in arrays.items()})
        if not all(np.array_equal(arrays[name], written[name]) for name in arrays):
            raise OSError("what was written is not what is read back")
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        with suppress(OSError):  # it is there only if something failed
            part.unlink()


def read(path: str, framework: str, verify: bool = True, **dtypes: str) -> dict[str, Any]:
    """Read and check what `write` wrote.

    Args:
        path: the file.
        framework: "np" for NumPy arrays, which are copied; "pt" for torch tensors on the CPU,
            which are views of the memory-mapped file.
        verify: compare the checksum, for which the whole file is read.
        dtypes: the names that must be there, each with its dtype.

    Raises:
        OSError: the file is missing, damaged, or holds other names or dtypes.
    """
    try:
        with open(path, "rb"):  # safetensors takes a file without permission for a missing one
            pass
    except FileNotFoundError as error:
        raise OSError(f"{path} is missing; `dvc repro` makes it") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
    try:
        with safe_open(path, framework=framework) as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            pinned = (file.metadata() or {}).get("crc32")
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise OSError(f"{path} is damaged ({error}); {REMEDY.format(path=path)}") from error
    found_dtypes = {name: str(found[name].dtype).removeprefix("torch.") for name in found}
    if found_dtypes != dtypes:
        raise OSError(f"{path}: expected tensors {dtypes}, found {found_dtypes}")
    arrays = {name: np.asarray(tensor) for name, tensor in found.items()}
    if verify and checksum(arrays) != pinned:
        raise OSError(f"{path} is damaged (its checksum differs); {REMEDY.format(path=path)}")
    return found


def recorded_checksum(path: str) -> str:
    """Return the checksum that `write` put into a file that `read` has found whole."""
    with safe_open(path, framework="np") as file:
        return file.metadata()["crc32"]
