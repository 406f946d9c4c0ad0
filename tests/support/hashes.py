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

from src import exact
from src.common import dataset
from src.learning import group, models, scores, training
from src.learning.settings import Train
from tests.support import stages

PLAIN = stages.SETTINGS["train"] | {"epochs": 2}
DEEP = PLAIN | {"momentum": 0.9, "schedule": "linear", "shuffle": True, "learning_rate": 0.05}
ADAMW = PLAIN | {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01}
ADAMW |= {"schedule": "cosine", "shuffle": True, "shift": 1, "epochs": 1, "batch_size": 30}
RECIPES = {
    "softmax_regression": PLAIN | {"model": "softmax_regression"},
    "mlp": DEEP | {"model": "mlp", "weight_decay": 0.001},
    "cnn": DEEP | {"model": "cnn", "shift": 1},
    "lenet": ADAMW | {"model": "lenet"},
    "resnet": ADAMW | {"model": "resnet"},
    "resnet by sgd": DEEP | {"model": "resnet", "epochs": 1, "batch_size": 30},
    # Of plain float64 each step amplifies the noise here, until the weights have nothing in common.
    "chaotic": PLAIN | {"model": "softmax_regression", "learning_rate": 5, "epochs": 4},
    "batch 1": PLAIN | {"model": "softmax_regression", "batch_size": 1},
}


def main(path: str, count: str, device: str, *threads: str) -> None:
    chosen = torch.device(device)
    processes = group.join(chosen)
    if processes.rank == 0:  # alone, as lines of two processes would run into one another
        print(f"torch takes {torch.backends.cpu.get_cpu_capability()}", flush=True)
        square = torch.eye(2, dtype=torch.float64)
        with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
            torch.mm(square, square)
    data = dataset.read(path)
    images, labels = (part[: int(count)].to(chosen) for part in (data.images, data.labels))
    for number in threads:
        torch.set_num_threads(int(number))
        found = {}
        for name, recipe in RECIPES.items():
            settings = Train(**recipe)
            if settings.batch_size < processes.size:
                continue
            shape, made = tuple(images.shape[1:]), {"init": settings.init, "seed": 777}
            model = models.start(settings.model, shape, 10, **made, is_exact=True)
            exact.convert(model, processes.add_up if processes.size > 1 else None).to(chosen)
            epochs = list(training.train(model, (images, labels), settings, group=processes))
            predicted = scores.log_probabilities(model, images).numpy()
            said = repr([epoch.train for epoch in epochs]).encode()
            digest = hashlib.sha256(predicted.tobytes() + said).hexdigest()
            found[name] = [epochs[-1].sha256, digest]
        if processes.rank == 0:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
