"""Pictures as people take them, brought to MNIST's form, and read by the pipeline's own model."""

import io
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from src.common import dataset
from src.learning import models
from tests.support import drawings
from tools import handwriting

INK = arrays.arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 60))).filter(np.any)
SIZE = 320  # pixels, height and width of a drawn picture


def drawn(random: Random, digit: int, style: str, pen: float = 0.04) -> Image.Image:
    """Return dark ink on light paper; the pen's width is a part of the picture's."""
    paper = Image.new("L", (2 * SIZE, 2 * SIZE), 225)
    draw = ImageDraw.Draw(paper)
    radius = pen * SIZE
    for stroke in drawings.draw(random, digit, style, drawings.Hand()):
        points = [(2 * SIZE * x, 2 * SIZE * y) for x, y in stroke]
        draw.line(points, fill=50, width=round(2 * radius))
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=50)
    return paper.resize((SIZE, SIZE), Image.Resampling.BOX)


def ball_pen(random: Random, digit: int, style: str) -> Image.Image:
    """Thin lines on ruled paper."""
    ruled = np.full((SIZE, SIZE), 225, np.uint8)
    ruled[::24] = ruled[1::24] = 180
    return ImageChops.darker(drawn(random, digit, style, pen=0.02), Image.fromarray(ruled))


def shadow(random: Random, digit: int, style: str) -> Image.Image:
    """Half of the light is missing in a corner, up to a line or in a soft circle."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    x, y = (1 - along if random.random() < 0.5 else along for along in (x, y))
    if random.random() < 0.5:
        dark = Image.fromarray(np.uint8(255 * (random.uniform(0.6, 1.4) * x + y < 0.8)))
        dark = np.asarray(dark.filter(ImageFilter.GaussianBlur(3))) / 255
    else:
        dark = np.exp(-(x**2 + y**2) / 0.2)
    return Image.fromarray(np.uint8(np.asarray(drawn(random, digit, style)) * (1 - 0.5 * dark)))


def table(random: Random, digit: int, style: str) -> Image.Image:
    """A dark table shows on one or two sides of the sheet, which lies a little askew."""
    level, first, wide = random.randrange(10, 120), random.randrange(4), random.uniform(0.03, 0.15)
    sheet = drawn(random, digit, style).rotate(random.uniform(-3, 3), fillcolor=level)
    sides = [0, 0, 0, 0]
    for side in range(first, first + random.choice((1, 2))):
        sides[side % 4] = round(wide * SIZE)
    return ImageOps.expand(sheet, tuple(sides), level)


def specks(random: Random, digit: int, style: str) -> Image.Image:
    """Light ink on dark paper, grains of dust, and a frame that is lighter than the ink."""
    picture = drawn(random, digit, style)
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, radius = random.uniform(0, SIZE), random.uniform(0, SIZE), random.uniform(0.5, 2.5)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=30)
    return ImageOps.invert(ImageOps.expand(picture, 12, 0))


def cut_out(random: Random, digit: int, style: str) -> Image.Image:
    """No margin: the ink touches the border on all sides."""
    picture = drawn(random, digit, style)
    return picture.crop(ImageOps.invert(picture).point(lambda level: level > 120).getbbox())


Right = Callable[[list[np.ndarray], list[int]], float]


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    picture.save(file := io.BytesIO(), kind, **options)
    return file


def read(picture: Image.Image, side: int = 28) -> np.ndarray:
    return handwriting.read(saved(picture), side)[0]


@pytest.fixture(scope="module")
def right(reproduced: Path) -> Right:
    """Return a function: the part of the images that softmax regression reads as labelled."""
    paths = (str(reproduced / "models" / name) for name in ("model.safetensors", "recipe.json"))
    model = models.load(*paths)

    def right(images: list[np.ndarray], labels: list[int]) -> float:
        found = model.log_probabilities(torch.from_numpy(np.array(images))).argmax(dim=1)
        return float((found.numpy() == labels).mean())

    return right


@pytest.mark.parametrize("take", [ball_pen, shadow, table, specks, cut_out])
def test_pictures_as_people_take_them_are_read(
    right: Right, take: Callable[..., Image.Image]
) -> None:
    random, images, labels = Random(0), [], []
    for digit, at in product(range(10), range(10)):
        styles = list(drawings.STYLES[digit])
        images.append(read(take(random, digit, styles[at % len(styles)])))
        labels.append(digit)
    assert right(images, labels) >= (0.9 if take is ball_pen else 0.85)


def test_enlarged_test_images_are_read_as_well_as_the_originals(
    reproduced: Path, right: Right
) -> None:
    originals, labels = dataset.read(
        str(reproduced / "data" / "prepared" / "test.safetensors"), "np"
    )
    images = []
    for levels in np.uint8(255 - np.rint(originals[:200] * 255)).reshape(-1, 28, 28):
        sheet = Image.fromarray(levels).resize((150, 150), Image.Resampling.BICUBIC)
        images.append(read(ImageOps.expand(sheet, (20, 25, 45, 30), 255)))
    assert right(images, labels[:200]) >= right(originals[:200], labels[:200]) - 0.01


@given(st.sampled_from((2, 4)), st.integers(1, 10), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_form_is_the_mean_over_squares_of_the_centred_drawing(
    factor: int, half_width: int, random: Random
) -> None:
    """Where the scale is 1/factor and the drawing symmetric, this is plain arithmetic."""
    height, width = 20 * factor, 2 * half_width
    ink = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    ink[0] = ink[:, 0] = True
    ink |= ink[::-1, ::-1]
    sheet = np.zeros((28 * factor, 28 * factor))
    top, left = (round(14.5 * factor) - half for half in (height // 2, half_width))
    sheet[top : top + height, left : left + width] = ink
    expected = sheet.reshape(28, factor, 28, factor).mean(axis=(1, 3))
    assert np.abs(handwriting.into_form(ink) - expected).max() < 1e-12


@given(INK, st.integers(2, 5), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_size_and_place_of_a_drawing_do_not_matter_and_the_form_grows_with_the_side(
    ink: np.ndarray, factor: int, down: int, right: int
) -> None:
    larger = np.pad(ink.repeat(factor, 0).repeat(factor, 1), ((down, 3), (right, 0)))
    form = handwriting.into_form(ink)
    assert np.abs(form - handwriting.into_form(larger)).max() < 1e-9
    doubled = handwriting.into_form(ink, 56).reshape(28, 2, 28, 2).mean(axis=(1, 3))
    assert np.abs(form - doubled).max() < 1e-9


def test_polarity_format_orientation_and_transparency_do_not_matter() -> None:
    picture = drawn(Random(3), 5, "hat last")
    ink = ImageOps.invert(picture)
    turned = Image.Exif()
    turned[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
    variants = {
        "light on dark": saved(ink),
        "colour": saved(ImageOps.colorize(picture, "darkblue", "lightyellow")),
        "16 bits": saved(Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)),
        "turned": saved(picture.rotate(90, expand=True), "JPEG", exif=turned, quality=95),
        "turned TIFF": saved(picture.rotate(90, expand=True), "TIFF", exif=turned),
        "larger": saved(picture.resize((3 * SIZE, 3 * SIZE), Image.Resampling.BICUBIC)),
    }
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"):
        variants[kind] = saved(picture, kind)
    for colour in ("black", "white"):
        sheet = Image.new("RGB", picture.size, colour)
        sheet.putalpha(ink.point(lambda level: max(0, level - 30)))
        variants[f"{colour} on nothing"] = saved(sheet)
    expected = read(picture)
    assert (expected > 0.5).sum() > 50
    for name, file in variants.items():
        # Ink is what is above half: rounding and JPEG move that line by part of a pixel of 11.
        assert np.abs(handwriting.read(file, 28)[0] - expected).max() < 0.25, name


@pytest.mark.parametrize("pen", [0.012, 0.02, 0.04])
def test_lines_come_out_as_wide_as_mnist_s_whatever_pen_drew_them(pen: float) -> None:
    form = read(drawn(Random(1), 1, "stroke", pen)).reshape(28, 28)
    assert abs(form[10:19].sum(axis=1).mean() - 0.12 * 20) < 0.5


def test_a_picture_of_the_model_s_size_is_taken_as_it_is_but_light_on_dark() -> None:
    levels = np.zeros((8, 8), np.uint8)
    levels[2:6, 3], levels[6, 3] = 200, 77
    expected = np.float32(np.rint(levels.ravel() / 255 * 2**16) / 2**16)
    for picture in (levels, 255 - levels):
        assert (read(Image.fromarray(picture), 8) == expected).all()


def test_a_second_digit_is_doubted_and_the_first_read_without_it() -> None:
    one = drawn(Random(1), 3, "round")
    box = ImageOps.invert(one).point(lambda level: level > 120).getbbox()
    digit = one.crop(box)
    pair = Image.new("L", (3 * digit.width + 60, digit.height + 80), 225)
    pair.paste(digit, (20, 40))
    alone, doubt = handwriting.read(saved(pair), 28)
    assert doubt is None
    for gap in (digit.width // 10, digit.width):  # both near and far
        pair.paste(225, (20 + digit.width, 0, *pair.size))
        pair.paste(digit.resize((digit.width, digit.height - 20)), (20 + digit.width + gap, 50))
        image, doubt = handwriting.read(saved(pair), 28)
        assert doubt == "more than one digit?"
        assert np.abs(image - alone).max() < 0.1


def test_what_is_no_picture_or_shows_nothing_is_an_error_of_one_line(tmp_path: Path) -> None:
    whole = saved(drawn(Random(0), 7, "bar")).getvalue()
    noise = np.random.default_rng(0).normal(200, 3, (90, 90)).astype(np.uint8)
    contents = {
        "half.png": (whole[: len(whole) // 2], "cannot be read as a picture: "),
        "text.png": (b"a digit\n", "cannot be read as a picture: "),
        "blank.png": (saved(Image.new("L", (90, 90), 200)).getvalue(), "shows nothing"),
        "blank28.png": (saved(Image.new("L", (28, 28), 255)).getvalue(), "shows nothing"),
        "noise.png": (saved(Image.fromarray(noise)).getvalue(), "shows nothing"),
        "line.png": (saved(Image.new("L", (9000, 1), 200)).getvalue(), "shows nothing"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OSError, match=f"^{reason}.*$"):
            handwriting.read(str(tmp_path / name), 28)
    with pytest.raises(OSError, match=r"^is missing$"):
        handwriting.read(str(tmp_path / "none.png"), 28)
