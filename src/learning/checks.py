"""Checks of a model, its data and its weights, each with what would be allowed."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from src import exact
from src.common.parameters import ParameterError
from src.learning.batches import Rows
from src.learning.settings import Train


def check(model: nn.Module, rows: Rows, classes: int, settings: Train, processes: int) -> None:
    """Hold the parameters to the data and the model, by a step on a few rows that changes nothing.

    Raises:
        UsageError: one does not fit; says what would.
        exact.NotExactError: exact training meets something that is not exact.
    """
    images, labels = rows
    size = settings.batch_size
    if not processes <= size <= len(labels):
        allowed = f"must be from {processes} to the {len(labels):,} rows that train"
        raise ParameterError("train.batch_size", allowed, size)
    if settings.shift >= min(images.shape[2:]) and settings.shift:
        allowed = f"must be less than the images' sides, {images.shape[2]} x {images.shape[3]}"
        raise ParameterError("train.shift", allowed, settings.shift)
    before = copy.deepcopy(dict(model.named_buffers()))
    device = next(model.parameters()).device
    few = min(2, len(labels))
    model.train()
    with exact.step(seed=0, epoch=0, step=0, rows=slice(0, few), batch=few):
        logits = model(images[:few].to(device))
        check_shape(logits, few, classes, settings)
        if not logits.isfinite().all():
            shown = logits.detach().flatten()[:3].tolist()
            raise ParameterError(
                "train.model", f"it returns {shown} at its start, and not numbers", settings.model
            )
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad((logits * 1.0).sum(), list(named.values()), allow_unused=True)
    lost = [name for name, gradient in zip(named, found, strict=True) if gradient is None]
    if lost and settings.exact:
        raise ParameterError(
            "train.model", f"training cannot reach its {', '.join(lost)}", settings.model
        )
    check_single_rows(model, images, settings, processes)
    with torch.no_grad():
        check_shape(model.eval()(images[:1].to(device)), 1, classes, settings)
        if settings.exact:
            check_independence(model, images[:few].to(device), settings)
    saved = model.state_dict()
    for name, buffer in model.named_buffers():
        if name not in saved and not torch.equal(buffer, before[name]):
            raise ParameterError(
                "train.model",
                f"its buffer {name} changes in training and would not be saved; "
                "register it without persistent=False",
                settings.model,
            )
        buffer.copy_(before[name])
    other = [name for name, value in saved.items() if not isinstance(value, Tensor)]
    if other:
        raise ParameterError(
            "train.model",
            f"its state_dict has {', '.join(other)}, and tensors alone can be saved",
            settings.model,
        )


def check_shape(logits: Any, rows: int, classes: int, settings: Train) -> None:
    """Refuse a model that does not return (rows, classes)."""
    if isinstance(logits, Tensor) and logits.shape == (rows, classes):
        return
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    images = f"{rows} images"
    if rows == 1:  # as the last batch may have
        images, shape = (
            "one image",
            f"{shape}; `x.squeeze()` takes the rows, `x.flatten(1)` does not",
        )
    raise ParameterError(
        "train.model",
        f"it must return ({rows}, {classes}) for {images}, and returned {shape}",
        settings.model,
    )


def check_independence(model: nn.Module, images: Tensor, settings: Train) -> None:
    """Refuse an exact model whose answer for an image depends on the other images of a batch.

    Then the bits would depend on the number of processes. BatchNorm alone may do so: it asks the
    other processes.
    """
    count = len(images)
    for is_training in (True, False):
        model.train(is_training)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

        def logits(rows: slice) -> Tensor:
            with exact.step(seed=0, epoch=0, step=0, rows=rows, batch=count):
                found: Tensor = model(images[rows])
                return found

        alone = torch.cat([logits(slice(row, row + 1)) for row in range(count)])
        if not torch.equal(logits(slice(0, count)), alone):
            raise ParameterError(
                "train.model",
                "its answer for an image depends on the other images of the batch, so several "
                "processes would give other bits; set train.exact to false",
                settings.model,
            )


def check_single_rows(model: nn.Module, images: Tensor, settings: Train, processes: int) -> None:
    """Refuse a batch size that gives a process a single row, if torch's BatchNorm refuses that."""
    last = 0 if settings.drop_last else len(images) % settings.batch_size
    shares = {n for b in (settings.batch_size, last) for n in (b // processes, -(-b // processes))}
    if settings.exact or 1 not in shares:  # exact BatchNorm sees the rows of all processes
        return
    try:
        model(images[:1].to(next(model.parameters()).device))
    except ValueError as error:
        allowed = f"a process would get one row of a batch, and the model says: {error}"
        raise ParameterError("train.batch_size", allowed, settings.batch_size) from error


def check_divergence(model: nn.Module, optimizer: Any, settings: Train, epoch: int) -> None:
    """Refuse weights beyond the grid, infinite ones and those that are not a number."""
    limit = exact.grids.WEIGHTS.largest if settings.exact else math.inf
    tensors = optimizer.masters if settings.exact else list(model.parameters())
    for tensor in tensors:
        largest = float(tensor.detach().abs().max())
        if not largest <= limit or not math.isfinite(largest):
            raise ParameterError(
                "train.learning_rate",
                f"training diverges: a weight is beyond {limit:g} after epoch {epoch}; "
                "try a smaller rate",
                settings.learning_rate,
            )
