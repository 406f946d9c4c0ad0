"""The report's page: arrays in, one HTML file out. Its looks and its JavaScript are in page.html.

The page computes its answers itself, so it carries the model. Figures that `evaluate` and `train`
wrote are shown as they are given.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from src import grids

# Images that the page carries, besides one for each cell of the matrix and each level of doubt.
MISTAKES, SAMPLES, CELLS = 24, 100, 300
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


def render(
    template: str,
    *,
    dataset: str,
    recipe: dict[str, Any],
    tensors: Mapping[str, np.ndarray],
    start: Mapping[str, np.ndarray],
    curve: list[dict[str, Any]],
    metrics: Mapping[str, Any],
    per_class: list[dict[str, Any]],
    confusion: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    log_probabilities: np.ndarray,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    hashes: Mapping[str, str],
) -> str:
    """Fill the template with a model, its figures and the images that explain them.

    Args:
        template: the text of page.html.
        dataset: OpenML's name.
        recipe: models/recipe.json's content, with "layers".
        tensors: the model by name, float32, exact multiples of 2^-18.
        start: the same before the first step.
        curve: rows of the learning curve: epoch, split, loss, accuracy, sha256.
        metrics: metrics/evaluate.json: loss, accuracy, macro_f1, correct, total.
        per_class: a row for each class: label, precision, recall, f1, support.
        confusion: int64 (C, C), actual by predicted.
        images: float32 (N, D), the test rows in [0, 1].
        labels: int64 (N,).
        log_probabilities: float64 (N, C).
        train_images: float32 (M, D).
        train_labels: int64 (M,).
        hashes: SHA-256 of files, by path.

    Raises:
        KeyError: the template names a part that is not given.
    """
    kind, names = KINDS.get(dataset, ("class", ()))
    numbers = [str(label) for label in range(len(confusion))]
    classes = [*names[: len(numbers)], *numbers[len(names) :]]
    linear = [layer["kind"] for layer in recipe["layers"]] == ["Linear"]
    content: dict[str, Any] = {
        "kind": kind,
        "classes": classes,
        "shape": shape(images.shape[1]),
        "recipe": recipe,
        "tensors": {name: integers(tensor) for name, tensor in tensors.items()},
        # Only softmax regression is trained in the page: the others start from megabytes.
        "start": {name: integers(tensor) for name, tensor in start.items()} if linear else {},
        "exp": [packed(np.array(part, "<f8").tobytes()) for part in grids.short_exponentials()]
        if linear
        else [],
        "train_rows": len(train_labels),
        "curve": curve,
        "f1": [row["f1"] for row in per_class],
        "confusion": confusion.tolist(),
        **pictures(labels, log_probabilities, confusion, train_labels),
    }
    rows = {"train": train_images, "test": images}
    shown = np.stack([rows[split][row] for split, row in content["pictures"]])
    # The data are bytes, brought to a grid: 256 levels at most.
    levels, places = np.unique(np.append(shown, np.float32(0)), return_inverse=True)
    content["levels"] = (levels * 2**16).astype(int).tolist()
    content["images"] = packed(zeros_counted(places[:-1].astype(np.uint8).tobytes()))
    script, style = inside(template, "script"), inside(template, "style")
    return fill(
        template,
        policy=f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; "
        "img-src data:; worker-src blob:; base-uri 'none'; form-action 'none'",
        model="linear" if linear else "deep",
        kind=kind,
        a_kind=f"a {kind}",
        dataset=html.escape(dataset),
        many=str(len(classes)),
        pixels=f"{images.shape[1]:,}",
        accuracy=f"{metrics['accuracy']:.2%}",
        correct=f"{metrics['correct']:,}",
        total=f"{metrics['total']:,}",
        loss=f"{metrics['loss']:.4f}",
        macro_f1=f"{metrics['macro_f1']:.4f}",
        epochs=str(recipe["epochs"]),
        recipe=table({k: v for k, v in recipe.items() if k != "layers"}.items()),
        hashes=table(hashes.items()),
        content=json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
    )


def pictures(
    labels: np.ndarray, log_probabilities: np.ndarray, confusion: np.ndarray, train: np.ndarray
) -> dict[str, Any]:
    """Choose the images that the page carries, and what to say of each.

    Returns:
        pictures: the images, as [split, row]; facts: of each, its label and, for a test row, what
        it was taken for and how surely; mistakes, samples: places in `pictures`; cells: a place
        for each [actual, predicted]; doubt: test rows by how surely they were read, each level
        with its mean confidence, its accuracy, its rows and a place.
    """
    predicted, sure = log_probabilities.argmax(axis=1), log_probabilities.max(axis=1)
    by_confidence = np.argsort(-sure, kind="stable")
    wrong = by_confidence[predicted[by_confidence] != labels[by_confidence]]
    places: dict[tuple[str, int], int] = {}

    def place(split: str, row: int) -> int:
        return places.setdefault((split, int(row)), len(places))

    mistakes = [place("test", row) for row in wrong[:MISTAKES]]
    share = max(1, SAMPLES // len(confusion))
    samples = [
        place("train", row)
        for label in range(len(confusion))
        for row in np.flatnonzero(train == label)[:share]
    ]
    cells = []
    for cell in np.argsort(-confusion, axis=None, kind="stable")[:CELLS]:
        actual, guess = divmod(int(cell), len(confusion))
        rows = by_confidence[
            (labels == actual)[by_confidence] & (predicted == guess)[by_confidence]
        ]
        if len(rows):
            cells.append([actual, guess, place("test", rows[0])])
    doubt = []
    for level, rows in levels_of_doubt(sure):
        doubt.append(
            {
                "from": level,
                "confidence": round(float(np.exp(sure[rows]).mean()), 4),
                "accuracy": round(float((predicted[rows] == labels[rows]).mean()), 4),
                "rows": len(rows),
                "picture": place("test", rows[0]),
            }
        )
    return {
        "pictures": list(places),
        "facts": [
            [int(train[row])]
            if split == "train"
            else [int(labels[row]), int(predicted[row]), round(math.exp(sure[row]), 4)]
            for split, row in places
        ],
        "mistakes": mistakes,
        "samples": samples,
        "cells": cells,
        "doubt": doubt,
    }


def levels_of_doubt(sure: np.ndarray) -> Iterable[tuple[float, np.ndarray]]:
    """Sort rows into tenths of confidence: pairs of a level's lower end and its rows."""
    for tenth in range(10):
        least = math.log(tenth / 10) if tenth else -math.inf
        above = math.log((tenth + 1) / 10) if tenth < 9 else math.inf
        rows = np.flatnonzero((sure >= least) & (sure < above))
        if len(rows):
            yield tenth / 10, rows


def shape(pixels: int) -> list[int]:
    """Return rows and columns of an image, as nearly square as whole numbers allow."""
    rows = next(n for n in range(math.isqrt(pixels), 0, -1) if pixels % n == 0)
    return [rows, pixels // rows]


def integers(tensor: np.ndarray) -> dict[str, Any]:
    """Pack multiples of 2^-18: int16 steps, where -32768 says that the next two are one int32.

    Raises:
        ValueError: a value lies between two steps.
    """
    steps = np.rint(tensor.astype(np.float64) * 2**18).astype("<i4").ravel()
    if not np.array_equal(steps * 2.0**-18, tensor.ravel()):
        raise ValueError("a parameter of the model is no multiple of 2^-18: train it anew")
    large = np.abs(steps) > 32767
    words = steps.astype("<i2")
    words[large] = -32768
    halves = steps[large].view("<i2").reshape(-1, 2)
    words = np.insert(words, np.flatnonzero(large).repeat(2) + 1, halves.ravel())
    return {"shape": list(tensor.shape), "steps": packed(words.tobytes())}


def zeros_counted(content: bytes) -> bytes:
    """Write each run of zeros, which most of an image is, as a zero and its length."""
    return re.sub(rb"\0{1,255}", lambda zeros: bytes([0, len(zeros[0])]), content)


def packed(content: bytes) -> str:
    return base64.b64encode(content).decode()


def table(rows: Iterable[tuple[str, Any]]) -> str:
    """List names and values as the rows of a table."""
    return "\n".join(
        f"<tr><th scope=row>{html.escape(name)}<td>{html.escape(str(value))}"
        for name, value in rows
    )


def inside(template: str, tag: str) -> str:
    """Return the text of the template's one element of that tag that has no attributes."""
    return template.split(f"<{tag}>")[1].split(f"</{tag}>")[0]


def digest(text: str) -> str:
    """Name a script or a style in a Content Security Policy, which then allows it alone."""
    return f"'sha256-{packed(hashlib.sha256(text.encode()).digest())}'"


def fill(template: str, **parts: str) -> str:
    """Put each part in the place of its {{name}}.

    Raises:
        KeyError: the template names a part that is not given.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)
