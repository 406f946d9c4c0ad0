"""What the stages before `report` write, made from an ordinary torch.nn model: torch is the oracle.

The graph is the one that train writes.
"""

import base64
import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from src.common import dataset, files, tensors
from src.learning import graph, snapshots
from tests.support import stages

DIGITS = tuple("0123456789")
TRAIN = stages.SETTINGS["train"] | {"model": "mine", "exact": False, "seed": 1}
TRAIN |= {"epochs": 2, "batch_size": 50}


def html_of(folder: Path) -> Path:
    return folder / "metrics" / "report" / "index.html"


def content_of(folder: Path) -> dict[str, Any]:
    """Return what the page's script reads."""
    text = html_of(folder).read_text(encoding="utf-8")
    (content,) = re.findall(r'<script type="application/json" id="content">(.*)</script>', text)
    found: dict[str, Any] = json.loads(content)
    return found


def pictures_of(content: dict[str, Any]) -> np.ndarray:
    """Unpack the page's images (n, D): places in the levels, a 0 followed by its count."""
    places: list[int] = []
    packed = iter(base64.b64decode(content["images"]))
    for place in packed:
        places.extend([place] if place else [0] * next(packed))
    levels = np.array(content["levels"])[places]
    return levels.reshape(len(content["pictures"]), -1)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digits(rows: int = 400, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's first images and their labels.

    The images are float32 (rows, 1, side, side): of 8 x 8 pixels, or larger ones in a frame.
    """
    found = load_digits()
    scale, frame = side // 8, (side - side // 8 * 8) // 2
    images = np.kron(found.images[:rows, None] / 16, np.ones((scale, scale))).astype(np.float32)
    frames = ((0, 0), (0, 0), (frame, frame), (frame, frame))
    return np.pad(images, frames), found.target[:rows].astype(np.int64)


def fit(model: nn.Module, images: np.ndarray, labels: np.ndarray, steps: int = 60) -> nn.Module:
    """Train a model for some steps on all rows, so that its answers mean something."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.01)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def write(
    model: nn.Module,
    /,
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str] = DIGITS,
    reason: str | None = None,
    **recipe: Any,
) -> None:
    """Write a model's files to the present folder; three quarters of the rows are training rows.

    With a reason the model has no graph. The recipe is TRAIN, changed.
    """
    nodes, why = graph.graph(model, images.shape[1:])
    cut, classes = len(labels) * 3 // 4, len(names)
    dataset.write("data/prepared/train.safetensors", images[:cut], labels[:cut], names)
    dataset.write("data/prepared/test.safetensors", images[cut:], labels[cut:], names)
    state = {name: value.numpy() for name, value in model.eval().state_dict().items()}
    for name in ("model", "start"):
        tensors.write(f"models/{name}.safetensors", state)
    way = [snapshots.arrays([snapshots.take(model, step)]) for step in (0, 3, 6)]
    grown = {
        name: array * np.float32(at / 3) if name.startswith("scale") else array
        for at, taken in enumerate(way, 1)
        for name, array in taken.items()
    }
    tensors.write("models/snapshots.safetensors", grown)
    kept = {
        "shape": list(images.shape[1:]), "classes": classes, "names": list(names),
        "module": repr(model), "from_pictures": False, "ended": "all epochs",
        "epoch": 2, "epochs_run": 2,
        "graph": None if reason else nodes, "graph_reason": reason or why,
    }  # fmt: skip
    Path("models/recipe.json").write_text(json.dumps(TRAIN | kept | recipe), encoding="utf-8")
    found = torch.log_softmax(model(torch.from_numpy(images[cut:])).double(), dim=1).numpy()
    predicted, test = found.argmax(axis=1), labels[cut:]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (test, predicted), 1)
    tensors.write(
        "data/predicted/test.safetensors", {"log_probabilities": found, "confusion": confusion}
    )
    right = int((predicted == test).sum())
    scores = {
        "loss": float(-found[np.arange(len(test)), test].mean()), "accuracy": right / len(test),
        "error_rate": 1 - right / len(test), "macro_f1": 0.5, "correct": right, "total": len(test),
    }  # fmt: skip
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/evaluate.json").write_text(json.dumps({"test": scores}), encoding="utf-8")
    header = ("epoch", "split", "loss", "accuracy", "sha256")
    epochs = [(at, split, 1 / at, 0.5, f"{at:08x}") for at in (1, 2) for split in ("train", "test")]
    files.write_csv("metrics/plots/learning_curve.csv", header, epochs)
    header = ("label", "precision", "recall", "f1", "support")
    files.write_csv(
        "metrics/plots/per_class.csv", header, [(name, 0.5, 0.5, 0.5, 1) for name in names]
    )
