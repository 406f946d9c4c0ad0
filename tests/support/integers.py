"""A second implementation of exact training: whole numbers, in plain NumPy.

It shares no code with src. Every operand of a sum is an int64 that counts steps, so every sum is
exact by nature. Float64 is what IEEE 754 rounds one number at a time: the parameters that are kept
from step to step, their update, and what BatchNorm does with its sums.
"""

import hashlib
import math
from collections.abc import Iterable
from decimal import Decimal

import numpy as np

# Steps in 1: of what enters a linear layer, a convolution and BatchNorm, of weights, and of the
# derivatives by the logits and by what an inner layer returns.
PIXEL, IMAGE, NORMALIZED, WEIGHT, ERROR, INNER = 2**16, 2**13, 2**14, 2**18, 2**16, 2**20
POWER, INDEX = 2**40, 2**14  # of the exponentials: steps in 1, and places of the table in 1
GAP = PIXEL * WEIGHT // INDEX  # steps of a difference of logits in one place of the table


def exponentials() -> np.ndarray:
    """Return exp(-i / 2^14) in steps, int64 (28 * 2^14,): the product of three short tables."""
    first, second, third = (
        np.array([float((-Decimal(i) / unit).exp()) for i in range(count)])
        for count, unit in ((28, 1), (128, 128), (128, INDEX))
    )
    products = np.multiply.outer(np.multiply.outer(first, second), third)
    return np.rint(products.ravel() * POWER).astype(np.int64)


def start(seed: int, classes: int, pixels: int) -> np.ndarray:
    """Draw uniform parameters, float64 (classes * pixels + classes,)."""
    generator, bound = np.random.default_rng(seed), math.isqrt(WEIGHT**2 // pixels)
    drawn = [generator.integers(-bound, bound + 1, n) for n in (classes * pixels, classes)]
    return np.concatenate(drawn) / WEIGHT


def steps(values: np.ndarray, unit: int, largest: float) -> np.ndarray:
    """Return the nearest whole numbers of steps, int64, ties to even."""
    return np.rint(np.clip(values, -largest, largest) * unit).astype(np.int64)


def errors(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the derivatives of the summed cross-entropy, int64 (B, classes), in steps of ERROR.

    Args:
        logits: int64 (B, classes), in steps of PIXEL * WEIGHT.
        targets: int64 (B,).
    """
    table = exponentials()
    gaps = logits.max(axis=1, keepdims=True) - logits
    whole, rest = np.divmod(gaps, GAP)
    index = whole + (2 * rest + whole % 2 > GAP)  # to the nearest, ties to even
    powers = table[np.minimum(index, len(table) - 1)]
    shares = powers / powers.sum(axis=1, keepdims=True)
    shares[np.arange(len(targets)), targets] -= 1
    return np.rint(shares * ERROR).astype(np.int64)


def train(
    parameters: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    batches: Iterable[np.ndarray | slice],
    learning_rate: float,
) -> str:
    """Train softmax regression, in place: a step for each batch.

    Args:
        parameters: float64, the weight (classes, pixels) and then the bias (classes,).
        images: float32 (N, pixels).
        labels: int64 (N,).
        batches: the rows of each.
        learning_rate: factor of the mean gradient.

    Returns:
        The SHA-256 of all parameters.
    """
    x = np.rint(images * np.float32(PIXEL)).astype(np.int64)
    classes = len(parameters) // (x.shape[1] + 1)
    for batch in batches:
        rows, targets = x[batch], labels[batch]
        weights = steps(parameters, WEIGHT, 16)
        weight, bias = weights[:-classes].reshape(classes, -1), weights[-classes:]
        error = errors(rows @ weight.T + bias * PIXEL, targets)
        gradient = np.concatenate(
            [(error.T @ rows).ravel() / (ERROR * PIXEL), error.sum(axis=0) / ERROR]
        )
        parameters -= gradient * (learning_rate / len(targets))
    return hashlib.sha256(parameters.astype("<f8").tobytes()).hexdigest()


def patches(images: np.ndarray) -> np.ndarray:
    """Return what a 3x3 convolution of stride 2 and padding 1 sees, (B, h, w, 9)."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(1, 2))[:, ::2, ::2]
    return windows.reshape(*windows.shape[:3], 9)


def train_convolutional(
    state: dict[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    batches: Iterable[slice],
    learning_rate: float,
) -> str:
    """Train Sequential(Conv2d(1, C, 3, 2, 1), BatchNorm2d(C), ReLU(), Flatten(), Linear) by SGD.

    Args:
        state: the module's `state_dict`, float64; it is changed in place.
        images: float32 (N, H, W).
        labels: int64 (N,).
        batches: the rows of each.
        learning_rate: factor of the mean gradient.

    Returns:
        The SHA-256 of all parameters, and then of the buffers.
    """
    seen = patches(steps(images, IMAGE, 32))
    for batch in batches:
        x, targets = seen[batch], labels[batch]
        rows, *sides, _ = x.shape
        kernels = steps(state["0.weight"], WEIGHT, 16).reshape(-1, 9)
        kernel_bias = steps(state["0.bias"], WEIGHT, 16)
        convolved = (x @ kernels.T + kernel_bias * IMAGE) / (IMAGE * WEIGHT)

        # BatchNorm: two sums of whole numbers, then one number at a time.
        whole = steps(convolved, NORMALIZED, 64)
        count = rows * sides[0] * sides[1]
        mean = whole.sum((0, 1, 2)) / count
        variance = np.maximum((whole**2).sum((0, 1, 2)) / count - mean * mean, 0)
        mean, variance = mean / NORMALIZED, variance / NORMALIZED**2
        scale = 1 / np.sqrt(variance + 1e-5)
        gain, shift = (
            steps(state[f"1.{name}"], WEIGHT, 16) / WEIGHT for name in ("weight", "bias")
        )
        centred = whole / NORMALIZED - mean
        normalized = centred * (scale * gain) + shift
        for name, new in (("mean", mean), ("var", variance * (count / (count - 1)))):
            mixed = state[f"1.running_{name}"] * (1 - 0.1) + new * 0.1
            state[f"1.running_{name}"] = mixed.astype(np.float32).astype(np.float64)
        state["1.num_batches_tracked"] += 1

        # Flatten's order: channels, rows, columns.
        flat = np.maximum(normalized, 0).transpose(0, 3, 1, 2).reshape(rows, -1)
        entered = steps(flat, PIXEL, 32)
        weight, bias = (steps(state[f"4.{name}"], WEIGHT, 16) for name in ("weight", "bias"))
        error = errors(entered @ weight.T + bias * PIXEL, targets)

        back = np.rint((error @ weight) / (ERROR * WEIGHT) * INNER) / INNER
        back = (back * (np.abs(flat) <= 32)).reshape(rows, -1, *sides).transpose(0, 2, 3, 1)
        inner = steps(back * (normalized > 0), INNER, 4)
        total = inner.sum((0, 1, 2)) / INNER
        products = (inner * whole).sum((0, 1, 2)) / (INNER * NORMALIZED)
        along = (products - mean * total) * scale
        back = inner / INNER - total / count - (centred * scale) * (along / count)
        outer = steps(back * (scale * gain), INNER, 4)
        gradients = {
            "0.weight": np.einsum("nhwc,nhwk->ck", outer, x) / (INNER * IMAGE),
            "0.bias": outer.sum((0, 1, 2)) / INNER,
            "1.weight": along,
            "1.bias": total,
            "4.weight": (error.T @ entered) / (ERROR * PIXEL),
            "4.bias": error.sum(axis=0) / ERROR,
        }
        for name, gradient in gradients.items():
            state[name] -= gradient.reshape(state[name].shape) * (learning_rate / rows)
    digest = hashlib.sha256()
    for name in [*gradients, *(key for key in state if key not in gradients)]:
        digest.update(state[name].tobytes())
    return digest.hexdigest()
