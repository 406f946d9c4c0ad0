"""Pictures: what they show, with which captions and colours."""

import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.calibration import calibration_curve

from src.report import figures
from tests.support import clones


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def check_layout(figure: Figure) -> None:
    """Nothing is cut off at the picture's edge, and no text or axes lie on another."""
    figure.draw_without_rendering()
    boxes = [part.get_tightbbox() for part in (*figure.texts, *figure.axes)]
    for at, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not box.count_overlaps(boxes[:at])


def squares(figure: Figure, side: int, columns: range, head: int, scale: int) -> np.ndarray:
    """Return the colours of the images in the PNG: (rows * columns, side, side, 3), a byte each.

    Each pixel of an image is one square. `head` such squares are free above an image, and one
    below it and on each side.
    """
    figures.write("figure.png", figure)
    with Image.open("figure.png") as picture:
        drawn = np.asarray(picture.convert("RGB"))
    high, wide = (side + head + 1) * scale, (side + 2) * scale
    assert len(drawn) % high == 0
    found = []
    for top in range(head * scale, len(drawn), high):
        for column in columns:
            left = column * wide + scale
            image = drawn[top : top + side * scale, left : left + side * scale]
            blocks = image.reshape(side, scale, side, scale, 3).swapaxes(1, 2)
            assert (blocks == blocks[:, :, :1, :1]).all()
            found.append(blocks[:, :, 0, 0])
    return np.array(found)


def test_samples_are_dark_on_white_in_the_row_of_their_class() -> None:
    labels = np.array([3, 3, 1, 0, 3])
    images = np.random.default_rng(4).uniform(size=(5, 1, 8, 8))
    figure = figures.samples(images, labels, list("0123"), columns=2)
    found = squares(figure, 8, range(1, 3), 1, 28).reshape(4, 2, 64, 3)
    shown = {(0, 0): 3, (1, 0): 2, (3, 0): 0, (3, 1): 1}
    for place in np.ndindex(4, 2):
        shades = 255 * (1 - images[shown[place]].ravel()) if place in shown else np.full(64, 255)
        assert np.abs(found[place] - shades[:, None]).max() <= 2
    check_layout(figure)
    assert texts(figure) == list("0123")


def test_twelve_of_each_class_are_shown() -> None:
    figure = figures.samples(np.full((26, 1, 2, 2), 0.5), np.arange(26) % 2, list("01"))
    found = squares(figure, 2, range(1, 13), 1, 16)
    assert found.shape == (24, 2, 2, 3)
    assert np.abs(found - 127.5).max() < 2


@pytest.mark.parametrize(
    ("shape", "side", "columns", "head", "scale"),
    [((10, 784), 28, 5, 9, 4), ((11, 81), 9, 8, 3, 8), ((41, 1, 5, 5), 5, 8, 2, 12)],
    ids=["ten classes", "more", "a convolution"],
)
def test_weights_share_one_scale_around_zero_blue_for_and_red_against(
    shape: tuple[int, ...], side: int, columns: int, head: int, scale: int
) -> None:
    count, weight = min(shape[0], 40), np.random.default_rng(2).normal(size=shape)
    weight.flat[5] = -4.5
    shape_of_images = (1, side, side)
    figure = figures.weights(weight, shape_of_images)
    found = squares(figure, side, range(columns), head, scale)[:count].astype(int)
    values = weight[:count].reshape(found.shape[:-1])
    blueness = found[..., 2] - found[..., 0]
    assert (np.sign(blueness) == np.sign(values))[np.abs(values) > 0.2].all()
    paleness = found.min(axis=-1)
    assert (paleness[np.abs(values) < 0.1] > 225).all()
    order = np.argsort(np.abs(values[values < 0]))
    assert (np.diff(paleness[values < 0][order]) <= 0).all()  # one scale for all
    check_layout(figure)
    [colourbar] = figure.axes
    assert colourbar.get_ylim() == (-4.5, 4.5)
    assert texts(figure) == [str(at) for at in range(count)]


def log_probabilities(predicted: np.ndarray, confidence: np.ndarray, classes: int) -> np.ndarray:
    """Give each row's predicted class its probability, and the others the rest in equal parts."""
    rest = (1 - confidence[:, None]) / (classes - 1) * np.ones(classes)
    rest[np.arange(len(predicted)), predicted] = confidence
    return np.log(rest)


@pytest.mark.parametrize("count", [5, 30])
def test_mistakes_are_the_surest_ones_captioned_with_class_guess_and_probability(
    count: int,
) -> None:
    generator = np.random.default_rng(0)
    labels = generator.permutation(count + 5) % 9
    predicted = labels + (np.arange(count + 5) >= 5)  # the first five are right
    confidence = generator.permutation(np.linspace(0.3, 0.99, count + 5))
    images = generator.uniform(size=(count + 5, 1, 4, 4))
    figure = figures.mistakes(
        images, labels, log_probabilities(predicted, confidence, 10), list("0123456789")
    )
    worst = [row for row in np.argsort(-confidence) if row >= 5][:24]
    assert len(worst) == min(count, 24)
    found = squares(figure, 4, range(6), 2, 23)
    assert len(found) == 6 * math.ceil(len(worst) / 6)
    for row, colours in zip(worst, found, strict=False):
        shades = 255 * (1 - images[row].reshape(4, 4, 1))
        assert np.abs(colours - shades).max() <= 2
    assert (found[len(worst) :] == 255).all()
    check_layout(figure)
    assert texts(figure) == [
        f"{labels[row]} as {labels[row] + 1}\n{confidence[row]:.2%}" for row in worst
    ]


def test_reliability_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, 2000)
    is_right = generator.uniform(size=2000) < confidence**2
    predicted = generator.integers(0, 2, 2000)
    labels = np.where(is_right, predicted, 1 - predicted)
    figure = figures.reliability(labels, log_probabilities(predicted, confidence, 2))
    upper, lower = figure.axes
    accuracy, expected = calibration_curve(is_right, confidence, n_bins=10)
    _, points = upper.lines
    assert points.get_xdata().tolist() == [round(mean, 4) for mean in expected]
    assert points.get_ydata() == pytest.approx(accuracy)
    rows, _ = np.histogram(confidence, bins=10, range=(0, 1))
    for bars, heights in ((upper.patches, accuracy), (lower.patches, rows[5:])):
        assert [bar.get_height() for bar in bars] == pytest.approx(heights)
    error = np.abs(accuracy - expected) @ rows[rows > 0] / 2000
    assert upper.get_title("left") == f"calibration error {error:.2%}"
    check_layout(figure)


def test_what_cannot_be_drawn_is_said() -> None:
    labels = np.array([0, 1])
    sure = log_probabilities(labels, np.array([0.9, 0.9]), 2)
    notes = {
        "The first layer's weights are no pictures: not drawn.": figures.weights(None, (1, 3, 4)),
        "No mistakes.": figures.mistakes(np.zeros((2, 1, 4, 4)), labels, sure, ["a", "b"]),
    }
    for text, figure in notes.items():
        assert texts(figure) == [text]
        check_layout(figure)


def test_colour_pictures_of_any_size_are_drawn_as_they_are_with_the_names_of_their_classes() -> (
    None
):
    images = np.random.default_rng(3).uniform(size=(4, 3, 5, 9))
    labels, names = np.array([0, 1, 1, 0]), ["bee", "ant $x", "\N{HIRAGANA LETTER KI}"]
    figures.write("figure.png", figure := figures.samples(images, labels, names, columns=2))
    with Image.open("figure.png") as picture:
        drawn = np.asarray(picture.convert("RGB")).astype(float)
    scale = 840 // (3 * 11)
    left = drawn.shape[1] - 2 * 11 * scale
    for row, column, at in ((0, 0, 0), (0, 1, 3), (1, 0, 1), (1, 1, 2)):
        top, across = (row * 7 + 1) * scale, left + (column * 11 + 1) * scale
        found = drawn[top : top + 5 * scale : scale, across : across + 9 * scale : scale]
        assert np.abs(found - 255 * images[at].transpose(1, 2, 0)).max() <= 1
    assert (drawn[14 * scale :, left:] == 255).all()  # no image of the third class
    assert texts(figure) == ["bee", "ant $x", "2"]  # what the font lacks is a number
    check_layout(figure)
    wrong = log_probabilities(1 - labels, np.array([0.9, 0.8, 0.7, 0.6]), 3)
    mistakes = figures.mistakes(images, labels, wrong, names)
    assert texts(mistakes)[0] == "bee\nas ant $x\n90.00%"
    check_layout(mistakes)


def test_the_weights_that_are_drawn_are_the_first_that_meet_the_pixels() -> None:
    linear, conv = np.zeros((4, 12)), np.zeros((8, 3, 3, 3))
    tensors = {"b.weight": linear, "a.weight": conv, "n.weight": np.zeros(3)}

    def node(op: str, module: str | None = None) -> dict[str, str | None]:
        return {"op": op, "module": module}

    shape = (3, 2, 2)
    start, pool = node("input"), node("maxpool", "p")
    found = figures.first_layer(tensors, [start, pool, node("linear", "b")], shape)
    assert found == ("b.weight", linear)
    found = figures.first_layer(tensors, [start, node("conv2d", "a"), node("linear", "b")], shape)
    assert found == ("a.weight", conv)
    norm = [start, node("batchnorm", "n"), node("linear", "b")]
    assert figures.first_layer(tensors, norm, shape) is None
    assert figures.first_layer(tensors, [start, node("linear", "b")], (1, 2, 2)) is None
    assert figures.first_layer(tensors, None, shape) is None  # two could be it
    assert figures.first_layer({"b.weight": linear}, None, shape) == ("b.weight", linear)


def test_a_notebooks_backend_and_a_users_settings_do_not_matter() -> None:
    Path("rc").write_text("backend: nonsense\nfigure.dpi: 7\n", encoding="utf-8")
    code = "import src.report.figures as f; print(f.note('x').dpi)"
    foreign = {"MPLBACKEND": "module://matplotlib_inline.not_there", "MATPLOTLIBRC": "rc"}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | foreign | {"PYTHONPATH": str(clones.REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("140.0\n", "")


@pytest.mark.parametrize(("colour", "mode"), [("red", "RGB"), ("0.5", "L")])
def test_a_png_holds_pixels_and_nothing_else(colour: str, mode: str) -> None:
    figure = Figure((1, 1), facecolor=colour)
    for name in ("one.png", "two.png"):
        figures.write(name, figure)
    content = Path("one.png").read_bytes()
    assert content == Path("two.png").read_bytes()
    with Image.open("one.png") as picture:
        assert (picture.size, picture.mode) == ((140, 140), mode)
    parts, at = {}, 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        parts[content[at + 4 : at + 8]] = content[at + 8 : at + 8 + size]
        at += 12 + size
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]  # no date, no program's name
    # Run-length coded: any zlib packs the same rows into the same bytes.
    packer = zlib.compressobj(-1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    rows = zlib.decompress(parts[b"IDAT"])
    assert packer.compress(rows) + packer.flush() == parts[b"IDAT"]
