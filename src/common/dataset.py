"""Labelled images and the names of their classes, as they were fetched and as they are trained on.

Their number, shape and classes are the data's own: N images of C channels, H x W pixels.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from src.common import files, tensors

MAX_CLASSES = 1000
# Prepared pixels are multiples of this from 0 to 1: src/exact adds up such numbers without error.
PIXEL_STEP = 2.0**-16


class WrongContentError(OSError):
    """A source answered, but with something other than the pinned data set."""


class Dataset(NamedTuple):
    """Labelled images, and where they come from.

    Attributes:
        images: (N, C, H, W).
        labels: (N,), places in `names`.
        names: of the classes.
        from_pictures: they were picture files, and not rows of numbers as MNIST's.
    """

    images: Any
    labels: Any
    names: tuple[str, ...]
    from_pictures: bool = False


def sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """Digest of the decoded content: the images' bytes in C order, then the labels' bytes.

    Args:
        images: uint8 (N, ...); the shape of an image does not count.
        labels: uint8 or uint16 (N,).

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def label_type(classes: int) -> type[np.unsignedinteger[Any]]:
    """Return the type of raw labels: uint8 for up to 256 classes, else uint16."""
    return np.uint8 if classes <= 256 else np.uint16


def numbers(labels: np.ndarray) -> tuple[str, ...]:
    """Name the classes of a source that has no names: 0, 1 and so on, to the largest label."""
    return tuple(map(str, range(int(labels.max()) + 1)))


def check(found: Dataset, pinned: str | None = None) -> None:
    """Check the form of fetched data, and their digest if one is pinned.

    Raises:
        WrongContentError: another digest; names both.
        ValueError: they are not images uint8 (N, C, H, W), labels uint8 or uint16 (N,) and a name
            for each class.
    """
    images, labels, names, _ = found
    if pinned and (digest := sha256(images, labels)) != pinned:
        raise WrongContentError(
            f"the content is not the pinned one: its sha256 is {digest}, "
            f"fetch.sha256 is {pinned}; for another data set set that to null"
        )
    wanted = label_type(len(names))
    form = [images.dtype, images.ndim, labels.dtype, labels.shape]
    if form != [np.uint8, 4, wanted, images.shape[:1]] or not images.size:
        raise ValueError(
            f"expected images uint8 (N, C, H, W) and labels {wanted.__name__} (N,), "
            f"found {images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
        )
    _check_names(labels, names)


def _check_names(labels: np.ndarray, names: Sequence[str]) -> None:
    if len(names) > MAX_CLASSES:
        raise ValueError(f"found {len(names):,} classes, and at most {MAX_CLASSES:,} are allowed")
    if any(name.splitlines() != [name] for name in names) or len(set(names)) < len(names):
        raise ValueError("the names of the classes must be different lines of text")
    "\n".join(names).encode()  # a file's name may be no text: a UnicodeError is a ValueError
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(
            f"found labels from {labels.min()} to {labels.max()}, and names for 0 to "
            f"{len(names) - 1}"
        )


def write(
    path: str,
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    from_pictures: bool = False,
) -> None:
    """Write prepared data, as `read` returns them; raises as `files.replacing`."""
    text = np.frombuffer("\n".join(names).encode(), np.uint8)
    content = {"images": images, "labels": labels, "names": text}
    if from_pictures:
        content["from_pictures"] = np.ones(1, np.uint8)
    tensors.write(path, content)


def write_raw(
    path: str,
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str] | None = None,
    from_pictures: bool = False,
) -> None:
    """Write a fetched data set; the same content gives the same bytes; raises as `check`.

    Without names the classes are called 0, 1 and so on.
    """
    names = numbers(labels) if names is None else tuple(names)
    check(Dataset(images, labels, names))
    write(path, images, labels, names, from_pictures)


def read_raw(path: str) -> Dataset:
    """Read what `write_raw` wrote, as NumPy arrays.

    Returns:
        A data set with images uint8; labels uint8, or uint16 for more than 256 classes.

    Raises:
        OSError: the file is missing, may not be read, is damaged or of another form.
    """
    content = tensors.read(path)
    with files.reading(path):
        found = Dataset(
            content["images"],
            content["labels"],
            _names(content["names"]),
            "from_pictures" in content,
        )
        check(found)
        return found


def read(path: str, framework: str = "pt", verify: bool = True) -> Dataset:
    """Read the data that prepare wrote; as torch tensors they are mapped, and nothing is copied.

    The values of the pixels are not checked: exact sums snap them.

    Args:
        path: the file.
        framework: "pt" for torch tensors, "np" for NumPy arrays.
        verify: read it once and check its checksum.

    Returns:
        A data set with images float32 and labels int64. N may be 0.

    Raises:
        OSError: the file is missing, may not be read, is damaged or of another form.
    """
    content = tensors.read(path, framework, verify)
    with files.reading(path):
        images, labels = content["images"], content["labels"]
        form = [str(part.dtype).removeprefix("torch.") for part in (images, labels)]
        if form != ["float32", "int64"] or images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                "expected images float32 (N, C, H, W) and labels int64 (N,), "
                f"found {form[0]} {tuple(images.shape)} and {form[1]} {tuple(labels.shape)}"
            )
        names = _names(content["names"])
        if verify:
            _check_names(np.asarray(labels), names)
        return Dataset(images, labels, names, "from_pictures" in content)


def _names(text: Any) -> tuple[str, ...]:
    """Return the names that are a tensor of UTF-8 bytes."""
    array = np.asarray(text)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"expected names uint8 (B,), found {array.dtype} {array.shape}")
    return tuple(array.tobytes().decode().split("\n"))
