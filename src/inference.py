"""The trained model in NumPy, which needs no torch to start."""

import numpy as np

from src import tensors
from src.dataset import CLASSES, PIXELS


def load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read weight (10, 784) and bias (10,) as float64.

    Raises:
        OSError: the file is missing, damaged or of another form.
    """
    found = tensors.read(path, "np", weight="float32", bias="float32")
    weight, bias = found["weight"].astype(np.float64), found["bias"].astype(np.float64)
    if weight.shape != (CLASSES, PIXELS) or bias.shape != (CLASSES,):
        raise OSError(f"{path}: found shapes {weight.shape} and {bias.shape}")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise OSError(f"{path}: weights must be finite")
    return weight, bias


def log_probabilities(weight: np.ndarray, bias: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Log of the softmax of the logits: float64 (N, 10) for images (N, 784) in [0, 1]."""
    logits = images @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)  # no exponential overflows then
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
