"""Labelled images, as they were fetched and as they are trained on.

Their number, size and classes are the data's own: D pixels an image, and one class more than the
largest label.
"""

import hashlib
import math
from typing import Any

import numpy as np

from src.common import files, tensors
from src.exact import grids


class WrongContentError(OSError):
    """A source answered, but with something other than the pinned data set."""


def sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """Digest of the decoded content: the images' bytes in C order, then the labels' bytes.

    Args:
        images: uint8 (N, D).
        labels: uint8 (N,).

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def check(images: np.ndarray, labels: np.ndarray, pinned: str | None = None) -> None:
    """Check the form of fetched data, and their digest if one is pinned.

    Raises:
        WrongContentError: another digest; names both.
        ValueError: they are not images uint8 (N, D) and labels uint8 (N,) from 0 on.
    """
    if pinned and (found := sha256(images, labels)) != pinned:
        raise WrongContentError(
            f"the content is not the pinned one: its sha256 is {found}, fetch.sha256 is {pinned}; "
            "for another data set set that to null"
        )
    form = [images.dtype, images.ndim, labels.dtype, labels.shape]
    if form != [np.uint8, 2, np.uint8, images.shape[:1]] or not images.size:
        raise ValueError(
            "expected images uint8 (N, D) and labels uint8 (N,), "
            f"found {images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
        )
    if labels.min():
        raise ValueError(f"expected labels from 0 on, found {labels.min()} to {labels.max()}")


def side_of(pixels: int) -> int | None:
    """Return the side of a square image of so many pixels, or None if no square has them."""
    side = math.isqrt(pixels)
    return side if side**2 == pixels else None


def write_raw(path: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a fetched data set; the same content gives the same bytes; raises as `check`."""
    check(images, labels)
    tensors.write(path, {"images": images, "labels": labels})


def read_raw(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read what `write_raw` wrote: images uint8 (N, D), labels uint8 (N,).

    Raises:
        OSError: the file is missing, may not be read, is damaged or of another form.
    """
    found = tensors.read(path)
    with files.reading(path):
        images, labels = found["images"], found["labels"]
        check(images, labels)
        return images, labels


def read(path: str, framework: str = "pt", verify: bool = True) -> tuple[Any, Any]:
    """Read the data that prepare wrote; as torch tensors they are mapped, and nothing is copied.

    Args:
        path: the file.
        framework: "pt" for torch tensors, "np" for NumPy arrays.
        verify: read it once and check its checksum and its values.

    Returns:
        images float32 (N, D), on the grid of pixels from 0 to 1; labels int64 (N,) from 0 on.

    Raises:
        OSError: the file is missing, may not be read, is damaged or of another form.
    """
    found = tensors.read(path, framework, verify)
    with files.reading(path):
        images, labels = found["images"], found["labels"]
        form = [str(part.dtype).removeprefix("torch.") for part in (images, labels)]
        if form != ["float32", "int64"] or images.ndim != 2 or labels.shape != images.shape[:1]:
            raise ValueError(f"found {form[0]} {images.shape} and {form[1]} {labels.shape}")
        if verify:
            pixels = np.asarray(images)
            for piece in np.array_split(pixels, 1 + len(pixels) // 1000):  # for the memory's sake
                grids.PIXELS.whole_steps("pixels", piece, least=0)
            if labels.min() < 0:
                raise ValueError(f"found a label of {labels.min()}")
    return images, labels
