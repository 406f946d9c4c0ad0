"""Measure trainings against what one would use instead, side by side in one process.

`make bench` measures everything; `python -m benchmarks.bench NAME...` what is named: softmax,
models, checkpoints, gpu. `dvc repro` has to have run: the rows are read from data/prepared. What is
compared runs in turn, and of each the fastest run counts. Only ratios mean something elsewhere.
"""

import contextlib
import functools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as stages/__init__.py, before torch

import torch
from torch import Tensor

from benchmarks import tutorials
from src import exact
from src.common import dataset, parameters
from src.learning import checkpoint, device, group, models, training
from src.learning.settings import Train

ROOT = Path(__file__).parents[1]
TRAIN_DATA = str(ROOT / "data/prepared/train.safetensors")
ROWS = 3000  # of which the larger models take an epoch; the smaller ones of ten times as many
SMALL = ("softmax_regression", "mlp")
STEP: dict[str, Any] = {"epochs": 1, "learning_rate": 0.05, "momentum": 0.9, "shuffle": True}


@functools.cache
def committed() -> dict[str, Any]:
    """Return the section `train` of params.yaml: to read it takes as long as many small steps."""
    return parameters.read("train", Train).model_dump()


def train(
    images: Tensor,
    labels: Tensor,
    kept: checkpoint.Checkpoint | None = None,
    progress: Any = None,
    **changes: object,
) -> str:
    """Train a model on the device of the images; return the digest of its parameters."""
    settings = Train.model_validate(committed() | changes)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    how: dict[str, Any] = {"init": "default", "seed": 777, "is_exact": settings.exact}
    model = models.start(settings.model, shape, 10, **how)
    if settings.exact:
        exact.convert(model)
    model.to(images.device)
    rows, options = (images, labels), {"checkpoint": kept, "progress": progress}
    epochs = list(training.train(model, rows, settings, **options))
    assert len(epochs) == settings.epochs, "nothing was trained"
    return epochs[-1].sha256


def fastest(repeats: int, **functions: Callable[[], object]) -> dict[str, float]:
    """Run functions in turn, and return the least seconds of each."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


class Table:
    """The rows that are printed and written."""

    def __init__(self) -> None:
        """Print the head of the table."""
        self.rows: list[dict[str, object]] = []
        print(f"{'what: against':58}{'ours s':>9}{'against':>9}{'ratio':>8}")

    def add(self, what: str, ours: float, against: float) -> None:
        """Add a row: seconds of ours and of what it is held against."""
        assert min(ours, against) > 0, f"{what}: nothing was measured"
        self.rows.append({"what": what, "ours": ours, "against": against, "ratio": ours / against})
        print(f"{what:58}{ours:9.3f}{against:9.3f}{ours / against:8.3f}", flush=True)


def softmax(table: Table, images: Tensor, labels: Tensor) -> None:
    """Five epochs of softmax regression against the tutorial's loops in float32."""
    flat = images.flatten(1)
    tutorials.data_loader(flat[:100], labels[:100])  # imports what torch.optim imports late
    best = fastest(
        2,
        ours=lambda: train(images, labels),
        by_hand=lambda: tutorials.by_hand(flat, labels),
        loader=lambda: tutorials.data_loader(flat, labels),
    )
    table.add("softmax, 5 epochs: the tutorial by hand", best["ours"], best["by_hand"])
    table.add("softmax, 5 epochs: the tutorial's DataLoader", best["ours"], best["loader"])


def larger(table: Table, images: Tensor, labels: Tensor) -> None:
    """An epoch of each model against the usual loop with torch.nn, in float64 and in float32."""

    def usual(name: str, rows: Tensor, y: Tensor) -> None:
        model = models.build(name, (1, int(rows.shape[2]), int(rows.shape[3])), 10).to(rows.dtype)
        tutorials.usual(model, rows, y, STEP["learning_rate"], STEP["momentum"])

    for model in models.MODELS:
        count = ROWS * 10 if model in SMALL else ROWS
        x, y = images[:count], labels[:count]
        run = partial(train, x, y, model=model, **STEP)
        functions = {"exact": run, "plain": partial(run, exact=False)}
        best = fastest(
            3,
            **functions,
            float64=partial(usual, model, x.double(), y),
            float32=partial(usual, model, x, y),
        )
        for name in ("float64", "float32"):
            table.add(f"{model}, exact: torch.nn in {name}", best["exact"], best[name])
        table.add(f"{model}, exact: false: torch.nn in float32", best["plain"], best["float32"])


def checkpoints(table: Table, images: Tensor, labels: Tensor) -> None:
    """What checkpoints cost in an epoch of all rows, and a start that goes on from one.

    A part of the rows is trained on; the seconds of an epoch are those times the number of parts.
    """
    x, y, pause = images[:ROWS], labels[:ROWS], parameters.machine().checkpoint_seconds
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["DVC_ROOT"] = folder
        for model in ("cnn", "resnet"):
            run, kept = partial(train, x, y, model=model, **STEP), Timed(model, pause, x.device)
            epoch = fastest(1, part=partial(run, kept))["part"] * len(labels) / ROWS
            kept.remove()
            cost = kept.took * (1 + epoch // pause)  # one at its end, and within it each `pause`
            table.add(f"{model}, checkpoints of an epoch: the epoch", cost, epoch)
            until(2, partial(run, Timed(model, 1e-9, x.device)))  # it leaves one of a step
            starts = {
                "resumed": partial(until, 1, partial(run, kept)),
                "fresh": partial(until, 1, run),
            }
            best = fastest(2, **starts)
            table.add(f"{model}, a start after a stop: one anew", best["resumed"], best["fresh"])
        del os.environ["DVC_ROOT"]


class Timed(checkpoint.Checkpoint):
    """A checkpoint that says how many seconds it took to write the last one."""

    took = 0.0

    def write(self, processes: group.Group, state: dict[str, Any]) -> None:
        """Write, and measure."""
        started = time.perf_counter()
        super().write(processes, state)
        self.took = time.perf_counter() - started


def until(steps: int, run: Callable[..., object]) -> None:
    """Run a training until it has taken so many steps."""
    taken = iter(range(1, steps))

    def count(*_: object) -> None:
        if next(taken, None) is None:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt), contextlib.redirect_stdout(None):
        run(progress=count)


def gpu(table: Table, images: Tensor, labels: Tensor) -> None:
    """Epochs on the GPU against the CPU's, with the same bits."""
    if not torch.cuda.is_available():
        print("gpu: skipped, torch.cuda.is_available() says that there is none")
        return
    for model in ("softmax_regression", "cnn"):
        places = {
            place: (images[:ROWS].to(place), labels[:ROWS].to(place)) for place in ("cuda", "cpu")
        }
        runs = {place: partial(train, *rows, model=model, **STEP) for place, rows in places.items()}
        assert runs["cuda"]() == runs["cpu"](), f"{model}: the GPU's bits are not the CPU's"
        best = fastest(2, **runs)
        table.add(f"{model} on {torch.cuda.get_device_name()}: CPU", best["cuda"], best["cpu"])


MEASUREMENTS = {"softmax": softmax, "models": larger, "checkpoints": checkpoints, "gpu": gpu}


def main() -> None:
    names = sys.argv[1:] or list(MEASUREMENTS)
    if unknown := set(names) - {*MEASUREMENTS}:
        sys.exit(f"bench: unknown: {', '.join(unknown)}; known: {' '.join(MEASUREMENTS)}")
    os.chdir(ROOT)
    torch.set_num_threads(1)
    device.keep_memory()  # as stages/train.py
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    images, labels = dataset.read(TRAIN_DATA)[:2]
    table = Table()
    for name in names:
        MEASUREMENTS[name](table, images, labels)
    machine = {
        "cores": os.cpu_count(), "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(), "torch": torch.__version__, "load before": load,
    }  # fmt: skip
    print(machine)
    results = json.dumps({"machine": machine, "rows": table.rows}, indent=2)
    (ROOT / "benchmarks/results.json").write_text(results + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
