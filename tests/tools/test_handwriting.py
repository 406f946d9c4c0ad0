"""Pictures as people take them, brought to MNIST's form, and read by the pipeline's own model."""

import io
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from src.common import dataset
from src.learning import models, scores
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
    model, _ = models.load(*paths)

    def right(images: list[np.ndarray], labels: list[int]) -> float:
        pixels = torch.from_numpy(np.array(images)).reshape(-1, 1, 28, 28)
        found = scores.log_probabilities(model, pixels).argmax(dim=1)
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
    path = reproduced / "data" / "prepared" / "test.safetensors"
    prepared = dataset.read(str(path), "np")
    originals, labels = prepared.images[:200], prepared.labels[:200]
    images = []
    for levels in np.uint8(255 - np.rint(originals * 255)).reshape(-1, 28, 28):
        sheet = Image.fromarray(levels).resize((150, 150), Image.Resampling.BICUBIC)
        images.append(read(ImageOps.expand(sheet, (20, 25, 45, 30), 255)))
    assert right(images, labels) >= right(originals, labels) - 0.01


@given(st.sampled_from((2, 4)), st.integers(1, 10), st.randoms(use_true_random=False))
@settings(max_examples=25)
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
@settings(max_examples=40)
def test_size_and_place_of_a_drawing_do_not_matter_and_the_form_grows_with_the_side(
    ink: np.ndarray, factor: int, down: int, right: int
) -> None:
    larger = np.pad(ink.repeat(factor, 0).repeat(factor, 1), ((down, 3), (right, 0)))
    form = handwriting.into_form(ink)
    assert np.abs(form - handwriting.into_form(larger)).max() < 1e-9
    doubled = handwriting.into_form(ink, 56).reshape(28, 2, 28, 2).mean(axis=(1, 3))
    assert np.abs(form - doubled).max() < 1e-9


def five() -> Image.Image:
    return drawn(Random(3), 5, "hat last")


def expect_five(file: io.BytesIO, doubt: str | None = None) -> None:
    """Expect the form of `five`.

    Ink is what is above half: rounding and JPEG move that line by part of a pixel of 11.
    """
    found, said = handwriting.read(file, 28)
    assert said == doubt
    assert np.abs(found - read(five())).max() < 0.25


def test_polarity_format_orientation_and_transparency_do_not_matter() -> None:
    picture = five()
    ink, levels = ImageOps.invert(picture), np.asarray(picture)
    turned = Image.Exif()
    turned[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
    variants = [saved(picture, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")]
    variants += [
        saved(ink),
        saved(ImageOps.colorize(picture, "darkblue", "lightyellow")),
        saved(Image.fromarray(levels.astype(np.uint16) * 257)),
        saved(picture.rotate(90, expand=True), "JPEG", exif=turned, quality=95),
        saved(picture.rotate(90, expand=True), "TIFF", exif=turned),
        saved(picture.resize((3 * SIZE, 3 * SIZE), Image.Resampling.BICUBIC)),
    ]
    for colour in ("black", "white"):  # on nothing
        sheet = Image.new("RGB", picture.size, colour)
        sheet.putalpha(ink.point(lambda level: max(0, level - 30)))
        variants.append(saved(sheet))
    # Levels of more than 8 bits that end lower; whole numbers of 32 bits; parts of 1; floats.
    for deep in (levels.astype(np.uint16), levels.astype(np.uint16) * 16):
        variants.append(saved(Image.fromarray(deep), "TIFF"))
    for deep in (levels.astype(np.int32) * 200, np.float32(levels / 255), np.float32(levels)):
        variants.append(saved(Image.fromarray(deep), "TIFF"))
    assert (read(picture) > 0.5).sum() > 50
    for file in variants:
        expect_five(file)


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
    whole, blank = saved(drawn(Random(0), 7, "bar")).getvalue(), "shows nothing"
    noise = np.random.default_rng(0).normal(200, 3, (90, 90)).astype(np.uint8)
    contents = [
        (whole[: len(whole) // 2], "cannot be read as a picture: "),
        (b"a digit\n", "cannot be read as a picture: "),
        (saved(Image.new("L", (90, 90), 200)).getvalue(), blank),
        (saved(Image.new("L", (28, 28), 255)).getvalue(), blank),
        (saved(Image.fromarray(noise)).getvalue(), blank),
        (saved(Image.new("L", (9000, 1), 200)).getvalue(), blank),
    ]
    for content, reason in contents:
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(OSError, match=f"^{reason}.*$"):
            handwriting.read(str(tmp_path / "x.png"), 28)
    with pytest.raises(OSError, match=r"^is missing$"):
        handwriting.read(str(tmp_path / "none.png"), 28)


def framed(picture: Image.Image, off: int, line: int, sides: str) -> Image.Image:
    """Draw lines around, so many pixels off the border of a sheet with more room."""
    sheet = ImageOps.expand(picture, 30, 225)
    end = sheet.width - 1 - off
    lines = {
        "top": (off, off, end, off + line),
        "left": (off, off, off + line, end),
        "bottom": (off, end - line, end, end),
        "right": (end - line, off, end, end),
    }
    draw = ImageDraw.Draw(sheet)
    for side in lines.keys() & sides.split():
        draw.rectangle(lines[side], fill=50)
    if "gap" in sides:
        draw.rectangle((sheet.width // 3, off, sheet.width // 2, off + line), fill=225)
    return sheet


def plotted(picture: Image.Image, colours: str, axes: str, dpi: int) -> Image.Image:
    # As matplotlib draws by itself: the report's settings may be in force in this process.
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(4, 3), dpi=dpi)
        plot = figure.add_subplot(title="" if axes == "none" else "label: 5")
        plot.imshow(np.asarray(ImageOps.invert(picture)), cmap=colours)
        if axes == "none":
            plot.axis("off")
        if axes == "two":
            plot.spines[["top", "right"]].set_visible(False)
        figure.savefig(file := io.BytesIO(), format="png")
    return Image.open(file)


@pytest.mark.parametrize("digit", [0, 1, 4, 5, 8])
def test_what_encloses_a_digit_is_not_the_digit(digit: int) -> None:
    random = Random(digit)
    style = next(iter(drawings.STYLES[digit]))
    picture = drawn(random, digit, style)
    form = ImageOps.expand(picture.resize((160, 160)), 3, 80)
    sheet = Image.new("L", (500, 300), 225)
    sheet.paste(form, (300, 90))
    ImageDraw.Draw(sheet).text((20, 20), "Amount", fill=50)
    row = Image.new("L", (700, 300), 225)
    for left in (20, 183, 346):
        row.paste(ImageOps.expand(Image.new("L", (160, 160), 225), 3, 80), (left, 90))
    row.paste(form, (183, 90))
    variants = {"a box of a form": sheet, "a row of boxes": row}
    for off, line in ((1, 1), (3, 3), (12, 12), (30, 2)):
        for sides in ("top left bottom right", "left bottom right", "top left bottom right gap"):
            frame = framed(picture, off, line, sides)
            variants[f"{sides}, {off}, {line}"] = frame
            variants[f"{sides}, {off}, {line}, inverted"] = ImageOps.invert(frame)
    for colours, axes, dpi in product(("gray", "gray_r"), ("four", "two", "none"), (70, 140)):
        variants[f"imshow {colours} {axes} {dpi}"] = plotted(picture, colours, axes, dpi)
    for name, ink in (
        ("a dark pad in a light window", ImageOps.invert(picture)),
        ("a light pad", picture.point(lambda level: level + 30)),
    ):
        variants[name] = Image.new("L", (480, 460), 240)
        variants[name].paste(ink, (40, 30))
        draw = ImageDraw.Draw(variants[name])
        draw.rectangle((40, 400, 120, 430), outline=90)
        draw.text((60, 405), "Predict", fill=0)
    expected = read(picture)
    for name, variant in variants.items():
        form, doubt = handwriting.read(saved(variant), 28)
        assert doubt is None, name
        assert np.abs(form - expected).mean() < 0.02, name


def test_what_encloses_little_or_nothing_is_doubted() -> None:
    sheet = framed(Image.new("L", (SIZE, SIZE), 225), 10, 3, "top left bottom right")
    assert handwriting.read(saved(sheet), 28)[1] == "a frame?"
    ImageDraw.Draw(sheet).ellipse((180, 180, 200, 200), fill=50)
    assert handwriting.read(saved(sheet), 28)[1] == "a frame?"


def test_dust_in_a_loop_is_not_looked_into() -> None:
    picture = drawn(Random(5), 0, "round")
    expected = read(picture)
    y, x = np.argwhere(np.asarray(picture) < 120).mean(axis=0).tolist()
    ImageDraw.Draw(picture).ellipse((x - 4, y - 4, x + 4, y + 4), fill=50)
    found, doubt = handwriting.read(saved(picture), 28)
    assert doubt is None
    assert np.abs(found - expected).mean() < 0.02


def test_a_second_framed_digit_is_doubted() -> None:
    sheet = Image.new("L", (2 * SIZE + 80, SIZE + 40), 225)
    for at, digit in enumerate((4, 7)):
        box = ImageOps.expand(drawn(Random(0), digit, next(iter(drawings.STYLES[digit]))), 3, 50)
        sheet.paste(box, (20 + at * (SIZE + 20), 20))
    assert handwriting.read(saved(sheet), 28)[1] == "more than one digit?"


TIFF, LOST = b"II*\0\x08\0\0\0", b"\x69\x87\4\0\1\0\0\0\xff\xff\xff\x7f\0\0\0\0"
ODD_EXIF = {
    "no TIFF": b"garbage",
    "an offset beyond the end": b"II*\0\xff\xff\xff\x7f",
    "a text as orientation": TIFF + b"\1\0\x12\1\2\0\4\0\0\0abc\0\0\0\0\0",
    "a turn of 99": TIFF + b"\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0",
    "two wrong tags": TIFF + b"\2\0\x1a\1\5\0\xff\xff\xff\xff\xff\xff\xff\xff" + LOST,
}


@pytest.mark.parametrize("content", ODD_EXIF.values(), ids=ODD_EXIF)
def test_what_is_wrong_with_the_exif_means_upright(content: bytes) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        expect_five(saved(five(), kind, exif=b"Exif\0\0" + content))


def test_of_the_exif_only_the_orientation_counts() -> None:
    turned = b"Exif\0\0" + TIFF + b"\2\0\x12\1\3\0\1\0\0\0\6\0\0\0" + LOST
    expect_five(saved(five().rotate(90, expand=True), "JPEG", exif=turned))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_pictures_in_a_file_the_first_is_read_and_doubted(kind: str) -> None:
    others = [drawn(Random(3), 1, "stroke"), five()]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = saved(five(), kind, save_all=True, append_images=others, **options)
    expect_five(file, "the first of 3 pictures")


def test_formats_that_are_not_read_name_those_that_are_and_a_large_picture_the_limit(
    tmp_path: Path,
) -> None:
    contents = [
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        saved(Image.new("L", (9, 9)), "AVIF").getvalue(),
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    ]
    for content in contents:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(OSError, match=r"only PNG, JPEG, BMP, GIF, WEBP and TIFF can$"):
            handwriting.read(str(tmp_path / "x"), 28)
    head = b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    head += (20_000).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24)
    (tmp_path / "large.bmp").write_bytes(head)
    with pytest.raises(OSError, match=r"^is too large: at most 178,956,970 pixels are read"):
        handwriting.read(str(tmp_path / "large.bmp"), 28)


def test_a_picture_for_a_colour_model_is_its_middle_scaled() -> None:
    colours = np.zeros((60, 100, 3), np.uint8)
    colours[:, :20] = 255  # cut off
    colours[:, 20:50, 0], colours[:, 50:80, 2] = 200, 100
    image, doubt = handwriting.read_resized(saved(Image.fromarray(colours)), (3, 6, 6))
    assert doubt is None
    assert image.shape == (3, 6, 6)
    assert image.dtype == np.float32
    assert np.abs(image[0, :, :2] - 200 / 255).max() < 0.05
    assert np.abs(image[2, :, 4:] - 100 / 255).max() < 0.05
    assert image[1].max() < 0.1
    grey, _ = handwriting.read_resized(saved(Image.fromarray(colours)), (1, 3, 5))
    assert grey.shape == (1, 3, 5)
    assert grey[0, 0, 0] > 0.9
