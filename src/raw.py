"""The file between fetch and prepare: the decoded data set as it came, in one .npz."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

PIXELS = 784
CLASSES = 10
# DVC takes a read-only file in its cache for sound, and so would hand out a damaged one for ever.
REMEDY = "`rm {path}; chmod -R u+w $(dvc cache dir)/files; dvc repro` restores it"


def check(images: np.ndarray, labels: np.ndarray) -> None:
    """Hold arrays to the form images uint8 (N, 784), labels uint8 (N,) from 0 to 9, N >= 1.

    Raises:
        OSError: says what was expected and what was found.
    """
    rows = len(labels) if labels.ndim else 0
    found = f"images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
    if not rows or found != f"images uint8 {(rows, PIXELS)}, labels uint8 {(rows,)}":
        raise OSError(f"expected images uint8 (N, {PIXELS}) and labels uint8 (N,), found {found}")
    if labels.max() >= CLASSES:
        raise OSError(f"expected labels from 0 to {CLASSES - 1}, found {labels.max()}")


def write(path: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a data set; the same content gives the same bytes.

    Raises:
        OSError: names the path; what stood there before still stands.
    """
    part = Path(f"{path}.part")
    try:
        check(images, labels)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, images=images, labels=labels)
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it is there only if something failed
            part.unlink()


def read(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read and check what `write` wrote.

    Returns:
        images uint8 (N, 784), labels uint8 (N,).

    Raises:
        OSError: the file is missing, damaged or of another form.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            # NumPy's own reading checks a CRC-32 only where it comes to the end of a member,
            # which it does not if a flipped bit made the header longer.
            if damaged := archive.zip.testzip():
                raise OSError(f"the CRC-32 of {damaged} differs")
            images, labels = archive["images"], archive["labels"]
        check(images, labels)
    except FileNotFoundError as error:
        raise OSError(f"{path} is missing; `dvc repro` makes it") from error
    except PermissionError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # arbitrary bytes make zipfile and NumPy raise almost anything
        raise OSError(f"{path} is damaged ({error}); {REMEDY.format(path=path)}") from error
    return images, labels
