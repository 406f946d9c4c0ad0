"""Training: one loop for exact sums and plain torch, one process and many, CPU and CUDA."""

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from src import exact
from src.common.parameters import Count, Number, ParameterError, Section, Switch, integer
from src.learning import models
from src.learning.checkpoint import Checkpoint
from src.learning.group import Group
from src.learning.scores import Meter, Score, score

Rows = tuple[Tensor, Tensor]  # images float32 (N, C, H, W), labels int64 (N,)


class Train(Section):
    """Which model, and how it is trained."""

    model: Annotated[
        str,
        AfterValidator(models.known),
        Field(description="a name in src/learning/models.py"),
    ]
    exact: Switch
    seed: Annotated[int, integer(0, 2**63 - 1)]
    init: Annotated[
        Literal["default", "normal", "zeros"], Field(description="default, normal or zeros")
    ]
    epochs: Annotated[int, integer(1, 10_000)]
    batch_size: Count
    optimizer: Annotated[Literal["sgd", "adamw"], Field(description="sgd or adamw")]
    learning_rate: Annotated[Number, Field(gt=0, description="a finite number above 0")]
    momentum: Annotated[Number, Field(ge=0, lt=1, description="a number from 0, below 1")]
    weight_decay: Annotated[Number, Field(ge=0, description="a finite number from 0")]
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], Field(description="constant, linear or cosine")
    ]
    warmup_epochs: Annotated[int, integer(0, 10_000)]
    shuffle: Switch
    shift: Annotated[int, integer(0, 1000)]
    drop_last: Switch
    keep: Annotated[Literal["last", "best"], Field(description="last or best")]
    patience: Annotated[int, integer(0, 10_000)]

    @model_validator(mode="after")
    def _together(self) -> "Train":
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError("momentum belongs to sgd; with adamw it must be 0")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError("warmup_epochs must be fewer than epochs")
        return self

    def rate(self, step: int, steps: int, warmup: int = 0) -> float:
        """Return the learning rate of a step, counted from 0 over the whole training."""
        if step < warmup:
            return self.learning_rate * ((step + 1) / warmup)
        step, steps = step - warmup, steps - warmup
        if self.schedule == "linear":
            return self.learning_rate * ((steps - step) / steps)
        if self.schedule == "cosine":
            # Rounded, as the last bit of a cosine is the C library's.
            wave = round((1 + math.cos(math.pi * step / steps)) / 2 * 2**40) / 2**40
            return self.learning_rate * wave
        return self.learning_rate


class Epoch(NamedTuple):
    """What is known after an epoch.

    Attributes:
        number: from 1.
        train: the score of its batches, each taken before its update.
        held_out: the score on the held-out rows; None where there are none or in other processes.
        sha256: digest of the whole state, see `digest`.
        is_best: no epoch before had a lower held-out loss.
        seconds: how long it took; 0 for one that a checkpoint remembers.
        ended: why training ends with it: "", "all epochs" or "patience".
    """

    number: int
    train: Score
    held_out: Score | None
    sha256: str
    is_best: bool
    seconds: float
    ended: str


def train(
    model: nn.Module,
    rows: Rows,
    settings: Train,
    *,
    held_out: Rows | None = None,
    group: Group | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int, int, Meter], None] | None = None,
) -> Iterator[Epoch]:
    """Train a model in place; with `keep: best` it ends with the weights of its best epoch.

    Args:
        model: on its device; for exact training, one that `exact.convert` returned.
        rows: images float32 (N, C, H, W) on any device, labels int64 (N,).
        settings: of the section `train`.
        held_out: rows that are scored after each epoch, by the first process.
        group: the processes that share each batch; one alone if None.
        checkpoint: where the state is kept, to go on from after a stop.
        progress: called after each step with epoch, step, steps and the epoch's score so far.

    Yields:
        A record after each epoch, those that a checkpoint remembers first.

    Raises:
        UsageError: training diverges; says in which epoch.
        exact.NotExact: exact training meets something that is not exact.
    """
    group = group or Group()
    images, labels = rows
    device = next(model.parameters()).device
    size = settings.batch_size
    count = len(labels) - len(labels) % size if settings.drop_last else len(labels)
    steps = -(-count // size)
    optimizer = make_optimizer(model, settings)
    criterion: nn.Module = nn.CrossEntropyLoss(reduction="sum")
    if settings.exact:
        criterion = exact.CrossEntropyLoss(with_value=False)
    state: dict[str, Any] = {"epoch": 1, "step": 0, "sums": None, "curve": [], "best": None}
    if checkpoint and (found := checkpoint.read()):
        state = restore(model, optimizer, found)
    past = [Epoch(n, Score(*t), h and Score(*h), *rest) for n, t, h, *rest in state["curve"]]
    yield from past

    for epoch in range(state["epoch"], settings.epochs + 1) if not ended(past) else ():
        started, generator = time.monotonic(), np.random.default_rng([settings.seed, epoch])
        order = generator.permutation(len(labels)) if settings.shuffle else np.arange(len(labels))
        moves = generator.integers(-settings.shift, settings.shift + 1, (steps, 2)).tolist()
        meter, first = Meter(), state.pop("step", 0)
        if (sums := state.pop("sums", None)) is not None and group.rank == 0:
            meter.sums.copy_(sums)
        model.train()
        for step in range(first, steps):
            batch = slice(step * size, min(step * size + size, count))
            whole, share = batch.stop - batch.start, group.share(batch)
            picked = slice(share.start, share.stop) if not settings.shuffle else order[share]
            x, y = shifted(images[picked], *moves[step]).to(device), labels[picked].to(device)
            mine = slice(share.start - batch.start, share.stop - batch.start)
            rate = settings.rate(
                (epoch - 1) * steps + step,
                settings.epochs * steps,
                settings.warmup_epochs * steps,
            )
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
            watched = exact.watch() if settings.exact and step == first else contextlib.nullcontext()
            with exact.step(
                seed=settings.seed, epoch=epoch, step=step, rows=mine, batch=whole
            ), watched:
                optimizer.zero_grad()
                logits = model(x)
                criterion(logits, y).backward()
                add_up_gradients(model, optimizer, group)
                if settings.exact:
                    optimizer.step(whole)  # the gradients are of a sum; it divides
                else:
                    for parameter in model.parameters():
                        if parameter.grad is not None:
                            parameter.grad /= whole
                    optimizer.step()
            meter.add(logits, y)
            if progress:
                progress(epoch, step + 1, steps, meter)
            if checkpoint and step + 1 < steps and checkpoint.is_due(group, step):
                sums = meter.flush().clone()
                group.add_up(sums)
                checkpoint.write(
                    group, snapshot(model, optimizer, epoch, step + 1, sums, state, group)
                )
                if group.rank:
                    meter.sums.zero_()
                else:
                    meter.sums.copy_(sums)
        check_divergence(model, optimizer, settings, epoch)
        scored, result = meter.score(group), None
        if held_out and group.rank == 0:
            result = score(model, *held_out)
        is_best, stop = False, 0
        if result:
            best = state["best"]
            is_best = best is None or result.loss < best["loss"]
            if is_best:
                weights = copy.deepcopy(model.state_dict()) if settings.keep == "best" else None
                state["best"] = {"loss": result.loss, "epoch": epoch, "weights": weights}
            since = epoch - state["best"]["epoch"]
            stop = int(bool(settings.patience and since >= settings.patience))
        flag = torch.tensor([stop])
        group.add_up(flag.to(device) if device.type == "cuda" else flag)
        reason = "patience" if flag.item() else "all epochs" if epoch == settings.epochs else ""
        record = Epoch(
            epoch,
            scored,
            result,
            digest(model, optimizer),
            is_best,
            time.monotonic() - started,
            reason,
        )
        state["curve"].append([*record._replace(seconds=0.0)])
        if checkpoint:
            checkpoint.write(group, snapshot(model, optimizer, epoch + 1, 0, None, state, group))
        yield record
        if reason:
            break
    if settings.keep == "best" and state["best"]:
        model.load_state_dict(state["best"]["weights"])


def ended(curve: list[Epoch]) -> bool:
    """Say whether the last record ended the training."""
    return bool(curve and curve[-1].ended)


def make_optimizer(model: nn.Module, settings: Train) -> Any:
    """Return the optimizer; weights alone decay, not biases and what BatchNorm learns."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if settings.weight_decay:
        groups = [
            {"params": part, "weight_decay": decay}
            for part, decay in (
                ([p for p in parameters if p.dim() > 1], settings.weight_decay),
                ([p for p in parameters if p.dim() <= 1], 0.0),
            )
            if part
        ]
    library: Any = exact if settings.exact else torch.optim
    if settings.optimizer == "adamw":
        return library.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0)
    return library.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def add_up_gradients(model: nn.Module, optimizer: Any, group: Group) -> None:
    """Replace the gradients by their sums over all processes, in one message."""
    if group.size == 1:
        return
    if isinstance(optimizer, exact.SGD | exact.AdamW):
        parts = optimizer.gradients
    else:
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        parts = [p.grad for p in model.parameters() if p.grad is not None]
    together = torch.cat([part.flatten() for part in parts])
    group.add_up(together)
    sizes = [part.numel() for part in parts]
    for part, summed in zip(parts, together.split(sizes), strict=True):
        part.copy_(summed.view_as(part))


def snapshot(
    model: nn.Module,
    optimizer: Any,
    epoch: int,
    step: int,
    sums: Tensor | None,
    state: dict[str, Any],
    group: Group,
) -> dict[str, Any]:
    """Return the whole state of a training, for its checkpoint."""
    if group.rank:
        return {}
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "step": step,
        "sums": sums,
        "curve": state["curve"],
        "best": state["best"],
    }


def restore(model: nn.Module, optimizer: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Go on from a snapshot; return what is not the model's or the optimizer's."""
    with torch.no_grad():  # the parameters stay the views that the optimizer made of them
        for key, value in model.state_dict().items():
            value.copy_(found["model"][key])
    optimizer.load_state_dict(found["optimizer"])
    return {key: found[key] for key in ("epoch", "step", "sums", "curve", "best")}


def digest(model: nn.Module, optimizer: Any) -> str:
    """Return the SHA-256 of all parameters, never rounded, and then of the buffers.

    Floats are little-endian; the parameters come in the model's own order.
    """
    masters = {id(p): p for p in model.parameters()}
    if isinstance(optimizer, exact.SGD | exact.AdamW):
        masters |= {id(p): master for p, master in optimizer.named_masters()}
    whole = hashlib.sha256()
    for tensor in [*(masters[id(p)] for p in model.parameters()), *model.buffers()]:
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


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


def check(model: nn.Module, rows: Rows, classes: int, settings: Train, processes: int) -> None:
    """Hold the parameters to the data and the model, by a step on a few rows that changes nothing.

    Raises:
        UsageError: one does not fit; says what would.
        exact.NotExact: exact training meets something that is not exact.
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
        if not isinstance(logits, Tensor) or logits.shape != (few, classes):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ParameterError(
                "train.model",
                f"it must return ({few}, {classes}) for {few} images, and returned {shape}",
                settings.model,
            )
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(
            (logits * 1.0).sum(), list(named.values()), allow_unused=True
        )
    lost = [name for name, gradient in zip(named, found, strict=True) if gradient is None]
    if lost:
        raise ParameterError(
            "train.model", f"training cannot reach its {', '.join(lost)}", settings.model
        )
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])


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
