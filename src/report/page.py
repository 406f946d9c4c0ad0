"""The report's page: one HTML file that computes its answers itself, and so carries the model.

The functions turn what the stages wrote into texts of the page and into values for its script.
Looks and script are in page.html.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from src.exact import grids
from src.report import confidence

# Images that the page carries, besides one for each cell of the matrix and each level of doubt.
SAMPLES, CELLS = 100, 300
FASHION = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# What the classes of a data set are, and their names in the order of the labels.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mnist_784": ("digit", ()),
    "optdigits": ("digit", ()),
    "Fashion-MNIST": ("garment", FASHION),
    "Kuzushiji-MNIST": ("character", tuple("おきすつなはまやれを")),
}
# With these parameters the page builds the model and trains it.
RECIPE = (
    *("layers", "epochs", "batch_size", "learning_rate", "momentum", "decay"),
    *("shuffle", "seed", "shift", "drop_last"),
)


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


def classes(dataset: str, count: int) -> tuple[str, list[str]]:
    """Say what the classes of a data set are, and name so many."""
    kind, names = KINDS.get(dataset, ("class", ()))
    return kind, [*names[:count], *map(str, range(len(names), count))]


def scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return texts for the figures of evaluate; raises KeyError or ValueError without them."""
    forms = {"accuracy": ".2%", "correct": ",", "total": ",", "loss": ".4f", "macro_f1": ".4f"}
    return {name: format(metrics[name], form) for name, form in forms.items()}


def is_linear(recipe: Mapping[str, Any]) -> bool:
    """Tell whether the model is softmax regression: one linear layer."""
    return [layer["kind"] for layer in recipe["layers"]] == ["Linear"]


def pictures(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    log_probabilities: np.ndarray,
    confusion: np.ndarray,
) -> dict[str, Any]:
    """Choose the images that the page carries, and say what is known of each.

    Args:
        train: images float32 (M, D) in [0, 1], labels int64 (M,).
        test: images float32 (N, D), labels int64 (N,).
        log_probabilities: float64 (N, C), of the test rows.
        confusion: int64 (C, C), actual by predicted.

    Returns:
        pictures: the images, as [split, row]; levels, images: their pixels; facts: of each, its
        label and, for a test row, what it was taken for and how surely; mistakes, samples: places
        in `pictures`; cells: a place for each [actual, predicted]; doubt: levels of confidence,
        each with its mean, its accuracy, its rows and a place.
    """
    labels, predicted = test[1], log_probabilities.argmax(axis=1)
    sure = log_probabilities.max(axis=1)
    by_confidence = np.argsort(-sure, kind="stable")
    places: dict[tuple[str, int], int] = {}

    def place(split: str, row: int) -> int:
        return places.setdefault((split, int(row)), len(places))

    surest = confidence.mistakes(labels, log_probabilities)[: confidence.MISTAKES]
    mistakes = [place("test", row) for row in surest]
    share = max(1, SAMPLES // len(confusion))
    samples = [
        place("train", row)
        for label in range(len(confusion))
        for row in np.flatnonzero(train[1] == label)[:share]
    ]
    cells = []
    for cell in np.argsort(-confusion, axis=None, kind="stable")[:CELLS]:
        actual, guess = divmod(int(cell), len(confusion))
        is_here = (labels == actual) & (predicted == guess)
        if is_here.any():
            row = by_confidence[is_here[by_confidence].argmax()]
            cells.append([actual, guess, place("test", row)])
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
        else [int(labels[row]), int(predicted[row]), round(math.exp(sure[row]), 4)]
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
    """Pack images (N, D): the levels of grey, the first of them 0, and for each pixel its place.

    Prepare made them of bytes, so there are no more than 256 levels. Most pixels are 0: of each run
    of zeros, the packed places have one and its length.
    """
    levels, places = np.unique(np.append(np.float32(0), images), return_inverse=True)
    content = re.sub(
        rb"\0{1,255}",
        lambda zeros: bytes([0, len(zeros[0])]),
        places[1:].astype(np.uint8).tobytes(),
    )
    return {
        "levels": [int(level / grids.PIXELS.step) for level in levels],
        "images": packed(content),
    }


def shape(size: int) -> list[int]:
    """Return rows and columns of an image, as nearly square as whole numbers allow."""
    rows = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    return [rows, size // rows]


def integers(tensor: np.ndarray) -> dict[str, Any]:
    """Pack parameters as steps of their grid: int16, where -32768 says that two make one int32.

    Raises:
        ValueError: a value is not on the grid.
    """
    steps = grids.WEIGHTS.whole_steps("weights", tensor).ravel()
    large = np.abs(steps) > 32767
    words = np.where(large, -32768, steps).astype("<i2")
    halves = steps[large].astype("<i4").view("<i2")
    words = np.insert(words, np.flatnonzero(large).repeat(2) + 1, halves)
    return {"shape": list(tensor.shape), "steps": packed(words.tobytes())}


def exponentials() -> list[str]:
    """Pack the tables that the softmax of training is made of, as float64."""
    return [packed(np.array(part, "<f8").tobytes()) for part in grids.short_exponentials()]


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
