"""Train the chosen model, and write it with its recipe, its start and its learning curve."""

import contextlib
import sys
import time
from typing import Any

import numpy
import torch
from tqdm import tqdm

from src import exact
from src.common import command, dataset, files, parameters, tensors
from src.learning import (
    checkpoint,
    checks,
    device,
    graph,
    group,
    models,
    snapshots,
    training,
)
from src.learning.batches import Rows
from src.learning.scores import Meter
from src.learning.settings import Train

TRAIN_DATA = "data/prepared/train.safetensors"
VALIDATION_DATA = "data/prepared/validation.safetensors"
TEST_DATA = "data/prepared/test.safetensors"
MODEL = "models/model.safetensors"
START = "models/start.safetensors"
SNAPSHOTS = "models/snapshots.safetensors"
RECIPE = "models/recipe.json"
LEARNING_CURVE = "metrics/plots/learning_curve.csv"


def main() -> None:
    settings, machine = parameters.read("train", Train), parameters.machine()
    if machine.processes > 1 and not group.is_under_torchrun():
        group.start_processes(machine.processes, "stages.train")
    torch.set_num_threads(machine.threads)
    device.keep_memory()
    chosen = device.choose("machine.device", machine.device, settings.exact)
    processes = group.join(chosen)
    is_first = processes.rank == 0
    # One process of each machine looks through the whole file. The others map the rows they need.
    rows = dataset.read(TRAIN_DATA, verify=processes.local_rank == 0)
    split, held_out = held_out_rows(settings)
    shape, classes = tuple(rows.images.shape[1:]), len(rows.names)
    recipe = settings.model_dump() | {"shape": [*shape], "classes": classes}
    data = tensors.recorded_checksum(TRAIN_DATA) + tensors.recorded_checksum(TEST_DATA)
    processes.agree(**recipe, data=data)
    try:
        model = models.start(
            settings.model,
            shape,
            classes,
            init=settings.init,
            seed=settings.seed,
            is_exact=settings.exact,
        )
        recipe |= {"names": [*rows.names], "from_pictures": rows.from_pictures}
        recipe |= {"module": repr(model)}
        nodes, reason = graph.graph(model, shape)
        if settings.exact:
            exact.convert(model, processes.add_up if processes.size > 1 else None)
        model.to(chosen)
        checks.check(model, (rows.images, rows.labels), classes, settings, processes.size)
        start = models.state(model)
        versions = (
            torch.__version__,
            numpy.__version__,
            torch.get_num_threads(),
            str(chosen),
            processes.size,
        )
        name = checkpoint.key(
            **recipe,
            data=data,
            held_out=tensors.recorded_checksum(VALIDATION_DATA),
            code=checkpoint.code(),
            machine=None if settings.exact else versions,
        )
        kept = checkpoint.Checkpoint(name, machine.checkpoint_seconds, chosen)
        images, labels = rows.images, rows.labels
        if processes.size == 1:
            images, labels = images.to(chosen), labels.to(chosen)  # several send their shares
        progress = Progress(settings)
        history: list[snapshots.Snapshot] = []
        epochs = training.train(
            model,
            (images, labels),
            settings,
            held_out=held_out if is_first else None,
            group=processes,
            checkpoint=kept,
            history=history,
            progress=progress if is_first else None,
        )
        curve = follow(epochs, progress, split, settings) if is_first else [*epochs]
    except exact.TooManyRowsError as error:
        raise parameters.ParameterError("train.batch_size", error, settings.batch_size) from error
    except exact.NotExactError as error:
        raise parameters.ParameterError("train.model", error, settings.model) from error
    if not is_first:
        return
    best = [epoch for epoch in curve if epoch.is_best]
    kept_epoch = best[-1].number if settings.keep == "best" else curve[-1].number
    why = "all epochs are done"
    if curve[-1].ended == "patience":
        why = f"no epoch was better for {settings.patience}, so it ends early"
    print(f"train: {why}; keeps the weights of epoch {kept_epoch} of {len(curve)}", flush=True)
    recipe |= {"epoch": kept_epoch, "epochs_run": len(curve), "ended": curve[-1].ended}
    recipe |= {"graph": nodes, "graph_reason": reason}
    table = []
    for epoch in curve:
        table.append((epoch.number, "train", *epoch.train, epoch.sha256[:8]))
        if epoch.held_out:
            table.append((epoch.number, split, *epoch.held_out, epoch.sha256[:8]))
    files.write_csv(LEARNING_CURVE, ("epoch", "split", "loss", "accuracy", "sha256"), table)
    files.write_json(RECIPE, recipe)
    tensors.write(START, start)
    tensors.write(SNAPSHOTS, snapshots.arrays(history))
    tensors.write(MODEL, models.state(model))
    kept.remove()


def held_out_rows(settings: Train) -> tuple[str, Rows]:
    """Return the rows that each epoch is scored on, and the name of their split.

    They are the validation rows; only where there are none, the test rows, and then nothing may be
    chosen by them.

    Raises:
        UsageError: settings choose an epoch, and there are no validation rows.
    """
    validation = dataset.read(VALIDATION_DATA)
    if len(validation.labels):
        return "validation", (validation.images, validation.labels)
    for key, value, off in (
        ("keep", settings.keep, "last"),
        ("patience", settings.patience, 0),
    ):
        if value != off:
            raise parameters.ParameterError(
                f"train.{key}",
                f"must be {off} where there are no validation rows; set prepare.validation_rows",
                value,
            )
    test = dataset.read(TEST_DATA)
    return "test", (test.images, test.labels)


def follow(epochs: Any, progress: "Progress", split: str, settings: Train) -> list[training.Epoch]:
    """Print a line for each epoch, and return them all; take away the last bar in any case."""
    curve: list[training.Epoch] = []
    width = len(str(settings.epochs))
    with contextlib.closing(progress):
        for epoch in epochs:
            curve.append(epoch)
            if not epoch.seconds:  # a checkpoint remembers it
                continue
            progress.close()
            held = epoch.held_out
            assert held  # the first process always has rows to score
            print(
                f"epoch {epoch.number:>{width}}/{settings.epochs}"
                f"  train loss {epoch.train.loss:.4f}"
                f"  {split} loss {held.loss:.4f}  {split} accuracy {held.accuracy:.2%}"
                f"  {epoch.sha256[:8]}  {epoch.seconds:.1f} s",
                flush=True,
            )
    return curve


class Progress:
    """Shows the steps of an epoch: a bar on a terminal, else a line every 30 s."""

    BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} steps{postfix}, {remaining} left"

    def __init__(self, settings: Train) -> None:
        """Show nothing yet."""
        self.settings, self.is_terminal = settings, sys.stderr.isatty()
        self.bar: Any = None

    def __call__(self, epoch: int, step: int, steps: int, meter: Meter) -> None:
        """Show a step, but on a terminal not twice a second, as the loss so far costs time."""
        now, name = time.monotonic(), f"epoch {epoch}/{self.settings.epochs}"
        if self.bar is None:
            self.first, self.started, self.shown = step, now, now
            self.bar = tqdm(
                total=steps,
                initial=step,
                desc=name,
                bar_format=self.BAR,
                delay=1,  # nothing of an epoch that is over at once
                mininterval=0,
                miniters=1,
                leave=False,
                dynamic_ncols=True,
                disable=not self.is_terminal,
            )
        # The bar also has the last step, as it stays while held-out rows are scored.
        pause = 30 if not self.is_terminal else 1 if step < steps else 0
        if now - self.shown < pause:
            return
        self.shown = now
        speed = (step - self.first) * self.settings.batch_size / (now - self.started)
        said = f"loss {meter.score().loss:.4f}, {speed:,.0f} rows/s"
        if self.is_terminal:
            self.bar.set_postfix_str(said, refresh=False)
            self.bar.update(step - self.bar.n)
        else:
            print(f"train: {name}, step {step} of {steps}, {said}", flush=True)

    def close(self) -> None:
        """Take the bar away: the epoch has ended."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


if __name__ == "__main__":
    command.run_stage("train", main)
