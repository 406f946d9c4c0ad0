"""Measure how far rounding noise is from changing a bit of the results; see docs/bits.md.

Trains each recipe on the prepared data, in a process for each pair of kernel sets, in it with
each thread count and both gradients, and compares the values before they are rounded.
Usage: `python -m tools.measure_bits THREADS RECIPE ...`, such as `1,2,4 default`.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from src import dataset, softmax_regression, training
from src.records import DECIMALS
from src.softmax_regression import GRID

DEFAULT = {
    "init": "uniform",
    "epochs": 5,
    "batch_size": 100,
    "learning_rate": 0.5,
    "seed": 777,
    "shuffle": False,
    "drop_last": False,
}
RECIPES = {
    "default": DEFAULT,
    "normal": DEFAULT | {"init": "normal"},
    "slow": DEFAULT | {"epochs": 15, "learning_rate": 0.1, "shuffle": True, "drop_last": True},
    "long": DEFAULT | {"epochs": 20, "shuffle": True},
    "chaotic": DEFAULT | {"learning_rate": 5.0, "shuffle": True},
}
# Kernel sets of torch and of MKL as processors pair them: AMD's and Intel's of growing width.
KERNELS = (
    ("default", "generic"),
    ("avx2", "generic"),
    ("avx512", "generic"),
    ("default", "SSE4_2"),
    ("avx2", "AVX2"),
    ("avx512", "AVX512"),
)


def kernels(aten: str, mkl: str, folder: Path) -> dict[str, str]:
    """Return the environment variables that make torch and MKL take these kernels.

    Both fall back to what the processor has. MKL heeds its variable on Intel's only, and takes
    generic kernels elsewhere. It asks functions of its own whose the processor is; a preloaded
    library, which `cc` makes in `folder`, answers in their place.

    Args:
        aten: default, avx2 or avx512.
        mkl: generic, SSE4_2, AVX2 or AVX512.
        folder: takes the library.
    """
    source = "".join(
        f"int {asked}(void) {{ return {int(mkl != 'generic')}; }}\n"
        for asked in ("mkl_serv_intel_cpu_true", "mkl_serv_intel_cpu")  # to act, and to print
    )
    library = folder / f"{mkl}.so"
    command = ["cc", "-shared", "-fPIC", "-o", library, "-x", "c", "-"]
    subprocess.run(command, input=source, text=True, check=True)
    chosen = {} if mkl == "generic" else {"MKL_ENABLE_INSTRUCTIONS": mkl}
    return chosen | {
        "ATEN_CPU_CAPABILITY": aten,
        "LD_PRELOAD": str(library),
        # Threads that outnumber the idle cores must not wait by spinning.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def autograd_gradient(
    parameters: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, gradient: torch.Tensor
) -> torch.Tensor:
    """Give what `training.closed_form_gradient` gives, by torch's autograd."""
    leaf = parameters.detach().requires_grad_()
    log_probabilities = torch.log_softmax(inputs @ leaf.T, dim=1)
    loss = torch.nn.functional.nll_loss(log_probabilities, labels, reduction="sum")
    gradient.copy_(torch.autograd.grad(loss, leaf)[0])
    return log_probabilities.detach().T


GRADIENTS = {"closed form": training.closed_form_gradient, "autograd": autograd_gradient}


def measure(recipe: str, gradient: str, threads: int) -> dict[str, np.ndarray]:
    """Train once; return the values that the stages round, before they are rounded."""
    torch.set_num_threads(threads)
    images, labels = dataset.read("data/prepared/train.safetensors")
    test_images, test_labels = dataset.read("data/prepared/test.safetensors")
    settings = dict(RECIPES[recipe])
    parameters = softmax_regression.start(settings.pop("init"), settings["seed"])
    gaps, trained, losses = [], [], []

    def watched_gradient(*arguments: torch.Tensor) -> torch.Tensor:
        log_probabilities = GRADIENTS[gradient](*arguments)
        gaps.append(gap(log_probabilities.T))
        return log_probabilities

    for loss, _ in training.train(
        parameters, images, labels, gradient_of=watched_gradient, **settings
    ):
        trained.append(parameters.clone())
        scores = softmax_regression.log_probabilities(
            softmax_regression.to_grid(parameters), test_images, 1000
        )
        losses += [loss, softmax_regression.cross_entropy(scores, test_labels)]
        gaps.append(gap(scores))
    return {
        "weights": torch.stack(trained).numpy(),
        "losses": np.array(losses),
        "log-probabilities": scores.numpy(),
        "gap": np.array(min(gaps)),
    }


def gap(scores: torch.Tensor) -> float:
    """Return the smallest difference between a row's best score and its second."""
    best = scores.topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).min().item()


def report(recipe: str, runs: list[dict[str, np.ndarray]]) -> None:
    """Print what the runs of a recipe have in common and how far apart they are."""
    print(f"\n{recipe}: {len(runs)} runs")
    for name, step in (("weights", GRID), ("losses", 10.0**-DECIMALS)):
        values = np.array([run[name] for run in runs])
        noise = np.ptp(values, axis=0).max()
        # Rounding changes at the middle between two multiples of the step.
        distance = np.abs(values / step % 1 - 0.5).min() * step
        rounded = len({np.round(run / step).tobytes() for run in values})
        print(
            f"  {values[0].size} {name}: noise {noise:.1e}, nearest boundary {distance:.1e}, "
            f"{distance / noise:.0e} times; {rounded} distinct when rounded; "
            f"chance for other settings {values[0].size * noise / step:.0e}"
        )
    noise = np.ptp([run["log-probabilities"] for run in runs], axis=0).max()
    smallest = min(run["gap"] for run in runs)
    print(f"  log-probabilities: noise {noise:.1e}, smallest gap of a prediction {smallest:.1e}")
    cost_of_grid(torch.from_numpy(runs[0]["weights"][-1]))


def cost_of_grid(parameters: torch.Tensor) -> None:
    """Print what grids of several steps change against the unrounded parameters."""
    images, labels = dataset.read("data/prepared/test.safetensors")
    exact = softmax_regression.log_probabilities(parameters, images, 1000)
    for exponent in range(-8, -24, -2):
        rounded = torch.round(parameters * 2.0**-exponent) * 2.0**exponent
        scores = softmax_regression.log_probabilities(rounded, images, 1000)
        changed = (scores.argmax(1) != exact.argmax(1)).sum()
        hits = (scores.argmax(1) == labels).sum() - (exact.argmax(1) == labels).sum()
        loss = softmax_regression.cross_entropy(scores, labels)
        loss -= softmax_regression.cross_entropy(exact, labels)
        print(f"  grid 2^{exponent}: {changed} predictions, {hits:+} hits, loss {loss:+.1e}")


def main(threads: str, *recipes: str) -> None:
    """Run each pair of kernel sets in a process of its own and report on each recipe."""
    with tempfile.TemporaryDirectory() as folder:
        for aten, mkl in KERNELS:
            print(f"measuring: torch {aten}, MKL {mkl}", flush=True)
            command = [sys.executable, "-m", "tools.measure_bits"]
            command += [f"--into={folder}/{aten}-{mkl}", threads, *recipes]
            environment = os.environ | kernels(aten, mkl, Path(folder))
            subprocess.run(command, env=environment, check=True)
        for recipe in recipes:
            paths = sorted(Path(folder).glob(f"*-{recipe}-*.npz"))
            report(recipe, [dict(np.load(path)) for path in paths])


def measure_into(stem: str, threads: str, *recipes: str) -> None:
    """Write what `measure` returns to a file for each recipe, gradient and thread count."""
    for recipe, gradient, count in itertools.product(recipes, GRADIENTS, threads.split(",")):
        np.savez(f"{stem}-{recipe}-{gradient}-{count}.npz", **measure(recipe, gradient, int(count)))


if __name__ == "__main__":
    first, *others = sys.argv[1:] or ("1", *RECIPES)
    if first.startswith("--into="):
        measure_into(first.removeprefix("--into="), *others)
    else:
        main(first, *others)
