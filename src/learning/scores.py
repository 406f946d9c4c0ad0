"""Scores of a classifier."""

from typing import NamedTuple

import numpy as np
import torch

from src.exact import grids
from src.learning.group import Alone


class Score(NamedTuple):
    """The mean cross-entropy over some rows, and the share of them that is right."""

    loss: float
    accuracy: float


def average(losses: torch.Tensor, hits: torch.Tensor, group: Alone) -> Score:
    """Average losses, float64 (N,), and hits, bool (N,), of this process's rows over everyone's.

    Losses are added up as whole numbers of steps: a sum of float64s would show its order.
    """
    steps = (losses / grids.LOSS_STEP).round().long().sum()
    sums = torch.stack([steps, hits.sum(), steps.new_tensor(len(losses))])
    group.add_up(sums)
    total, correct, rows = sums.tolist()
    return Score(total * grids.LOSS_STEP / rows, correct / rows)


def score(log_probabilities: torch.Tensor, labels: torch.Tensor) -> Score:
    """Score log-probabilities (N, classes) against labels int64 (N,)."""
    losses = -log_probabilities.gather(1, labels[:, None])[:, 0]
    return average(losses, log_probabilities.argmax(dim=1) == labels, Alone())


def confusion_matrix(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count rows by class.

    Args:
        actual: int64 (N,) from 0 to classes - 1.
        predicted: int64 (N,) from 0 to classes - 1.
        classes: how many there are.

    Returns:
        int64 (classes, classes); entry [i, j] counts the rows of class i that were predicted as j.
    """
    counts = np.bincount(actual * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def per_class(confusion: np.ndarray) -> list[dict[str, float]]:
    """Precision, recall, F1 and support of each class; a ratio of nothing to nothing is 0.

    F1 is 2 TP / (2 TP + FP + FN), which is the harmonic mean of precision and recall.
    """
    table = []
    for label in range(len(confusion)):
        hits = int(confusion[label, label])
        predicted = int(confusion[:, label].sum())
        support = int(confusion[label].sum())
        table.append(
            {
                "label": label,
                "precision": hits / predicted if predicted else 0.0,
                "recall": hits / support if support else 0.0,
                "f1": 2 * hits / (predicted + support) if predicted + support else 0.0,
                "support": support,
            }
        )
    return table


def summary(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, error rate, the mean of the classes' F1, and the counts of rows."""
    correct, total = int(confusion.trace()), int(confusion.sum())
    return {
        "accuracy": correct / total,
        "error_rate": (total - correct) / total,
        "macro_f1": sum(row["f1"] for row in per_class(confusion)) / len(confusion),
        "correct": correct,
        "total": total,
    }
