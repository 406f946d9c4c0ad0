"""The batches of an epoch: which rows, in which order, moved by how many pixels."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.learning.group import Group
from src.learning.settings import Train

Rows = tuple[Tensor, Tensor]  # images float32 (N, C, H, W), labels int64 (N,)


class Batch(NamedTuple):
    """The share of a batch that a process computes.

    Attributes:
        step: the batch's number in the epoch, from 0.
        steps: how many batches the epoch has.
        images: float32 (B, C, H, W), those of the share.
        labels: int64 (B,).
        rows: which rows of the batch they are.
        size: how many rows the batch has.
    """

    step: int
    steps: int
    images: Tensor
    labels: Tensor
    rows: slice
    size: int


def batches(rows: Rows, settings: Train, epoch: int, first: int, group: Group) -> Iterator[Batch]:
    """Give the batches of an epoch from a step on: order and shifts depend on seed and epoch."""
    images, labels = rows
    size = settings.batch_size
    steps = steps_of(settings, len(labels))
    count = min(steps * size, len(labels))
    generator = np.random.default_rng([settings.seed, epoch])
    order = generator.permutation(len(labels)) if settings.shuffle else None
    moves = generator.integers(-settings.shift, settings.shift + 1, (steps, 2)).tolist()
    for step in range(first, steps):
        batch = slice(step * size, min(step * size + size, count))
        share = group.share(batch)
        picked = share if order is None else torch.from_numpy(order[share]).to(labels.device)
        x = shifted(images[picked], *moves[step])
        mine = slice(share.start - batch.start, share.stop - batch.start)
        yield Batch(step, steps, x, labels[picked], mine, batch.stop - batch.start)


def steps_of(settings: Train, rows: int) -> int:
    """Return how many batches an epoch of so many rows has."""
    size = settings.batch_size
    return rows // size if settings.drop_last else -(-rows // size)


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Move images (B, C, H, W) by some pixels, and fill with background."""
    if not (down or right):
        return images
    moved = torch.zeros_like(images)
    to_rows, from_rows = overlap(down, images.shape[2])
    to_columns, from_columns = overlap(right, images.shape[3])
    moved[:, :, to_rows, to_columns] = images[:, :, from_rows, from_columns]
    return moved


def overlap(move: int, side: int) -> tuple[slice, slice]:
    """Return where the rows that stay in the image go to, and where they come from."""
    return slice(max(move, 0), side + min(move, 0)), slice(max(-move, 0), side + min(-move, 0))
