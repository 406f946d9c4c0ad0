"""Training: stochastic gradient descent on the cross-entropy, in exact sums."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from src import data, exact, grids, scores
from src.group import Alone
from src.models import Model
from src.parameters import Train, refusal


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
    batches = [slice(at, min(at + size, rows)) for at in range(0, rows, size)]
    steps = settings.epochs * len(batches)
    velocity = torch.zeros_like(model.parameters) if settings.momentum else model.gradient
    change = torch.empty_like(model.parameters)
    sizes = change.new_tensor([batch.stop - batch.start for batch in batches])
    scales = torch.empty_like(sizes)
    # Gradients are sums over a batch: a smaller one takes its part of what was summed before.
    factors = settings.momentum * (sizes / sizes.roll(1))
    shares = [group.share(batch) for batch in batches]
    order = torch.arange(len(labels), device=images.device) if settings.shuffle else None
    targets = labels.clone()  # in the order of the rows that train
    # Views made once: in a small step each counts.
    wanted = [targets[None, share] for share in shares]
    picks = [(images if order is None else order)[share] for share in shares]
    counts = [share.stop - share.start for share in shares]
    gaps = change.new_empty(1, sum(counts))
    totals, predicted = torch.empty_like(gaps), labels.new_empty(1, sum(counts))
    seen = [*zip(*(kept.split(counts, dim=1) for kept in (gaps, totals, predicted)), strict=True)]
    minus_ones = change.new_full((1, size), -1)
    moves = np.zeros((len(batches), 2), int)

    def run_epoch() -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses and the hits of the rows that this process sees."""
        per_step = zip(picks, moves.tolist(), wanted, factors, scales, seen, strict=True)
        for pick, move, target, factor, scale, kept in per_step:
            batch = pick if order is None else images[pick]
            logits = model.forward(shifted(batch, *move))
            error, gap, total, best = exact.softmax(logits)
            torch.gather(gap, 0, target, out=kept[0])
            kept[1].copy_(total)
            kept[2].copy_(best)
            error.scatter_add_(0, target, minus_ones)
            model.backward(grids.ERRORS.round_(error))
            group.add_up(model.gradient)
            if velocity is not model.gradient:
                velocity.mul_(factor).add_(model.gradient)
            torch.mul(velocity, scale, out=change)
            model.parameters.sub_(change)
            model.snap()
        return (gaps + exact.log(totals))[0], (predicted == torch.cat(wanted, dim=1))[0]

    if model.parameters.is_cuda and group.size == 1 and not settings.shift:
        run_epoch = captured(run_epoch, model.parameters, velocity)
    for epoch in range(settings.epochs):
        generator = np.random.default_rng([settings.seed, epoch + 1])
        if order is not None:
            order.copy_(torch.from_numpy(generator.permutation(len(labels))))
            targets.copy_(labels[order.to(labels.device)])
        if settings.shift:
            moves = generator.integers(-settings.shift, settings.shift + 1, moves.shape)
        rates = [settings.rate(epoch * len(batches) + step, steps) for step in range(len(batches))]
        # The gradient is of a sum, the update by its mean.
        scales.copy_(scales.new_tensor(rates).div_(sizes))
        losses, hits = run_epoch()
        if not model.parameters.abs().max() <= grids.WEIGHTS.largest:  # nor NaN
            raise refusal(
                "train.learning_rate",
                f"training diverges: a weight is beyond 16 after epoch {epoch + 1}; "
                "try a smaller rate",
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
        raise refusal("train.batch_size", allowed, size)
    try:
        model.check_batch(size)
    except ValueError as error:
        raise refusal("train.batch_size", error, size) from error
    side = data.side_of(model.pixels)
    if settings.shift and (side is None or settings.shift >= side):
        allowed = (
            f"must be 0, or for square images less than their side ({model.pixels} pixels here)"
        )
        raise refusal("train.shift", allowed, settings.shift)


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
    run_epoch: Callable[[], tuple[torch.Tensor, torch.Tensor]], *state: torch.Tensor
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Record an epoch as one CUDA graph, so that its steps cost no launches from Python.

    Args:
        run_epoch: what to record; runs once before, as cuBLAS must have its workspace by then.
        state: the tensors that an epoch changes and the next one starts from.
    """
    before = [tensor.clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run_epoch()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run_epoch()
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)

    def replay() -> tuple[torch.Tensor, torch.Tensor]:
        graph.replay()
        return results

    return replay
