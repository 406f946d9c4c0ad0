"""Figures of the data, the model and its mistakes: arrays in, a figure out, the same everywhere."""

import io
import zlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

# The pictures must not depend on a matplotlibrc that a user may have.
matplotlib.rcdefaults()
matplotlib.rcParams.update(
    {"figure.dpi": 140, "axes.spines.top": False, "axes.spines.right": False}
)
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#b8b8b8"
BINS = 10


def png(figure: Figure) -> bytes:
    """Draw a figure as a PNG without a date or a program's name.

    Run-length coding needs no hash table, so the bytes do not depend on how a build of zlib, or
    the CPU it runs on, searches for matches.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    packed = io.BytesIO()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3]
    is_grey = (rgb == rgb[..., :1]).all()
    drawn = Image.fromarray(rgb[..., 0] if is_grey else rgb)
    drawn.save(packed, "png", compress_type=zlib.Z_RLE)
    return packed.getvalue()


def samples(images: np.ndarray, labels: np.ndarray, columns: int = 12) -> Figure:
    """Show the first of the images (N, 784), labels (N,), a row for each digit."""
    grid = np.zeros((10, columns, 30, 30))
    for digit in range(10):
        found = images[np.flatnonzero(labels == digit)[:columns]]
        grid[digit, : len(found), 1:-1, 1:-1] = found.reshape(-1, 28, 28)
    figure = Figure((6, 4.8))
    axes = figure.add_axes((0.05, 0.01, 0.94, 0.98), frame_on=False)
    axes.imshow(grid.transpose(0, 2, 1, 3).reshape(300, -1), "gray_r", interpolation="nearest")
    axes.set_yticks(np.arange(10) * 30 + 14.5, range(10))
    axes.set_xticks([])
    axes.tick_params(length=0)
    return figure


def weights(weight: np.ndarray) -> Figure:
    """Show weight (10, 784) as ten images on one colour scale, symmetric around zero."""
    figure = Figure((6, 2.8))
    limit = np.abs(weight).max()
    for digit in range(10):
        column, row = digit % 5, digit // 5
        axes = figure.add_axes((0.01 + 0.174 * column, 0.5 - 0.48 * row, 0.164, 0.42))
        image = axes.imshow(weight[digit].reshape(28, 28), "RdBu", vmin=-limit, vmax=limit)
        axes.set_title(str(digit), pad=3)
        axes.set_axis_off()
    scale = figure.add_axes((0.885, 0.06, 0.02, 0.84))
    figure.colorbar(image, scale)
    return figure


def mistakes(
    images: np.ndarray, actual: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> Figure:
    """Show images (N, 784) with their digit, the predicted one and its probability, (N,) each."""
    columns = 6
    rows = max(-(-len(images) // columns), 1)
    figure = Figure((6, 1.5 * rows))
    for at, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, at + 1)
        axes.imshow(image.reshape(28, 28), "gray_r", vmin=0, vmax=1)
        axes.set_title(f"{actual[at]} as {predicted[at]}", pad=2)
        axes.text(13.5, 31.5, f"{confidence[at]:.2%}", ha="center", va="center", fontsize=9)
        axes.set_axis_off()
    figure.subplots_adjust(0.01, 0.06, 0.99, 0.95, 0.1, 0.6)
    return figure


def reliability(confidence: np.ndarray, correct: np.ndarray) -> Figure:
    """Show how often predictions are right, correct bool (N,), by their probability, (N,).

    The calibration error is the mean distance between the two, weighted by the bins' rows
    (ECE: Guo et al., 2017, "On Calibration of Modern Neural Networks").
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    filled = rows > 0
    accuracy = np.bincount(bins, correct, BINS)[filled] / rows[filled]
    expected = np.bincount(bins, confidence, BINS)[filled] / rows[filled]
    error = np.abs(accuracy - expected) @ rows[filled] / len(confidence)
    figure = Figure((4.4, 4))
    upper = figure.add_axes((0.18, 0.38, 0.78, 0.54))
    lower = figure.add_axes((0.18, 0.13, 0.78, 0.19), sharex=upper)
    centres = (np.arange(BINS) + 0.5) / BINS
    upper.bar(centres[filled], accuracy, 0.9 / BINS, color=BLUE)
    upper.plot((0, 1), (0, 1), color="black", linestyle="--", linewidth=1)
    upper.plot(expected, accuracy, "o", color=ORANGE)
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    upper.set_title(f"calibration error {error:.2%}", loc="left")
    lower.bar(centres, rows, 0.9 / BINS, color=GREY)
    lower.set(xlabel="probability of the predicted digit", ylabel="images")
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


def learning_curve(rows: list[dict[str, Any]], name: str) -> Figure:
    """Show the loss or the accuracy by epoch, from rows of epoch, split and both."""
    figure = Figure((4.4, 2.8))
    axes = figure.add_axes((0.15, 0.17, 0.82, 0.73))
    for split, color, marker in (("train", BLUE, "o"), ("test", ORANGE, "s")):
        points = [(row["epoch"], row[name]) for row in rows if row["split"] == split]
        axes.plot(*zip(*points, strict=True), marker + "-", color=color, label=split)
    axes.set_xlabel("epoch")
    axes.set_title(name, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure
