"""Pictures: what they show, with which captions, axes and colours, down to pixels of the PNG."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.calibration import calibration_curve

from src import figures

Pixel = tuple[int, int, int]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pixel(figure: Figure, axes: Axes, x: float, y: float) -> Pixel:
    """Write a figure as the report does; return the colour of the PNG at a point of its axes."""
    figures.write("figure.png", figure)
    with Image.open("figure.png") as picture:
        right, up = axes.transData.transform((x, y))
        red, green, blue = picture.convert("RGB").getpixel((int(right), picture.height - int(up)))
    return red, green, blue


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_samples_are_dark_on_white_in_the_row_of_their_class() -> None:
    labels = np.array([3, 3, 1, 0, 3])
    images = np.arange(1, 6)[:, None] / 5 * np.ones(64)
    figure = figures.samples(images, labels, columns=2)
    [axes] = figure.axes
    grid = axes.images[0].get_array().reshape(4, 10, 2, 10).max(axis=(1, 3))
    assert grid.tolist() == [[0.8, 0], [0.6, 0], [0, 0], [0.2, 0.4]]
    assert [label.get_text() for label in axes.get_yticklabels()] == list("0123")
    assert axes.get_yticks().tolist() == [4.5, 14.5, 24.5, 34.5]
    assert pixel(figure, axes, 5, 25) == WHITE
    assert pixel(figure, axes, 5, 5) < pixel(figure, axes, 5, 15) < pixel(figure, axes, 5, 35)


def test_weights_share_one_scale_around_zero_blue_for_and_red_against() -> None:
    weight = np.random.default_rng(2).normal(size=(10, 784))
    weight[3, :14], weight[4, :14] = -9, 9
    figure = figures.weights(weight)
    *tiles, scale = figure.axes
    assert [axes.get_title() for axes in tiles] == list("0123456789")
    for row, axes in enumerate(tiles):
        assert np.array_equal(axes.images[0].get_array(), weight[row].reshape(28, 28))
        assert axes.images[0].get_clim() == (-9, 9)
    assert scale.get_ylim() == (-9, 9)
    red, blue = pixel(figure, tiles[3], 5, 0), pixel(figure, tiles[4], 5, 0)
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert min(pixel(figure, tiles[5], 14, 14)) > 100  # pale: it is near 0


def test_small_images_are_not_smoothed() -> None:
    """Smoothing is a sum of floats that another processor rounds in another way."""
    weight = np.random.default_rng(2).choice([-1.0, 1.0], (40, 784))
    figure = figures.weights(weight)
    figures.write("figure.png", figure)
    across, up = figure.axes[0].transData.transform((14, 14))
    with Image.open("figure.png") as picture:
        x, y = int(across), int(picture.height - up)
        tile = picture.crop((x - 30, y - 30, x + 30, y + 30))
        assert len(tile.getcolors()) == 2


def test_weights_of_a_convolution_are_drawn_and_no_more_than_forty() -> None:
    weight = np.random.default_rng(3).normal(size=(41, 1, 5, 5))
    *tiles, _ = figures.weights(weight).axes
    assert len(tiles) == 40
    assert np.array_equal(tiles[39].images[0].get_array(), weight[39, 0])


def log_probabilities(predicted: np.ndarray, confidence: np.ndarray, classes: int) -> np.ndarray:
    """Give each row's predicted class its probability, and the others the rest in equal parts."""
    rest = (1 - confidence[:, None]) / (classes - 1) * np.ones(classes)
    rest[np.arange(len(predicted)), predicted] = confidence
    return np.log(rest)


@pytest.mark.parametrize("count", [1, 7, 30])
def test_the_surest_mistakes_come_first_with_both_classes_and_the_probability(count: int) -> None:
    generator = np.random.default_rng(count)
    labels = np.arange(count + 5) % 9
    predicted = labels + (np.arange(count + 5) >= 5)  # the first five are right
    confidence = generator.permutation(np.linspace(0.3, 0.99, count + 5))
    images = generator.uniform(size=(count + 5, 16))
    figure = figures.mistakes(images, labels, log_probabilities(predicted, confidence, 10))
    worst = [row for row in np.argsort(-confidence) if row >= 5][:24]
    assert len(figure.axes) == min(count, 24)
    for row, axes in zip(worst, figure.axes, strict=True):
        assert axes.get_title() == f"{labels[row]} as {labels[row] + 1}"
        assert axes.get_xlabel() == f"{confidence[row]:.2%}"
        assert axes.title.get_visible()
        assert axes.images[0].get_array().tolist() == images[row].reshape(4, 4).tolist()
    first = figure.axes[0]
    shade = 255 * (1 - images[worst[0]].reshape(4, 4)[2, 1])
    assert pixel(figure, first, 1, 2) == pytest.approx((shade,) * 3, abs=1)


def test_reliability_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, 2000)
    is_right = generator.uniform(size=2000) < confidence**2
    predicted = generator.integers(0, 2, 2000)
    labels = np.where(is_right, predicted, 1 - predicted)
    figure = figures.reliability(labels, log_probabilities(predicted, confidence, 2))
    upper, lower = figure.axes
    accuracy, expected = calibration_curve(is_right, confidence, n_bins=10)
    assert [bar.get_height() for bar in upper.patches] == pytest.approx(accuracy)
    diagonal, points = upper.lines
    assert [*diagonal.get_xdata(), *diagonal.get_ydata()] == [0, 1, 0, 1]
    assert points.get_xdata() == pytest.approx(expected)
    assert points.get_ydata() == pytest.approx(accuracy)
    rows, _ = np.histogram(confidence, bins=10, range=(0, 1))
    assert [bar.get_height() for bar in lower.patches] == rows.tolist()
    error = np.abs(accuracy - expected) @ rows[rows > 0] / 2000
    assert upper.get_title("left") == f"calibration error {error:.2%}"
    assert [upper.get_ylabel(), lower.get_ylabel()] == ["share that is right", "images"]
    assert lower.get_xlabel() == "probability of the prediction"
    assert upper.yaxis.get_major_formatter()(0.5) == "50%"
    assert lower.xaxis.get_major_formatter()(0.5) == "50%"
    assert pixel(figure, upper, 0.55, 0.1) == (0x21, 0x66, 0xAC)
    assert pixel(figure, upper, expected[-1], accuracy[-1]) == (0xD6, 0x60, 0x4D)
    assert pixel(figure, lower, 0.55, 10) == (0xB8, 0xB8, 0xB8)
    assert pixel(figure, upper, 0.25, 0.5) == WHITE


def test_what_cannot_be_drawn_is_said() -> None:
    labels, flat = np.array([0, 1]), np.zeros((2, 12))
    sure = log_probabilities(labels, np.array([0.9, 0.9]), 2)
    assert texts(figures.samples(flat, labels)) == [
        "Images of 12 pixels are not square: no samples drawn."
    ]
    assert texts(figures.weights(flat)) == ["Weights of 12 inputs are not square: not drawn."]
    assert texts(figures.mistakes(flat, 1 - labels, sure)) == [
        "Images are not square: no mistakes drawn."
    ]
    assert texts(figures.mistakes(np.zeros((2, 16)), labels, sure)) == ["No mistakes."]


@pytest.mark.parametrize(("colour", "mode"), [("red", "RGB"), ("0.5", "L")])
def test_a_png_holds_pixels_and_nothing_else(colour: str, mode: str) -> None:
    figure = Figure((1, 1), facecolor=colour)
    for name in ("one.png", "two.png"):
        figures.write(name, figure)
    content = Path("one.png").read_bytes()
    assert content == Path("two.png").read_bytes()
    with Image.open("one.png") as picture:
        assert (picture.size, picture.mode) == ((140, 140), mode)
    kinds, at = [], 8
    while at < len(content):
        kinds.append(content[at + 4 : at + 8])
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]  # no date, no program's name
