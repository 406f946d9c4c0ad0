"""The digest that pins a fetched data set, whatever source it came from."""

import hashlib

import numpy as np

from src import raw


class WrongContentError(OSError):
    """The source answered, but with something other than the pinned data set."""


def sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """Digest of the decoded content: the images' bytes in C order, then the labels' bytes.

    Args:
        images: uint8 (N, 784).
        labels: uint8 (N,).

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(labels))
    return digest.hexdigest()


def check(images: np.ndarray, labels: np.ndarray, pinned: str) -> None:
    """Compare the content with the pinned digest; "None" stands for no pin.

    Raises:
        WrongContentError: with both digests.
        OSError: content that is not pinned has another form than `raw.check` wants.
    """
    found = sha256(images, labels)
    if pinned not in (found, "None"):
        raise WrongContentError(
            f"the content is not the pinned one: its sha256 is {found}, pinned is {pinned}"
        )
    raw.check(images, labels)
