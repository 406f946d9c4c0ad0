"""Training: stochastic gradient descent on the cross-entropy, in exact sums."""

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, Field

from src.common import dataset
from src.common.parameters import (
    Count,
    Device,
    Number,
    ParameterError,
    Section,
    Switch,
    Threads,
    integer,
)
from src.exact import functions, grids
from src.learning import models, scores
from src.learning.group import Alone
from src.learning.models import Model


class Train(Section):
    """Which model, and how it is trained."""

    device: Device
    threads: Threads
    model: Annotated[
        str, AfterValidator(models.known), Field(description="a name in src/learning/models.py")
    ]
    seed: Annotated[int, integer(0, 2**63 - 1)]
    init: Annotated[
        Literal["uniform", "normal", "zeros"], Field(description="uniform, normal or zeros")
    ]
    epochs: Annotated[int, integer(1, 10_000)]
    batch_size: Count
    learning_rate: Annotated[Number, Field(gt=0, description="a finite number above 0")]
    momentum: Annotated[Number, Field(ge=0, lt=1, description="a number from 0, below 1")]
    decay: Annotated[Literal["none", "linear"], Field(description="none or linear")]
    shuffle: Switch
    shift: Annotated[int, integer(0, 1000)]
    drop_last: Switch

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0 over the whole training."""
        if self.decay == "linear":
            return self.learning_rate * ((steps - step) / steps)
        return self.learning_rate


class Batch(NamedTuple):
    """What a step reads, and where it writes; of a batch a process has a share of B rows.

    All are views, and made once: in a small step each operation counts.
    """

    rows: torch.Tensor  # images (B, pixels), or where they are shuffled their numbers (B,)
    labels: torch.Tensor  # (1, B)
    momentum: torch.Tensor  # ()
    step_size: torch.Tensor  # (), the learning rate by the rows of the whole batch
    gap: torch.Tensor  # (1, B), of the label's logit to the highest
    total: torch.Tensor  # (1, B), of the exponentials
    predicted: torch.Tensor  # (1, B)


def train(
    model: Model, images: torch.Tensor, labels: torch.Tensor, settings: Train, group: Alone
) -> Iterator[scores.Score]:
    """Update the model's parameters in place.

    Args:
        model: with the parameters that training starts from.
        images: float32 (N, pixels), on any device; those of a batch are sent to the model's.
        labels: int64 (N,), on the model's device.
        settings: the parameters of the stage.
        group: the processes that share each batch.

    Yields:
        After each epoch, the score of its batches, each taken before its update.

    Raises:
        UsageError: training diverges; says in which epoch.
    """
    size = settings.batch_size
    rows = len(labels) - len(labels) % size if settings.drop_last else len(labels)
    spans = [slice(at, min(at + size, rows)) for at in range(0, rows, size)]
    steps = settings.epochs * len(spans)
    velocity = torch.zeros_like(model.parameters) if settings.momentum else model.gradient
    change = torch.empty_like(model.parameters)
    sizes = change.new_tensor([span.stop - span.start for span in spans])
    step_sizes = torch.zeros_like(sizes)  # 0 until the first epoch: a graph's warm-up moves nothing
    shares = [group.share(span) for span in spans]
    counts = [share.stop - share.start for share in shares]
    order = torch.arange(len(labels), device=images.device) if settings.shuffle else None
    targets = labels.clone()  # in the order of the rows that train
    gaps = change.new_empty(1, sum(counts))
    totals, predicted = torch.empty_like(gaps), labels.new_empty(1, sum(counts))
    views = zip(
        [(images if order is None else order)[share] for share in shares],
        [targets[None, share] for share in shares],
        # Gradients are sums over a batch: a smaller one takes its part of what was summed before.
        settings.momentum * (sizes / sizes.roll(1)),
        step_sizes,
        *(kept.split(counts, dim=1) for kept in (gaps, totals, predicted)),
        strict=True,
    )
    batches = [Batch(*those) for those in views]
    minus_ones = change.new_full((1, size), -1)
    moves = np.zeros((len(batches), 2), int)

    def run_epoch() -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses and the hits of the rows that this process sees."""
        for batch, move in zip(batches, moves.tolist(), strict=True):
            x = batch.rows if order is None else images[batch.rows]
            logits = model.forward(shifted(x, *move))
            error, gap, total, best = functions.softmax(logits)
            torch.gather(gap, 0, batch.labels, out=batch.gap)
            batch.total.copy_(total)
            batch.predicted.copy_(best)
            error.scatter_add_(0, batch.labels, minus_ones)
            model.backward(grids.ERRORS.round_(error))
            group.add_up(model.gradient)
            if velocity is not model.gradient:
                velocity.mul_(batch.momentum).add_(model.gradient)
            torch.mul(velocity, batch.step_size, out=change)
            model.parameters.sub_(change)
            model.snap()
        hits = predicted == torch.cat([batch.labels for batch in batches], dim=1)
        return (gaps + functions.log(totals))[0], hits[0]

    if model.parameters.is_cuda and group.size == 1 and not settings.shift:
        run_epoch = captured(run_epoch)
        velocity.zero_()
    for epoch in range(settings.epochs):
        generator = np.random.default_rng([settings.seed, epoch + 1])
        if order is not None:
            order.copy_(torch.from_numpy(generator.permutation(len(labels))))
            targets.copy_(labels[order.to(labels.device)])
        if settings.shift:
            moves = generator.integers(-settings.shift, settings.shift + 1, moves.shape)
        rates = [settings.rate(epoch * len(batches) + step, steps) for step in range(len(batches))]
        # The gradient is of a sum, the update by its mean.
        step_sizes.copy_(step_sizes.new_tensor(rates).div_(sizes))
        losses, hits = run_epoch()
        if not model.parameters.abs().max() <= grids.WEIGHTS.largest:  # nor NaN
            raise ParameterError(
                "train.learning_rate",
                f"training diverges: a weight is beyond {grids.WEIGHTS.largest:g} after epoch "
                f"{epoch + 1}; try a smaller rate",
                settings.learning_rate,
            )
        yield scores.average(losses, hits, group)


def check(model: Model, rows: int, settings: Train, processes: int) -> None:
    """Hold the parameters to the data and the model.

    Raises:
        UsageError: one does not fit; says what would.
    """
    size = settings.batch_size
    if not processes <= size <= rows:
        allowed = f"must be from {processes} to the {rows:,} rows that train"
        raise ParameterError("train.batch_size", allowed, size)
    try:
        model.check_batch(size)
    except ValueError as error:
        raise ParameterError("train.batch_size", error, size) from error
    side = dataset.side_of(model.pixels)
    if settings.shift and (side is None or settings.shift >= side):
        allowed = (
            f"must be 0, or for square images less than their side ({model.pixels} pixels here)"
        )
        raise ParameterError("train.shift", allowed, settings.shift)


def shifted(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Move square images (B, pixels) by some pixels, and fill with background."""
    if not (down or right):
        return images
    side = math.isqrt(images.shape[1])
    square = images.view(-1, side, side)
    moved = torch.zeros_like(square)
    to_rows, from_rows = overlap(down, side)
    to_columns, from_columns = overlap(right, side)
    moved[:, to_rows, to_columns] = square[:, from_rows, from_columns]
    return moved.view_as(images)


def overlap(move: int, side: int) -> tuple[slice, slice]:
    """Return where the rows that stay in the image go to, and where they come from."""
    return slice(max(move, 0), side + min(move, 0)), slice(max(-move, 0), side + min(-move, 0))


def captured(
    run_epoch: Callable[[], tuple[torch.Tensor, torch.Tensor]],
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Record an epoch as one CUDA graph, so that its steps cost no launches from Python.

    It runs once before, as cuBLAS must have its workspace by then.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run_epoch()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run_epoch()

    def replay() -> tuple[torch.Tensor, torch.Tensor]:
        graph.replay()
        return results

    return replay
