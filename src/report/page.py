"""The report's page: one HTML file that computes its answers itself, and so carries the model.

The functions turn what the stages wrote into texts of the page and into values for its script.
page.html, page.css and the scripts beside it are put together into the one file.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from src.report import confidence

# Images that the page carries, besides one for each cell of the matrix and each level of doubt.
SAMPLES, CELLS = 100, 300
# Pixels that the page carries at most, and parameters: it is a file to send to somebody.
PIXELS, PARAMETERS = 2_000_000, 2_000_000
WAY = 2_200_000  # characters of the snapshots, at most
MANY = 60  # classes; of more, the page shows the answer and no picture of each
# With these parameters the page trains the model.
RECIPE = (
    *("epochs", "epochs_run", "batch_size", "learning_rate", "momentum", "schedule"),
    *("shuffle", "drop_last"),
)
# And these decide whether it does, and computes it at all.
DECIDING = ("exact", "optimizer", "weight_decay", "warmup_epochs", "shift", "seed")
PARTS = ("model", "training", "ink", "board", "essay")  # the scripts, in their order
PASSING = ("input", "output", "flatten", "reshape", "identity", "dropout")


def template(folder: str) -> str:
    """Put the page's files together: page.html, with page.css and the scripts inside."""
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in Path(folder).iterdir()
        if path.suffix in (".html", ".css", ".js")
    }
    script = "".join(texts[f"{name}.js"] for name in PARTS)
    whole = texts["page.html"].replace("{{style}}", texts["page.css"])
    return whole.replace("{{script}}", f'"use strict";\n{script}')


def render(template: str, content: Mapping[str, Any], **texts: str) -> str:
    """Fill page.html with the values for its script and with texts, which are HTML.

    Raises:
        KeyError: the template names a text that is not given.
    """
    script, style = digest(inside(template, "script")), digest(inside(template, "style"))
    parts = texts | {
        "policy": f"default-src 'none'; script-src {script}; style-src {style}; "
        "img-src data:; worker-src blob:; base-uri 'none'; form-action 'none'",
        "content": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return texts for the figures of evaluate; raises KeyError or ValueError without them."""
    forms = {"accuracy": ".2%", "correct": ",", "total": ",", "loss": ".4f", "macro_f1": ".4f"}
    return {name: format(metrics["test"][name], form) for name, form in forms.items()}


def linear(recipe: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    """Return the path of the one linear layer, which has a bias, of softmax regression."""
    computing = [node for node in recipe["graph"] or [] if node["op"] not in PASSING]
    if [node["op"] for node in computing] != ["linear"]:
        return None
    path = str(computing[0]["module"])
    return path if f"{path}.bias" in tensors else None


# Bits of the finest grid of what enters a product: INPUTS and IMAGES in src/exact/grids.py.
FINEST = {"linear": 21, "conv2d": 18}


def input_step(op: str, inputs: int) -> float:
    """Return the step of what enters an exact product of so many inputs: see src/exact/grids.py.

    The report needs no torch, so it does not ask there.
    """
    return 2.0 ** (5 - min(FINEST[op], 53 - 22 - inputs.bit_length()))


def on_grids(recipe: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the graph; of a model with exact sums, each layer's says to what its inputs snap."""
    nodes = []
    for node in recipe["graph"]:
        if recipe["exact"] and node["op"] in FINEST:
            node = node | {
                "step": input_step(node["op"], tensors[f"{node['module']}.weight"][0].size)
            }
        nodes.append(node)
    return nodes


def untrainable(recipe: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    """Say in a sentence why the page does not train a model, or return None: it does.

    It trains softmax regression, with the sums that are exact.
    """
    if linear(recipe, tensors) is None:
        return "The page trains softmax regression alone, one linear layer with a bias."
    if any(node["op"] == "dropout" for node in recipe["graph"]):
        return "The page cannot train a model with dropout: it has no such random numbers."
    limits = {
        "exact": (True, "This model was trained with sums that are rounded (train.exact: false)"),
        "optimizer": ("sgd", f"The optimizer of this recipe is {recipe['optimizer']}"),
        "weight_decay": (0, "This recipe has a weight decay"),
        "warmup_epochs": (0, "In this recipe the learning rate begins with a warm-up"),
        "shift": (0, "This recipe moves its images at random"),
    }
    for key, (allowed, reason) in limits.items():
        if recipe[key] != allowed:
            return f"{reason}, which the page does not do: it cannot be trained here."
    if math.prod(recipe["shape"]) > 1023 or recipe["batch_size"] > 2048:
        return "The page trains on images of up to 1,023 pixels, and on batches of up to 2,048."
    if recipe["schedule"] not in ("constant", "linear"):
        return f"The page does not know the schedule {recipe['schedule']}: no training here."
    return None


def uncomputable(recipe: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str | None:
    """Say in a sentence why the page does not compute a model, or return None: it does."""
    if recipe["graph"] is None:
        return str(recipe["graph_reason"])
    parameters = sum(tensor.size for tensor in tensors.values())
    if parameters > PARAMETERS:
        return f"The model has {parameters:,} numbers, more than a page should carry."
    return None


def pictures(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    log_probabilities: np.ndarray,
    confusion: np.ndarray,
) -> dict[str, Any]:
    """Choose the images that the page carries, and say what is known of each.

    Args:
        train: images float32 (M, C, H, W), labels int64 (M,).
        test: images float32 (N, C, H, W), labels int64 (N,).
        log_probabilities: float64 (N, C), of the test rows.
        confusion: int64 (C, C), actual by predicted.

    Large images are fewer: PIXELS in all.

    Returns:
        pictures: the images, as [split, row]; levels, images: their pixels; facts: of each, its
        label and, for a test row, what it was taken for and how surely; mistakes, samples: places
        in `pictures`; cells: a place for each [actual, predicted]; doubt: levels of confidence,
        each with its mean, its accuracy, its rows and a place, or none.
    """
    labels, predicted = test[1], log_probabilities.argmax(axis=1)
    sure = log_probabilities.max(axis=1)
    by_confidence = np.argsort(-sure, kind="stable")
    places: dict[tuple[str, int], int] = {}
    most = max(9, PIXELS // math.prod(test[0].shape[1:]))

    def place(split: str, row: int) -> int | None:
        if len(places) >= most and (split, int(row)) not in places:
            return None
        return places.setdefault((split, int(row)), len(places))

    surest = confidence.mistakes(labels, log_probabilities)
    mistakes = [place("test", row) for row in surest[: min(confidence.MISTAKES, most // 3)]]
    share = max(1, SAMPLES // len(confusion))
    rows = [
        row for label in range(len(confusion)) for row in np.flatnonzero(train[1] == label)[:share]
    ]
    samples = [place("train", row) for row in rows[: most // 3]]
    cells = []
    for cell in np.argsort(-confusion, axis=None, kind="stable")[:CELLS]:
        actual, guess = divmod(int(cell), len(confusion))
        is_here = (labels == actual) & (predicted == guess)
        if is_here.any():
            row = by_confidence[is_here[by_confidence].argmax()]
            cells.append([actual, guess, place("test", row), int(confusion[actual, guess])])
    doubt = [
        {
            "from": level.least,
            "confidence": round(level.confidence, 4),
            "accuracy": round(level.accuracy, 4),
            "rows": len(level.rows),
            "picture": place("test", level.rows[0]),
        }
        for level in confidence.levels(labels, log_probabilities)
    ]
    facts = [
        [int(train[1][row])]
        if split == "train"
        else [int(labels[row]), int(predicted[row]), round(math.exp(sure[row]), 6)]
        for split, row in places
    ]
    images = {"train": train[0], "test": test[0]}
    return {
        "pictures": list(places),
        **pixels(np.stack([images[split][row] for split, row in places])),
        "facts": facts,
        "mistakes": mistakes,
        "samples": samples,
        "cells": cells,
        "doubt": doubt,
    }


def pixels(images: np.ndarray) -> dict[str, Any]:
    """Pack images, of any shape: their levels, the first of them 0, and for each pixel its place.

    Of bytes there are no more than 256 levels. Most pixels are 0: of each run of zeros, the packed
    places have one and its length. Images of more levels are packed as float32, and levels is null.
    """
    levels, places = np.unique(np.append(np.float32(0), images), return_inverse=True)
    if levels[0] < 0 or len(levels) > 256:
        return {"levels": None, "images": floats(images)}
    content = re.sub(
        rb"\0{1,255}",
        lambda zeros: bytes([0, len(zeros[0])]),
        places[1:].astype(np.uint8).tobytes(),
    )
    return {"levels": levels.tolist(), "images": packed(content)}


def floats(tensor: np.ndarray) -> str:
    """Pack numbers as float32."""
    return packed(tensor.astype("<f4").tobytes())


def state(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Pack a model's tensors, each with its shape; counts of batches are left out."""
    return {
        name: {"shape": list(tensor.shape), "values": floats(tensor)}
        for name, tensor in tensors.items()
        if tensor.dtype.kind == "f"
    }


def history(
    snapshots: Mapping[str, np.ndarray], recipe: Mapping[str, Any], rows: int
) -> list[dict[str, Any]]:
    """Pack the snapshots that train took before the kept epoch's end; of large ones, fewer.

    Returns:
        in their order: step, how many there were; epoch, the same in epochs; tensors, as `state`,
        those of 8 bits with a scale to multiply them with.
    """
    batch = recipe["batch_size"]
    steps = rows // batch if recipe["drop_last"] else -(-rows // batch)
    found: dict[int, dict[str, Any]] = {}
    for name, tensor in snapshots.items():
        step, key = name.split("/", 1)
        if step == "scale" or int(step) >= recipe["epoch"] * steps:
            continue
        taken = found.setdefault(int(step), {})
        taken |= state({key: tensor})
        if tensor.dtype == np.int8:
            scale = snapshots[f"scale/{name}"].item()
            taken[key] = {
                "shape": list(tensor.shape),
                "scale": scale,
                "values": packed(tensor.tobytes()),
            }
    size = max((len(json.dumps(tensors)) for tensors in found.values()), default=0)
    kept = np.linspace(0, len(found) - 1, min(len(found), WAY // max(1, size))).round()
    return [
        {"step": step, "epoch": round(step / steps, 4), "tensors": found[step]}
        for at, step in enumerate(sorted(found))
        if at in kept
    ]


def exponentials() -> list[str]:
    """Pack exp(-i), exp(-i / 128) and exp(-i / 2^14), correctly rounded, as float64.

    The softmax of an exact training is made of products of the three.
    """
    return [
        packed(
            np.array([float((-Decimal(i) / parts).exp()) for i in range(count)], "<f8").tobytes()
        )
        for count, parts in ((28, 1), (128, 128), (128, 2**14))
    ]


def packed(content: bytes) -> str:
    """Write bytes in base64."""
    return base64.b64encode(content).decode()


def table(rows: Mapping[str, Any]) -> str:
    """List names and values as the rows of a table."""
    return "\n".join(
        f"<tr><th scope=row>{html.escape(name)}<td>{html.escape(str(value))}"
        for name, value in rows.items()
    )


def inside(template: str, tag: str) -> str:
    """Return the text of the template's one element of that tag that has no attributes."""
    return template.split(f"<{tag}>")[1].split(f"</{tag}>")[0]


def digest(text: str) -> str:
    """Name a script or a style in a Content Security Policy, which then allows it alone."""
    return f"'sha256-{packed(hashlib.sha256(text.encode()).digest())}'"
