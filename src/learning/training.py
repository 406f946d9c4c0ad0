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
from pydantic import Field, model_validator
from torch import Tensor, nn

from src import exact
from src.common.parameters import Count, Number, ParameterError, Section, Switch, integer, one_of
from src.learning import models, snapshots
from src.learning.checkpoint import Checkpoint
from src.learning.group import Group
from src.learning.scores import Meter, Score, score

Rows = tuple[Tensor, Tensor]  # images float32 (N, C, H, W), labels int64 (N,)


# Each is called with src.exact or torch.optim, groups of parameters, and the settings of `train`.
OPTIMIZERS: dict[str, Callable[[Any, list[dict[str, Any]], Any], Any]] = {
    "sgd": lambda library, groups, settings: library.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum
    ),
    "adamw": lambda library, groups, settings: library.AdamW(
        groups, lr=settings.learning_rate, weight_decay=0.0
    ),
}


class Train(Section):
    """Which model, and how it is trained."""

    model: Annotated[
        str, one_of(models.MODELS), Field(description="a name in src/learning/models.py")
    ]
    exact: Switch
    seed: Annotated[int, integer(0, 2**63 - 1)]
    init: Annotated[
        Literal["default", "normal", "zeros"], Field(description="default, normal or zeros")
    ]
    epochs: Annotated[int, integer(1, 10_000)]
    batch_size: Count
    optimizer: Annotated[
        str, one_of(OPTIMIZERS), Field(description="a name in src/learning/training.py")
    ]
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
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError(f"momentum belongs to sgd; with {self.optimizer} it must be 0")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError("warmup_epochs must be fewer than epochs")
        return self

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of an epoch, counted from 1."""
        taken, warmup = (epoch - 1) * steps + step, self.warmup_epochs * steps
        if taken < warmup:
            return self.learning_rate * ((taken + 1) / warmup)
        taken, total = taken - warmup, self.epochs * steps - warmup
        if self.schedule == "linear":
            return self.learning_rate * ((total - taken) / total)
        if self.schedule == "cosine":
            return self.learning_rate * exact.cosine(taken, total)
        return self.learning_rate


class Epoch(NamedTuple):
    """What is known after an epoch.

    Attributes:
        number: from 1.
        train: the score of its batches, each taken before its update.
        held_out: the score on the held-out rows; None where there are none or in other processes.
        sha256: digest of the whole state, see `digest`.
        is_best: its held-out loss is lower than that of each epoch before.
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

    def packed(self) -> list[Any]:
        """Return it for a checkpoint: lists and numbers, which torch loads safely, and no time."""
        scores = [score and [*score] for score in (self.train, self.held_out)]
        return [self.number, *scores, self.sha256, self.is_best, 0.0, self.ended]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> "Epoch":
        """Return what `packed` was called on."""
        number, scored, held_out, *rest = packed
        return cls(number, Score(*scored), held_out and Score(*held_out), *rest)


def train(  # noqa: C901  (the loop, whole)
    model: nn.Module,
    rows: Rows,
    settings: Train,
    *,
    held_out: Rows | None = None,
    group: Group | None = None,
    checkpoint: Checkpoint | None = None,
    way: list[snapshots.Snapshot] | None = None,
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
        way: filled with snapshots of the model, by the first process.
        progress: called after each step with epoch, step, steps and the epoch's score so far.

    Yields:
        A record after each epoch, those that a checkpoint remembers first.

    Raises:
        UsageError: training diverges; says in which epoch.
        exact.NotExactError: exact training meets something that is not exact.
    """
    group = group or Group()
    optimizer, device = make_optimizer(model, settings), next(model.parameters()).device
    criterion: nn.Module = nn.CrossEntropyLoss(reduction="sum")
    if settings.exact:
        criterion = exact.CrossEntropyLoss(with_value=False)  # a Meter scores many steps at once
    state: dict[str, Any] = {"epoch": 1, "step": 0, "sums": None, "curve": [], "best": None}
    wanted = snapshots.moments(steps_of(settings, len(rows[1])), settings.epochs)
    way = [] if way is None else way
    way[:] = [snapshots.take(model, 0)]
    if checkpoint and (found := checkpoint.read(group)):
        state, way[:] = restore(model, optimizer, found), found["way"]
    state["way"] = way
    past = [Epoch.unpacked(packed) for packed in state["curve"]]
    yield from past

    for epoch in range(state["epoch"], settings.epochs + 1) if not ended(past) else ():
        started, first = time.monotonic(), state["step"]
        meter = Meter(state["sums"] if group.rank == 0 else None)
        model.train()
        for batch in batches(rows, settings, epoch, first, group):
            step, steps, x, y, _, whole = batch
            for parameters in optimizer.param_groups:
                parameters["lr"] = settings.rate(epoch, step, steps)
            with place(settings, epoch, batch, group.rank, device, is_watched=step == first):
                optimizer.zero_grad()
                logits = model(x.to(device))
                criterion(logits, y.to(device)).backward()
                add_up_gradients(model, optimizer, group)
                if settings.exact:
                    optimizer.step(whole)  # the gradients are of a sum; it divides
                else:
                    divide_gradients(model, whole)
                    optimizer.step()
            # A forward may end in another dtype; exact losses need float64.
            meter.add(logits.double() if settings.exact else logits, y.to(device))
            if group.rank == 0 and (taken := (epoch - 1) * steps + step + 1) in wanted:
                way.append(snapshots.take(model, taken))
            if progress:
                progress(epoch, step + 1, steps, meter)
            if checkpoint and step + 1 < steps and checkpoint.is_due(group, step):
                meter.gather(group)
                state |= {"epoch": epoch, "step": step + 1, "sums": meter.sums}
                state["place"] = f"epoch {epoch}, step {step + 1} of {steps}"
                checkpoint.write(group, snapshot(model, optimizer, state))
        check_divergence(model, optimizer, settings, epoch)
        scored = meter.score(group)
        result = score(model, *held_out) if held_out and group.rank == 0 else None
        is_best = remember(state, result, epoch, model, settings)
        reason = "all epochs" if epoch == settings.epochs else ""
        if group.first_says(is_late(state, settings, epoch), device):
            reason = "patience"
        bits, seconds = digest(model, optimizer), time.monotonic() - started
        record = Epoch(epoch, scored, result, bits, is_best, seconds, reason)
        state["curve"].append(record.packed())
        state |= {"epoch": epoch + 1, "step": 0, "sums": None}
        state["place"] = f"epoch {epoch}" + (", the last one" if reason else "")
        if checkpoint:
            checkpoint.write(group, snapshot(model, optimizer, state))
        yield record
        if reason:
            break
    if settings.keep == "best" and state["best"]:
        model.load_state_dict(state["best"]["weights"])


class Batch(NamedTuple):
    """What a process computes in a step: its rows of a batch, which they are, and of how many."""

    step: int
    steps: int
    images: Tensor
    labels: Tensor
    rows: slice
    whole: int


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


@contextlib.contextmanager
def place(
    settings: Train, epoch: int, batch: Batch, rank: int, device: torch.device, *, is_watched: bool
) -> Iterator[None]:
    """Say which step the block takes, on which rows of the batch; what it draws follows from that.

    An exact step that is watched is refused if something in it is not exact.
    """
    seed, step = settings.seed, batch.step
    if settings.exact:
        now = exact.step(seed=seed, epoch=epoch, step=step, rows=batch.rows, batch=batch.whole)
        with now, exact.watch() if is_watched else contextlib.nullcontext():
            yield
    else:
        # A checkpoint need not hold torch's generators. torch.manual_seed would seed those of all
        # kinds of devices, and keep a note with its traceback of each that is not here.
        words = np.random.SeedSequence([seed, epoch, step, rank])
        number = int(words.generate_state(1, np.uint64)[0] >> 1)
        torch.default_generator.manual_seed(number)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(number)
        yield


def steps_of(settings: Train, rows: int) -> int:
    """Return how many batches an epoch of so many rows has."""
    size = settings.batch_size
    return rows // size if settings.drop_last else -(-rows // size)


def remember(
    state: dict[str, Any], result: Score | None, epoch: int, model: nn.Module, settings: Train
) -> bool:
    """Remember the epoch with the lowest held-out loss; say whether it is this one."""
    if result is None or (state["best"] and result.loss >= state["best"]["loss"]):
        return False
    weights = copy.deepcopy(model.state_dict()) if settings.keep == "best" else None
    state["best"] = {"loss": result.loss, "epoch": epoch, "weights": weights}
    return True


def is_late(state: dict[str, Any], settings: Train, epoch: int) -> bool:
    """Say whether patience is over: so many epochs have gone by since the best one."""
    if not settings.patience or not state["best"]:
        return False
    return bool(epoch - state["best"]["epoch"] >= settings.patience)


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
    return OPTIMIZERS[settings.optimizer](
        exact if settings.exact else torch.optim, groups, settings
    )


def add_up_gradients(model: nn.Module, optimizer: Any, group: Group) -> None:
    """Replace the gradients by their sums over all processes, in one message."""
    if group.size == 1:
        return
    if isinstance(optimizer, exact.Optimizer):
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


def snapshot(model: nn.Module, optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return the whole state of a training, for its checkpoint."""
    return state | {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def divide_gradients(model: nn.Module, rows: int) -> None:
    """Turn gradients of a sum over so many rows into those of the mean."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= rows


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
    masters: dict[int, Tensor] = {id(p): p for p in model.parameters()}
    if isinstance(optimizer, exact.Optimizer):
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
