"""Pictures: what they show, with which captions.

Those of the real rows have their hashes in dvc.lock: tests/pipeline/test_repro.py.
"""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from src.report import figures

pytestmark = pytest.mark.usefixtures("here")


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


@pytest.mark.parametrize("shape", [(10, 784), (11, 81), (41, 1, 5, 5)])
def test_weights_share_one_scale_around_zero_and_40_at_most_are_drawn(
    shape: tuple[int, ...],
) -> None:
    weight = np.random.default_rng(2).normal(size=shape)
    weight.flat[5] = -4.5
    side = math.isqrt(math.prod(shape[1:]))
    figure = figures.weights(weight, (1, side, side))
    [colourbar] = figure.axes
    assert colourbar.get_ylim() == (-4.5, 4.5)
    assert texts(figure) == [str(at) for at in range(min(shape[0], 40))]
    check_layout(figure)


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
    found = log_probabilities(predicted, confidence, 10)
    figure = figures.mistakes(np.zeros((count + 5, 1, 4, 4)), labels, found, list("0123456789"))
    worst = [row for row in np.argsort(-confidence) if row >= 5][:24]
    assert texts(figure) == [
        f"{labels[row]} as {labels[row] + 1}\n{confidence[row]:.2%}" for row in worst
    ]
    check_layout(figure)


def test_reliability_has_a_point_for_each_level_and_the_mean_distance_as_its_error() -> None:
    labels, sure = np.zeros(5, int), np.array([0.55, 0.92, 0.94, 0.94, 0.96])
    predicted = np.array([0, 1, 0, 0, 0])
    figure = figures.reliability(labels, log_probabilities(predicted, sure, 2))
    upper, _ = figure.axes
    assert upper.lines[1].get_xydata() == pytest.approx(np.array([[0.55, 1], [0.94, 0.75]]))
    assert upper.get_title("left") == f"calibration error {(0.45 + 4 * 0.19) / 5:.2%}"
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
