"""The labelled images that prepare wrote, as torch tensors or NumPy arrays."""

from typing import Any

import numpy as np

from src import tensors

PIXELS = 784
CLASSES = 10


def read(path: str, framework: str = "pt", verify: bool = True) -> tuple[Any, Any]:
    """Read a data set; as torch tensors it is mapped into memory, and nothing is copied.

    Args:
        path: the file.
        framework: "pt" for torch tensors, "np" for NumPy arrays.
        verify: read it once and check its checksum and the range of its values.

    Returns:
        images float32 (N, 784) in [0, 1], labels int64 (N,) from 0 to 9, N >= 1.

    Raises:
        OSError: the file is missing, damaged or of another form.
    """
    found = tensors.read(path, framework, verify, images="float32", labels="int64")
    images, labels = found["images"], found["labels"]
    if not len(images) or images.shape != (len(labels), PIXELS) or labels.ndim != 1:
        raise OSError(
            f"{path}: expected images (N, {PIXELS}) and labels (N,), "
            f"found {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if verify:
        for name, largest in (("images", 1), ("labels", CLASSES - 1)):
            array = np.asarray(found[name])
            low, high = array.min(), array.max()
            if not (low >= 0 and high <= largest):  # also false for NaN
                raise OSError(f"{path}: {name} must lie in 0 to {largest}, found {low} to {high}")
    return images, labels
