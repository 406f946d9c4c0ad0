"""A second implementation of softmax regression's training: whole numbers, in plain NumPy.

It shares no code with src. Every operand is an int64 that counts steps, so every sum is exact by
nature. Only the parameters that are kept from step to step, and their update, are float64.
"""

import hashlib
import math
from collections.abc import Iterable
from decimal import Decimal

import numpy as np

PIXEL, WEIGHT, ERROR, POWER, INDEX = 2**16, 2**18, 2**16, 2**40, 2**14  # steps in 1
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


def train(
    parameters: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    batches: Iterable[np.ndarray | slice],
    learning_rate: float,
    momentum: float = 0,
) -> str:
    """Take a step for each batch, in place; return the SHA-256 of all parameters.

    Args:
        parameters: float64, the weight (classes, pixels) and then the bias (classes,).
        images: float32 (N, pixels).
        labels: int64 (N,).
        batches: the rows of each.
        learning_rate: factor of the mean gradient.
        momentum: part of the last step that is taken again.
    """
    table = exponentials()
    x = np.rint(images * np.float32(PIXEL)).astype(np.int64)
    classes = len(parameters) // (x.shape[1] + 1)
    velocity, before = np.zeros_like(parameters), 1
    for batch in batches:
        rows, targets = x[batch], labels[batch]
        steps = np.rint(np.clip(parameters, -16, 16) * WEIGHT).astype(np.int64)
        weight, bias = steps[:-classes].reshape(classes, -1), steps[-classes:]
        logits = rows @ weight.T + bias * PIXEL
        gaps = logits.max(axis=1, keepdims=True) - logits
        whole, rest = np.divmod(gaps, GAP)
        index = whole + (2 * rest + whole % 2 > GAP)  # to the nearest, ties to even
        powers = table[np.minimum(index, len(table) - 1)]
        shares = powers / powers.sum(axis=1, keepdims=True)
        shares[np.arange(len(targets)), targets] -= 1
        error = np.rint(shares * ERROR).astype(np.int64)
        gradient = np.concatenate(
            [(error.T @ rows).ravel() / (ERROR * PIXEL), error.sum(axis=0) / ERROR]
        )
        # The velocity is a sum over the rows of a batch, too.
        velocity = velocity * (momentum * (len(targets) / before)) + gradient
        parameters -= velocity * (learning_rate / len(targets))
        before = len(targets)
    return hashlib.sha256(parameters.astype("<f8").tobytes()).hexdigest()
