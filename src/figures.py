"""Pictures of the data, the model and its mistakes, the same bytes everywhere.

Images are drawn where they are square; where not, the picture says so.
"""

import io
import zlib

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from src import data, files

# The pictures must not depend on a matplotlibrc that a user may have.
matplotlib.rcdefaults()
matplotlib.rcParams.update(
    {
        "figure.dpi": 140,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "image.interpolation": "nearest",  # smoothing rounds in another way on another processor
    }
)
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#b8b8b8"
BINS = 10
MISTAKES = 24
TILES = 40  # of the first layer's weights; a layer with more shows its first


def write(path: str, figure: Figure) -> None:
    """Write a figure as a PNG without a date or a program's name.

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
    files.write(path, packed.getvalue())


def note(text: str) -> Figure:
    """Say what cannot be drawn."""
    figure = Figure((6, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def samples(images: np.ndarray, labels: np.ndarray, columns: int = 12) -> Figure:
    """Show the first of the images (N, D), labels (N,), a row for each class."""
    side, classes = data.side_of(images.shape[1]), int(labels.max()) + 1
    if side is None:
        return note(f"Images of {images.shape[1]} pixels are not square: no samples drawn.")
    cell = side + 2
    grid = np.zeros((classes, columns, cell, cell))
    for label in range(classes):
        found = images[np.flatnonzero(labels == label)[:columns]]
        grid[label, : len(found), 1:-1, 1:-1] = found.reshape(-1, side, side)
    figure = Figure((6, 0.48 * classes))
    axes = figure.add_axes((0.05, 0.01, 0.94, 0.98), frame_on=False)
    axes.imshow(grid.transpose(0, 2, 1, 3).reshape(classes * cell, -1), "gray_r")
    axes.set_yticks(np.arange(classes) * cell + (cell - 1) / 2, [str(c) for c in range(classes)])
    axes.set_xticks([])
    axes.tick_params(length=0)
    return figure


def weights(weight: np.ndarray) -> Figure:
    """Show a first layer's weight, (outputs, D) or (outputs, 1, k, k), as images.

    There is one colour scale, symmetric around zero.
    """
    tiles = weight.reshape(len(weight), -1)[:TILES]
    side = data.side_of(tiles.shape[1])
    if side is None:
        return note(f"Weights of {tiles.shape[1]} inputs are not square: not drawn.")
    columns = 5 if len(tiles) <= 10 else 8
    rows = -(-len(tiles) // columns)
    figure = Figure((6, 5.6 * rows / columns + 0.1))
    limit = np.abs(tiles).max()
    for at, tile in enumerate(tiles):
        axes = figure.add_subplot(rows, columns, at + 1)
        image = axes.imshow(tile.reshape(side, side), "RdBu", vmin=-limit, vmax=limit)
        axes.set_title(str(at), pad=3, fontsize=12 if rows < 3 else 8)
        axes.set_axis_off()
    figure.subplots_adjust(0.01, 0.02, 0.85, 0.99 - 0.08 * 2 / rows, 0.08, 0.25)
    figure.colorbar(image, figure.add_axes((0.885, 0.06, 0.02, 0.84)))
    return figure


def mistakes(images: np.ndarray, labels: np.ndarray, log_probabilities: np.ndarray) -> Figure:
    """Show the surest mistakes, each with its class, the predicted one and its probability.

    Args:
        images: (N, D).
        labels: (N,).
        log_probabilities: (N, classes).
    """
    predicted, log_confidence = log_probabilities.argmax(axis=1), log_probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-log_confidence[wrong], kind="stable")[:MISTAKES]]
    side = data.side_of(images.shape[1])
    if side is None or not len(worst):
        return note("No mistakes." if side else "Images are not square: no mistakes drawn.")
    columns = 6
    rows = -(-len(worst) // columns)
    figure = Figure((6, 1.5 * rows))
    for at, row in enumerate(worst):
        axes = figure.add_subplot(rows, columns, at + 1)
        axes.imshow(images[row].reshape(side, side), "gray_r", vmin=0, vmax=1)
        axes.set_title(f"{labels[row]} as {predicted[row]}", pad=2)
        axes.set_xlabel(f"{np.exp(log_confidence[row]):.2%}", fontsize=9)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.subplots_adjust(0.01, 0.06, 0.99, 0.95, 0.1, 0.6)
    return figure


def reliability(labels: np.ndarray, log_probabilities: np.ndarray) -> Figure:
    """Show how often predictions are right by their probability.

    The calibration error is the mean distance between the two, weighted by the bins' rows
    (ECE: Guo et al., 2017, "On Calibration of Modern Neural Networks").

    Args:
        labels: (N,).
        log_probabilities: (N, classes).
    """
    confidence = np.exp(log_probabilities.max(axis=1))
    correct = log_probabilities.argmax(axis=1) == labels
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
    lower.set(xlabel="probability of the prediction", ylabel="images")
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    return figure
