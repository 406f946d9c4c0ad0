"""Scores of a classifier."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from src import exact
from src.common.command import UsageError
from src.exact.grids import LOSS_STEP
from src.learning import models
from src.learning.group import Group


class Score(NamedTuple):
    """The mean cross-entropy over some rows, and the share of them that is right."""

    loss: float
    accuracy: float


class Meter:
    """Adds up the losses and hits of many steps.

    Losses are added up as whole numbers of steps of 2^-24: a sum of floats would show its order.
    Logits are kept and scored many rows at once, as a score costs more than a small step.

    Attributes:
        sums: int64 (3,): loss steps, hits and rows.
    """

    KEPT = 10_000  # rows

    def __init__(self, sums: Tensor | None = None) -> None:
        """Start from nothing, or from the sums of an interrupted epoch."""
        self.sums = torch.zeros(3, dtype=torch.int64) if sums is None else sums.clone()
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.rows = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count logits (B, classes) and their labels int64 (B,)."""
        self.kept.append((logits.detach(), labels))
        self.rows += len(labels)
        if self.rows >= self.KEPT:
            self.flush()

    def flush(self) -> Tensor:
        """Score what is kept, and return the sums."""
        if self.kept:
            logits, labels = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
            if logits.dtype == torch.float64:
                losses = exact.losses(logits, labels)
            else:
                losses = functional.cross_entropy(logits, labels, reduction="none").double()
            steps = summed(losses)
            hits = (logits.argmax(dim=1) == labels).sum()
            self.sums += torch.stack([steps, hits, steps.new_tensor(len(labels))]).cpu()
            self.kept, self.rows = [], 0
        return self.sums

    def gather(self, group: Group) -> None:
        """Move the sums of all processes to the first one."""
        group.add_up(self.flush())
        if group.rank:
            self.sums.zero_()

    def score(self, group: Group | None = None) -> Score:
        """Return the mean over the rows of all processes."""
        sums = self.flush().clone()
        if group:
            group.add_up(sums)
        total, correct, rows = sums.tolist()
        return Score(total * LOSS_STEP / rows, correct / rows)


@torch.no_grad()
def logits(model: nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """Return logits (N, classes) for images float32 (N, C, H, W), in evaluation mode.

    Raises:
        exact.NotExactError: in evaluation, an exact model does something that is not exact.
    """
    was_training, is_exact = model.training, models.is_exact(model)
    device = next(model.parameters()).device
    model.eval()
    parts = []
    try:
        for at in range(0, len(images), batch_size):
            batch = images[at : at + batch_size].to(device)
            if is_exact and not at:
                with exact.watch():
                    found = model(batch)
            else:
                found = model(batch)
            parts.append(found.double() if is_exact else found)
    finally:
        model.train(was_training)
    return torch.cat(parts)


def log_probabilities(model: nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """Return float64 (N, classes) on the CPU for images (N, C, H, W); raises as `logits`."""
    found = logits(model, images, batch_size)
    if models.is_exact(model):
        return exact.log_softmax(found).cpu()
    return found.double().log_softmax(dim=1).cpu()


def score(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 250) -> Score:
    """Score a model on images float32 (N, C, H, W) and labels int64 (N,); raises as `logits`."""
    meter = Meter()
    found = logits(model, images, batch_size)
    meter.add(found, labels.to(found.device))
    return meter.score()


def mean(losses: Tensor) -> float:
    """Average losses, float64 (N,), in whole numbers of steps."""
    return float(summed(losses)) * LOSS_STEP / len(losses)


def summed(losses: Tensor) -> Tensor:
    """Add up losses, float64 (N,), as int64 steps of LOSS_STEP.

    Raises:
        UsageError: they are infinite, not numbers, or too large for that.
    """
    if len(losses) and not float(losses.max()) * len(losses) < 2.0**38:
        raise UsageError(
            "train.learning_rate: training diverges: the loss of some rows is beyond any number; "
            "try a smaller rate"
        )
    return (losses / LOSS_STEP).round().long().sum()


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
    """Accuracy, error rate, the mean F1 of the classes that occur, and the counts of rows.

    A class occurs if a row has it, or was predicted to have it.
    """
    table = [row["f1"] for row in per_class(confusion)]
    occur = [
        f1 for f1, count in zip(table, confusion.sum(0) + confusion.sum(1), strict=True) if count
    ]
    correct, total = int(confusion.trace()), int(confusion.sum())
    return {
        "accuracy": correct / total,
        "error_rate": (total - correct) / total,
        "macro_f1": sum(occur) / len(occur),
        "correct": correct,
        "total": total,
    }
