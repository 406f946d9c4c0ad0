"""Scores of a classifier, all from its confusion matrix."""

import numpy as np


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
    for digit in range(len(confusion)):
        hits = int(confusion[digit, digit])
        predicted = int(confusion[:, digit].sum())
        support = int(confusion[digit].sum())
        table.append(
            {
                "digit": digit,
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
