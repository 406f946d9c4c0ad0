"""Train each model on a few rows, and print which kernels computed and what came out.

`python -m tests.support.hashes DATA ROWS DEVICE THREADS...`, alone or under torchrun. DATA is a
file as prepare writes them, of which so many rows are taken. Prints the kernels that torch and MKL
take, as they fall back in silence to what the processor has, then for each number of threads a
line of JSON.
"""

import hashlib
import json
import sys

import torch

from src.common import dataset
from src.learning import group, models, training
from src.learning.training import Train

PLAIN = {"device": "cpu", "threads": 1, "seed": 777, "init": "uniform", "epochs": 2}
PLAIN |= {"batch_size": 100, "learning_rate": 0.5, "momentum": 0, "decay": "none"}
PLAIN |= {"shuffle": False, "shift": 0, "drop_last": False}
DEEP = {"momentum": 0.9, "decay": "linear", "shuffle": True}
RECIPES = {
    "softmax_regression": PLAIN | {"model": "softmax_regression"},
    "mlp": PLAIN | DEEP | {"model": "mlp", "learning_rate": 0.1},
    "cnn": PLAIN | DEEP | {"model": "cnn", "learning_rate": 0.05, "shift": 1},
    # Of plain float64 each step amplifies the noise here, until the weights have nothing in common.
    "chaotic": PLAIN | {"model": "softmax_regression", "learning_rate": 5, "epochs": 4},
    "batch 1": PLAIN | {"model": "softmax_regression", "batch_size": 1},
}


def main(path: str, rows: str, device: str, *threads: str) -> None:
    chosen = torch.device(device)
    processes = group.join(chosen)
    if processes.rank == 0:  # alone, as lines of two processes would run into one another
        print(f"torch takes {torch.backends.cpu.get_cpu_capability()}", flush=True)
        square = torch.eye(2, dtype=torch.float64)
        with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
            torch.mm(square, square)
    images, labels = (part[: int(rows)].to(chosen) for part in dataset.read(path))
    for count in threads:
        torch.set_num_threads(int(count))
        found = {}
        for name, recipe in RECIPES.items():
            if recipe["batch_size"] < processes.size:
                continue
            model = models.build(recipe["model"], images.shape[1], 10, chosen)
            model.initialize(recipe["init"], recipe["seed"])
            scores = list(training.train(model, images, labels, Train(**recipe), processes))
            predicted = model.log_probabilities(images).cpu().numpy()
            digest = hashlib.sha256(predicted.tobytes() + repr(scores).encode()).hexdigest()
            found[name] = [model.sha256(), digest]
        if processes.rank == 0:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
