"""The cross-entropy, summed over the rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from . import functions, grids, stepping


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, with_value: bool) -> Tensor:
        with stepping.twin():
            error, gaps, totals, _ = functions.softmax(logits.t())
            places = labels[None]
            if with_value:
                losses = gaps.gather(0, places)[0] + functions.log(totals)
                steps = (losses / grids.LOSS_STEP).round().long().sum()
                loss = steps.double() * grids.LOSS_STEP
            else:
                loss = logits.new_full((), torch.nan)
            error.scatter_add_(0, places, error.new_full(places.shape, -1))
            ctx.save_for_backward(grids.LOGIT_ERRORS.round_(error))
        return loss

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None]:
        (error,) = ctx.saved_tensors
        return (error * given[0]).t(), None, None


class CrossEntropyLoss(nn.Module):
    """nn.CrossEntropyLoss with reduction="sum", in exact sums.

    The derivative of a mean is not on a grid, so the loss is the sum over the rows; the optimizer's
    `step(rows)` divides.

    Args:
        reduction: "sum"; no other can be exact.
        with_value: compute the loss itself too. It costs more than the rest of a small step. With
            False, the tensor that is returned is NaN, and only its `backward` counts: a loop that
            keeps the logits can score many steps at once, see `losses`.
    """

    def __init__(self, reduction: str = "sum", with_value: bool = True) -> None:
        super().__init__()
        if reduction != "sum":
            raise ValueError(f'reduction={reduction!r} is not exact; use "sum", and step(rows)')
        self.with_value = with_value

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the summed loss, float64 (), for logits (B, classes) and labels int64 (B,)."""
        loss: Tensor = _CrossEntropy.apply(logits.double(), labels, self.with_value)
        return loss


def log_softmax(logits: Tensor) -> Tensor:
    """Return the log-probabilities, float64 (B, classes), within 3e-5 of the true ones."""
    _, gaps, totals, _ = functions.softmax(logits.double().t())
    return -(gaps + functions.log(totals)).t()


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each row, float64 (B,)."""
    _, gaps, totals, _ = functions.softmax(logits.double().t())
    return gaps.gather(0, labels[None])[0] + functions.log(totals)
