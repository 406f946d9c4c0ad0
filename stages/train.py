"""Train the chosen model, and write it with its recipe, its start and its learning curve."""

import sys
import time
from typing import Any

import numpy
import torch
from tqdm import tqdm

from src import exact
from src.common import command, dataset, files, parameters, tensors
from src.learning import checkpoint, device, graph, group, models, training
from src.learning.scores import Meter
from src.learning.training import Train

TRAIN_DATA = "data/prepared/train.safetensors"
VALIDATION_DATA = "data/prepared/validation.safetensors"
TEST_DATA = "data/prepared/test.safetensors"
MODEL = "models/model.safetensors"
START = "models/start.safetensors"
RECIPE = "models/recipe.json"
LEARNING_CURVE = "metrics/plots/learning_curve.csv"


def main() -> None:
    settings, machine = parameters.read("train", Train), parameters.machine()
    if machine.processes > 1 and not group.is_under_torchrun():
        group.start_processes(machine.processes, "stages.train")
    torch.set_num_threads(machine.threads)
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
        recipe |= {"names": [*rows.names], "module": repr(model)}
        nodes, reason = graph.graph(model, shape)
        if settings.exact:
            exact.convert(model, processes.add_up if processes.size > 1 else None)
        model.to(chosen)
        training.check(model, (rows.images, rows.labels), classes, settings, processes.size)
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
            versions=versions[:2] if settings.exact else versions,
        )
        kept = checkpoint.Checkpoint(name, machine.checkpoint_seconds, chosen)
        images, labels = rows.images, rows.labels
        if processes.size == 1:
            images, labels = images.to(chosen), labels.to(chosen)  # several send their shares
        epochs = training.train(
            model,
            (images, labels),
            settings,
            held_out=held_out if is_first else None,
            group=processes,
            checkpoint=kept,
            progress=Progress(settings) if is_first else None,
        )
        curve = follow(epochs, split, settings) if is_first else [*epochs]
    except exact.NotExactError as error:
        raise parameters.ParameterError("train.model", error, settings.model) from error
    if not is_first:
        return
    best = [epoch for epoch in curve if epoch.is_best]
    kept_epoch = best[-1].number if settings.keep == "best" else curve[-1].number
    print(
        f"train: keeps epoch {kept_epoch} of {len(curve)}; ended by {curve[-1].ended}", flush=True
    )
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
    tensors.write(MODEL, models.state(model))
    kept.remove()


def held_out_rows(settings: Train) -> tuple[str, training.Rows]:
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


def follow(epochs: Any, split: str, settings: Train) -> list[training.Epoch]:
    """Print a line for each epoch, and return them all."""
    curve: list[training.Epoch] = []
    width = len(str(settings.epochs))
    for epoch in epochs:
        curve.append(epoch)
        if not epoch.seconds:  # a checkpoint remembers it
            continue
        held = epoch.held_out
        assert held  # the first process always has rows to score
        tqdm.write(
            f"epoch {epoch.number:>{width}}/{settings.epochs}  train loss {epoch.train.loss:.4f}"
            f"  {split} loss {held.loss:.4f}  {split} accuracy {held.accuracy:.2%}"
            f"  {epoch.sha256[:8]}  {epoch.seconds:.1f} s"
        )
        sys.stdout.flush()
    return curve


class Progress:
    """Shows the steps of an epoch: a bar on a terminal, else a line at least every 30 s."""

    def __init__(self, settings: Train) -> None:
        """Start with the first epoch."""
        self.settings, self.is_terminal = settings, sys.stderr.isatty()
        self.shown = self.started = time.monotonic()
        self.bar: Any = None
        self.epoch, self.is_first = 0, True

    def __call__(self, epoch: int, step: int, steps: int, meter: Meter) -> None:
        """Show a step, at most once a second."""
        now = time.monotonic()
        if epoch != self.epoch:
            self.epoch, self.first = epoch, step - 1
            self.started = now
            if step > 1 or (self.is_first and epoch > 1):
                tqdm.write(f"train: goes on after epoch {epoch - 1}, step {step - 1} of {steps}")
            self.is_first = False
        if self.is_terminal and (now - self.shown >= 1 or step == steps):
            self.shown = now
            if self.bar is None or self.bar.total != steps or self.bar.n > step:
                self.bar = tqdm(total=steps, unit="step", leave=False, initial=step - 1)
            self.bar.set_description(f"epoch {epoch}/{self.settings.epochs}", refresh=False)
            speed = (step - self.first) * self.settings.batch_size / max(1e-9, now - self.started)
            self.bar.set_postfix(
                {"loss": f"{meter.score().loss:.4f}", "rows/s": f"{speed:,.0f}"}, refresh=False
            )
            self.bar.n = step
            self.bar.refresh()
            if step == steps:
                self.bar.close()
                self.bar = None
        elif not self.is_terminal and now - self.shown >= 30:
            self.shown = now
            print(
                f"train: epoch {epoch}, step {step} of {steps}, loss {meter.score().loss:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    command.run_stage("train", main)
