"""The trained model in NumPy, for what should start without torch: report and predict."""

import numpy as np

from src import tensors


def load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read weight (10, 784) and bias (10,) as float64.

    Raises:
        OSError: the file is missing, damaged or of another form.
    """
    found = tensors.read(path, "np", weight="float32", bias="float32")
    return found["weight"].astype(np.float64), found["bias"].astype(np.float64)


def probabilities(weight: np.ndarray, bias: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Softmax of the logits: float64 (N, 10) for images (N, 784) in [0, 1]."""
    logits = images @ weight.T + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
