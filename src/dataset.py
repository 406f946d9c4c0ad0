"""The labelled images that prepare wrote, as torch tensors."""

import torch

from src import tensors
from src.softmax_regression import CLASSES, PIXELS


def read(path: str, verify: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Map a data set into memory; nothing is copied until it is used.

    Args:
        path: the file.
        verify: read it once and check its checksum and the range of its values.

    Returns:
        images float32 (N, 784) in [0, 1], labels int64 (N,) from 0 to 9, N >= 1.

    Raises:
        OSError: the file is missing, damaged or of another form.
    """
    found = tensors.read(path, "pt", verify, images="float32", labels="int64")
    images, labels = found["images"], found["labels"]
    if not len(images) or images.shape != (len(labels), PIXELS) or labels.dim() != 1:
        raise OSError(
            f"{path}: expected images (N, {PIXELS}) and labels (N,), "
            f"found {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if not verify:
        return images, labels
    for name, tensor, largest in (("images", images, 1), ("labels", labels, CLASSES - 1)):
        low, high = (bound.item() for bound in torch.aminmax(tensor))
        if not (low >= 0 and high <= largest):  # also false for NaN
            raise OSError(f"{path}: {name} must lie in 0 to {largest}, found {low} to {high}")
    return images, labels
