"""How sure a model is of its answers, and how often it is right when it is so sure.

Labels are int64 (N,), log-probabilities float64 (N, classes).
"""

import math
from typing import NamedTuple

import numpy as np

LEVELS = 10
MISTAKES = 24  # so many of the surest are shown, in the page as in the picture


class Level(NamedTuple):
    """The rows whose confidence is at least `least` and below the next level's."""

    least: float
    rows: np.ndarray  # int64, in their order
    confidence: float  # the mean of the predicted class's probability
    accuracy: float


def levels(labels: np.ndarray, log_probabilities: np.ndarray) -> list[Level]:
    """Sort rows into tenths of confidence; tenths without a row are left out."""
    predicted, sure = log_probabilities.argmax(axis=1), log_probabilities.max(axis=1)
    is_right, confidence = predicted == labels, np.exp(sure)
    # By logarithms, as the last bit of an exponential is another on another processor.
    level = np.searchsorted([math.log(at / LEVELS) for at in range(1, LEVELS)], sure, "right")
    return [
        Level(at / LEVELS, rows, float(confidence[rows].mean()), float(is_right[rows].mean()))
        for at in range(LEVELS)
        if len(rows := np.flatnonzero(level == at))
    ]


def mistakes(labels: np.ndarray, log_probabilities: np.ndarray) -> np.ndarray:
    """Return the rows that were read wrongly, int64, the surest first."""
    wrong = np.flatnonzero(log_probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-log_probabilities[wrong].max(axis=1), kind="stable")]
