"""Pictures of the data, the model and its mistakes, the same bytes everywhere.

Images are (N, C, H, W), from 0 to 1. Three channels are drawn in their colours, one as ink on
paper, any other number as the ink of their mean.
"""

import io
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from src.common import files
from src.report import confidence

DPI, WIDTH = 140, 840  # of a picture, in pixels
# The pictures must not depend on a matplotlibrc that a user may have.
matplotlib.rcdefaults()
matplotlib.rcParams.update(
    {
        "figure.dpi": DPI,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # a class may be named "$5"
        "image.interpolation": "nearest",  # smoothing rounds in another way on another processor
    }
)
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#b8b8b8"
GREYS = ScalarMappable(Normalize(0, 1), "gray_r")
TILES = 40  # of the first layer's weights; a layer with more shows its first
ROWS = 50  # of samples; data of more classes show their first
LINE, LETTER = 20, 12  # of a caption, in pixels
SPARE = 40_000  # pixels of a picture; matplotlib draws no more than 65,535 a side


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


def tiles_of(images: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) as (N, H, W), or (N, H, W, 3) where they have three channels."""
    if images.shape[1] == 3:
        colour: np.ndarray = np.clip(images.transpose(0, 2, 3, 1), 0, 1)
        return colour
    grey: np.ndarray = images.mean(axis=1) if images.shape[1] > 1 else images[:, 0]
    return grey


def mosaic(tiles: np.ndarray, columns: int, head: int = 1) -> np.ndarray:
    """Lay tiles (n, H, W) or (n, H, W, 3) out row by row, a free cell around each, `head` above.

    Returns:
        (rows * (H + head + 1), columns * (W + 2)), in colours with 3 more, where the free cells
        are NaN.
    """
    rows, (height, width), colours = -(-len(tiles) // columns), tiles.shape[1:3], tiles.shape[3:]
    sheet = np.full((rows * columns, height + head + 1, width + 2, *colours), np.nan)
    sheet[: len(tiles), head:-1, 1:-1] = tiles
    high, wide = sheet.shape[1:3]
    grid = sheet.reshape(rows, columns, high, wide, *colours).swapaxes(1, 2)
    return grid.reshape(rows * high, columns * wide, *colours)


Captions = list[tuple[float, float, str]]  # across, down, text


def scale_of(width: int) -> int:
    """Return how many pixels each cell of a sheet of that width gets."""
    return max(1, WIDTH // width)


def draw(sheet: np.ndarray, colours: ScalarMappable, captions: Captions, scale: int) -> Figure:
    """Draw each cell as a square of whole pixels, NaN as paper, and captions centred on cells."""
    height, width = sheet.shape[:2]
    figure = Figure((width * scale / DPI, height * scale / DPI))
    if sheet.ndim == 3:
        drawn = np.rint(255 * np.nan_to_num(sheet, nan=1)).astype(np.uint8)
    else:
        drawn = colours.to_rgba(sheet, bytes=True)
    figure.figimage(drawn.repeat(scale, 0).repeat(scale, 1))
    for across, down, text in captions:
        x, y = across / width, 1 - down / height
        figure.text(x, y, text, ha="center", va="center", linespacing=1)
    return figure


def above(captions: Iterable[str], columns: int, height: int, width: int, head: int) -> Captions:
    """Place a caption in the middle of the free cells above each tile of a mosaic."""
    return [
        ((at % columns + 0.5) * (width + 2), at // columns * (height + head + 1) + head / 2, text)
        for at, text in enumerate(captions)
    ]


def captions_of(names: Sequence[str], most: int = 24) -> list[str]:
    """Return names as captions of so many letters; one that the font lacks is the class's number.

    The font has no Japanese, for instance, and would draw an empty box for each letter.
    """
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return [
        (name if len(name) <= most else f"{name[: max(1, most - 1)]}\N{HORIZONTAL ELLIPSIS}")
        if all(font.get_char_index(ord(letter)) for letter in name)
        else str(at)
        for at, name in enumerate(names)
    ]


def samples(
    images: np.ndarray, labels: np.ndarray, names: Sequence[str], columns: int = 12
) -> Figure:
    """Show the first images (N, C, H, W) of each class, labels (N,), in a row led by its name."""
    tiles = tiles_of(images)
    height, width = tiles.shape[1:3]
    columns = max(1, min(columns, SPARE // (width + 2) - 1))
    classes = max(1, min(len(names), ROWS, SPARE // (height + 2)))
    rows = np.full((classes, columns, *tiles.shape[1:]), np.nan)
    for label in range(classes):
        found = tiles[np.flatnonzero(labels == label)[:columns]]
        rows[label, : len(found)] = found
    sheet = mosaic(rows.reshape(-1, *tiles.shape[1:]), columns)
    scale, captions = scale_of((1 + columns) * (width + 2)), captions_of(names[:classes])
    margin = max(width + 2, -(-LETTER * (1 + max(map(len, captions))) // scale))
    place_of_names = np.full((len(sheet), margin, *sheet.shape[2:]), np.nan)
    places: Captions = [
        (margin / 2, (label + 0.5) * (height + 2), caption)
        for label, caption in enumerate(captions)
    ]
    return draw(np.hstack([place_of_names, sheet]), GREYS, places, scale)


def first_layer(
    tensors: dict[str, np.ndarray], graph: list[dict[str, Any]] | None, shape: Sequence[int]
) -> tuple[str, np.ndarray] | None:
    """Return the weight that meets the pixels, by name, where it is a picture; None elsewhere.

    It is one of a Linear on all pixels, (outputs, C * H * W), or of a Conv2d on the images,
    (outputs, C / groups, k, k). Without a graph it is the one weight that has such a shape.

    Args:
        tensors: the model's state.
        graph: the nodes of the model, in order, or None.
        shape: C, H and W.
    """
    channels, height, width = shape

    def is_picture(weight: np.ndarray) -> bool:
        if weight.ndim == 2:
            return bool(weight.shape[1] == channels * height * width)
        return weight.ndim == 4 and weight.shape[1] > 0 and not channels % weight.shape[1]

    if graph is None:
        found = [
            name
            for name, tensor in tensors.items()
            if name.endswith("weight") and is_picture(tensor)
        ]
        return (found[0], tensors[found[0]]) if len(found) == 1 else None
    modules = (node for node in graph if f"{node.get('module')}.weight" in tensors)
    first = next(modules, None)
    if first is None or first["op"] not in ("linear", "conv2d"):
        return None
    name = f"{first['module']}.weight"
    return (name, tensors[name]) if is_picture(tensors[name]) else None


def weights(
    weight: np.ndarray | None, shape: Sequence[int], names: Sequence[str] | None = None
) -> Figure:
    """Show a first layer's weight, (outputs, C * H * W) or (outputs, c, k, l), as pictures.

    There is one colour scale, symmetric around zero. Of three channels, each is a colour, and
    grey is zero.

    Args:
        weight: the weight, or None where it is no picture.
        shape: C, H and W of the images.
        names: of the outputs, where these are the classes.
    """
    if weight is None:
        return note("The first layer's weights are no pictures: not drawn.")
    images = weight if weight.ndim == 4 else weight.reshape(-1, *shape)
    limit = np.abs(images[:TILES]).max() or 1.0
    if images.shape[1] == 3:
        tiles = tiles_of(0.5 + images[:TILES] / (2 * limit))
    else:  # a picture for each channel
        tiles = images.reshape(-1, *images.shape[2:])[:TILES]
        limit = np.abs(tiles).max() or 1.0
        names = None if images.shape[1] > 1 else names
    height, width = tiles.shape[1:3]
    columns = max(1, min(5 if len(tiles) <= 10 else 8, SPARE // (width + 2)))
    tiles = tiles[: columns * max(1, SPARE // (height + 2))]
    place = columns * (width + 2)
    scale = scale_of(place + place // 5)
    head = max(2, height // 3, -(-LINE // scale))
    sheet = mosaic(tiles, columns, head)
    colours = ScalarMappable(Normalize(-limit, limit), "RdBu")
    texts = captions_of(names or [], max(1, (width + 2) * scale // LETTER))
    captions = above(
        texts[: len(tiles)] if names else map(str, range(len(tiles))), columns, height, width, head
    )
    if sheet.ndim == 3:
        return draw(sheet, colours, captions, scale)
    place_of_scale = np.full((len(sheet), place // 5), np.nan)
    figure = draw(np.hstack([sheet, place_of_scale]), colours, captions, scale)
    figure.colorbar(colours, figure.add_axes((0.86, 0.06, 0.02, 0.88)))
    return figure


def mistakes(
    images: np.ndarray, labels: np.ndarray, log_probabilities: np.ndarray, names: Sequence[str]
) -> Figure:
    """Show the surest mistakes, each with its class, the predicted one and its probability.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        log_probabilities: (N, classes).
        names: of the classes.
    """
    rows = confidence.mistakes(labels, log_probabilities)[: confidence.MISTAKES]
    if not len(rows):
        return note("No mistakes.")
    tiles = tiles_of(images[rows])
    height, width = tiles.shape[1:3]
    columns = max(1, min(6, SPARE // (width + 2)))
    scale = scale_of(columns * (width + 2))
    short = captions_of(names, max(3, (width + 2) * scale // LETTER - 3))
    turn = "\n" if max(map(len, short)) > 2 else " "
    captions = [
        f"{short[labels[row]]}{turn}as {short[guess]}\n{np.exp(log_probabilities[row, guess]):.2%}"
        for row, guess in zip(rows, log_probabilities[rows].argmax(axis=1), strict=True)
    ]
    head = max(height // 2, -(-LINE * (3 if turn == "\n" else 2) // scale))
    sheet = mosaic(tiles, columns, head)
    return draw(sheet, GREYS, above(captions, columns, height, width, head), scale)


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
