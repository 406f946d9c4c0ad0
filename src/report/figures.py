"""Pictures of the data, the model and its mistakes, the same bytes everywhere.

Images are drawn where they are square; where not, the picture says so.
"""

import io
import zlib
from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from src.common import dataset, files
from src.report import confidence

DPI, WIDTH = 140, 840  # of a picture, in pixels
# The pictures must not depend on a matplotlibrc that a user may have.
matplotlib.rcdefaults()
matplotlib.rcParams.update(
    {
        "figure.dpi": DPI,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "image.interpolation": "nearest",  # smoothing rounds in another way on another processor
    }
)
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#b8b8b8"
GREYS = ScalarMappable(Normalize(0, 1), "gray_r")
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


def mosaic(images: np.ndarray, side: int, columns: int, head: int = 1) -> np.ndarray:
    """Lay images (n, D) out row by row, a free cell around each and `head` cells above.

    Returns:
        (rows * (side + head + 1), columns * (side + 2)), where the free cells are NaN.
    """
    rows = -(-len(images) // columns)
    sheet = np.full((rows * columns, side + head + 1, side + 2), np.nan)
    sheet[: len(images), head:-1, 1:-1] = images.reshape(-1, side, side)
    height, width = sheet.shape[1:]
    return sheet.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, -1)


Captions = list[tuple[float, float, str]]  # across, down, text


def draw(sheet: np.ndarray, colours: ScalarMappable, captions: Captions) -> Figure:
    """Draw each cell as a square of whole pixels, NaN as paper, and captions centred on cells."""
    height, width = sheet.shape
    scale = max(1, WIDTH // width)
    figure = Figure((width * scale / DPI, height * scale / DPI))
    figure.figimage(colours.to_rgba(sheet, bytes=True).repeat(scale, 0).repeat(scale, 1))
    for across, down, text in captions:
        x, y = across / width, 1 - down / height
        figure.text(x, y, text, ha="center", va="center", linespacing=1)
    return figure


def above(captions: Iterable[str], columns: int, side: int, head: int) -> Captions:
    """Place a caption in the middle of the free cells above each image of a mosaic."""
    return [
        ((at % columns + 0.5) * (side + 2), at // columns * (side + head + 1) + head / 2, caption)
        for at, caption in enumerate(captions)
    ]


def samples(images: np.ndarray, labels: np.ndarray, columns: int = 12) -> Figure:
    """Show the first of the images (N, D), labels (N,), a row for each class, led by its label."""
    side, classes = dataset.side_of(images.shape[1]), int(labels.max()) + 1
    if side is None:
        return note(f"Images of {images.shape[1]} pixels are not square: no samples drawn.")
    tiles = np.full((classes, 1 + columns, side**2), np.nan)
    for label in range(classes):
        found = images[np.flatnonzero(labels == label)[:columns]]
        tiles[label, 1 : 1 + len(found)] = found
    sheet, cell = mosaic(np.concatenate(tiles), side, 1 + columns), side + 2
    captions = [(cell / 2, (label + 0.5) * cell, str(label)) for label in range(classes)]
    return draw(sheet, GREYS, captions)


def weights(weight: np.ndarray) -> Figure:
    """Show a first layer's weight, (outputs, D) or (outputs, 1, k, k), as images.

    There is one colour scale, symmetric around zero.
    """
    tiles = weight.reshape(len(weight), -1)[:TILES]
    side = dataset.side_of(tiles.shape[1])
    if side is None:
        return note(f"Weights of {tiles.shape[1]} inputs are not square: not drawn.")
    columns, head = 5 if len(tiles) <= 10 else 8, max(2, side // 3)
    sheet = mosaic(tiles, side, columns, head)
    limit = np.abs(tiles).max()
    colours = ScalarMappable(Normalize(-limit, limit), "RdBu")
    place_of_scale = np.full((len(sheet), sheet.shape[1] // 5), np.nan)
    captions = above(map(str, range(len(tiles))), columns, side, head)
    figure = draw(np.hstack([sheet, place_of_scale]), colours, captions)
    figure.colorbar(colours, figure.add_axes((0.86, 0.06, 0.02, 0.88)))
    return figure


def mistakes(images: np.ndarray, labels: np.ndarray, log_probabilities: np.ndarray) -> Figure:
    """Show the surest mistakes, each with its class, the predicted one and its probability.

    Args:
        images: (N, D).
        labels: (N,).
        log_probabilities: (N, classes).
    """
    side = dataset.side_of(images.shape[1])
    rows = confidence.mistakes(labels, log_probabilities)[: confidence.MISTAKES]
    if side is None or not len(rows):
        return note("No mistakes." if side else "Images are not square: no mistakes drawn.")
    columns, head = 6, side // 2
    captions = [
        f"{labels[row]} as {guess}\n{np.exp(log_probabilities[row, guess]):.2%}"
        for row, guess in zip(rows, log_probabilities[rows].argmax(axis=1), strict=True)
    ]
    sheet = mosaic(images[rows], side, columns, head)
    return draw(sheet, GREYS, above(captions, columns, side, head))


def reliability(labels: np.ndarray, log_probabilities: np.ndarray) -> Figure:
    """Show how often predictions are right by their probability.

    The calibration error is the mean distance between the two, weighted by the levels' rows
    (ECE: Guo et al., 2017, "On Calibration of Modern Neural Networks").

    Args:
        labels: (N,).
        log_probabilities: (N, classes).
    """
    levels = confidence.levels(labels, log_probabilities)
    width = 1 / confidence.LEVELS
    centres = [level.least + width / 2 for level in levels]
    counts = [len(level.rows) for level in levels]
    expected = [level.confidence for level in levels]
    accuracy = [level.accuracy for level in levels]
    error = np.average(np.abs(np.subtract(accuracy, expected)), weights=counts)
    figure = Figure((4.4, 4))
    upper = figure.add_axes((0.18, 0.38, 0.77, 0.54))
    lower = figure.add_axes((0.18, 0.13, 0.77, 0.19), sharex=upper)
    upper.bar(centres, accuracy, 0.9 * width, color=BLUE)
    upper.plot((0, 1), (0, 1), "k--", linewidth=1)
    # Rounded, as what is behind that is the C library's.
    upper.plot(np.round(expected, 4), accuracy, "o", color=ORANGE)
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    upper.set_title(f"calibration error {error:.2%}", loc="left")
    lower.bar(centres, counts, 0.9 * width, color=GREY)
    lower.set(xlabel="probability of the prediction", ylabel="images")
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    return figure
