"""The model: softmax regression, logits = images @ weight.T + bias.

Weight and bias are kept as one tensor, `parameters` (10, 785): the bias is the weight of a
constant input of 1, its last column.
"""

import numpy as np
import torch

from src import inference, tensors
from src.dataset import CLASSES, PIXELS

# Weights are saved on this grid, which removes what the order of additions leaves in the last
# bits of a float64: that noise is about 1e-14, and the grid's steps are 1.5e-5.
GRID = 2.0**-16


def to_grid(parameters: torch.Tensor) -> torch.Tensor:
    """Round to multiples of GRID, ties to even."""
    # + 0.0 turns -0.0 into 0.0: a sum of zeros has either sign, depending on who adds.
    return torch.round(parameters / GRID) * GRID + 0.0


def start(init: str, seed: int) -> torch.Tensor:
    """Draw the parameters that training starts from, float64 (10, 785), on the CPU.

    They are drawn by NumPy, as torch's own generators depend on the vector width and device,
    and put on the grid, so that weights that training leaves alone lie far from its edges.

    Args:
        init: `uniform`, the distribution of torch.nn.Linear, U(-1/28, 1/28), 28 being
            sqrt(784); `normal`, N(0, 1); `zeros`.
        seed: of the generator.
    """
    generator = np.random.default_rng(seed)
    shape = (CLASSES, PIXELS + 1)
    if init == "uniform":
        values = generator.uniform(-1 / 28, 1 / 28, shape)
    elif init == "normal":
        values = generator.standard_normal(shape)
    elif init == "zeros":
        values = np.zeros(shape)
    else:
        raise ValueError(f"unknown init {init!r}")
    return to_grid(torch.from_numpy(values))


def save(path: str, parameters: torch.Tensor) -> None:
    """Write weight float32 (10, 784) and bias float32 (10,), the names and shapes of nn.Linear.

    Raises:
        OSError: names the path.
    """
    values = to_grid(parameters.cpu()).to(torch.float32).numpy()
    tensors.write(path, weight=values[:, :PIXELS], bias=values[:, PIXELS])


def load(path: str) -> torch.Tensor:
    """Read what `save` wrote.

    Returns:
        parameters float64 (10, 785).

    Raises:
        OSError: the file is missing, damaged or of another form.
    """
    weight, bias = inference.load(path)
    return torch.from_numpy(np.column_stack([weight, bias]))


def log_probabilities(
    parameters: torch.Tensor, images: torch.Tensor, batch_size: int
) -> torch.Tensor:
    """Log of the softmax of the logits, computed stably.

    Args:
        parameters: (10, 785), floating point, on any device.
        images: float32 (N, 784), on any device.
        batch_size: rows that are cast to the parameters' dtype and device at once.

    Returns:
        (N, 10), the parameters' dtype and device.
    """
    weight, bias = parameters[:, :PIXELS], parameters[:, PIXELS]
    return torch.cat(
        [
            torch.log_softmax(torch.addmm(bias, batch.to(parameters), weight.T), dim=1)
            for batch in images.split(batch_size)
        ]
    )


def cross_entropy(log_probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean over the rows of -log P(label).

    Args:
        log_probabilities: (N, 10).
        labels: int64 (N,), on the same device.
    """
    return -log_probabilities.gather(1, labels[:, None]).mean().item()


def score(
    parameters: torch.Tensor, images: torch.Tensor, labels: torch.Tensor, batch_size: int
) -> tuple[float, float]:
    """Return the cross-entropy and the accuracy; see `log_probabilities` for the arguments."""
    log_p = log_probabilities(parameters, images, batch_size)
    hits = (log_p.argmax(dim=1) == labels).sum().item()
    return cross_entropy(log_p, labels), hits / len(labels)
