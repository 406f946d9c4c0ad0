"""Training: one loop for exact sums and plain torch, one process and many, CPU and CUDA."""

import contextlib
import copy
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from src import exact
from src.learning import snapshots
from src.learning.batches import Batch, Rows, batches, steps_of
from src.learning.checkpoint import Checkpoint
from src.learning.checks import check_divergence
from src.learning.group import Group
from src.learning.scores import Meter, Score, score
from src.learning.settings import OPTIMIZERS, Train


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
    history: list[snapshots.Snapshot] | None = None,
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
        history: filled with snapshots of the model, by the first process.
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
    wanted = snapshots.snapshot_steps(steps_of(settings, len(rows[1])), settings.epochs)
    history = [] if history is None else history
    history[:] = [snapshots.take(model, 0)]
    if checkpoint and (found := checkpoint.read(group)):
        state, history[:] = restore(model, optimizer, found), found["history"]
    state["history"] = history
    past = [Epoch.unpacked(packed) for packed in state["curve"]]
    yield from past

    for epoch in range(state["epoch"], settings.epochs + 1) if not ended(past) else ():
        started, first = time.monotonic(), state["step"]
        meter = Meter(state["sums"] if group.rank == 0 else None)
        model.train()
        for batch in batches(rows, settings, epoch, first, group):
            step, steps = batch.step, batch.steps
            x, y = batch.images.to(device), batch.labels.to(device)
            for parameters in optimizer.param_groups:
                parameters["lr"] = settings.rate(epoch, step, steps)
            here = step_context(settings, epoch, batch, group.rank, device, watch=step == first)
            with here:
                optimizer.zero_grad()
                logits = model(x)
                criterion(logits, y).backward()
                add_up_gradients(model, optimizer, group)
                if settings.exact:
                    optimizer.step(batch.size)  # the gradients are of a sum; it divides
                else:
                    divide_gradients(model, batch.size)
                    optimizer.step()
            # A forward may end in another dtype; exact losses need float64.
            meter.add(logits.double() if settings.exact else logits, y)
            if group.rank == 0 and (taken := (epoch - 1) * steps + step + 1) in wanted:
                history.append(snapshots.take(model, taken))
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


@contextlib.contextmanager
def step_context(
    settings: Train, epoch: int, batch: Batch, rank: int, device: torch.device, *, watch: bool
) -> Iterator[None]:
    """Say which step the block takes, on which rows of the batch; what it draws follows from that.

    An exact step that is watched is refused if something in it is not exact.
    """
    seed, step = settings.seed, batch.step
    if settings.exact:
        now = exact.step(seed=seed, epoch=epoch, step=step, rows=batch.rows, batch=batch.size)
        with now, exact.watch() if watch else contextlib.nullcontext():
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
