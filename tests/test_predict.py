"""`make predict`: pictures of any size and polarity, brought to MNIST's form."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from src import dataset, inference, softmax_regression
from tests.conftest import Run
from tools import handwriting

DRAWINGS = arrays.arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 60))).filter(np.any)


@pytest.fixture(scope="module")
def digits(reproduced: Path) -> np.ndarray:
    """Return the test images as grey levels, uint8 (10000, 28, 28)."""
    images, _ = dataset.read(str(reproduced / "data" / "prepared" / "test.safetensors"))
    return np.rint(images.numpy() * 255).astype(np.uint8).reshape(-1, 28, 28)


def predict(
    run: Run, folder: Path, *arguments: str | Path, check: bool = True
) -> subprocess.CompletedProcess:
    return run(folder, sys.executable, "-m", "tools.predict", *arguments, check=check)


def enlarged(levels: np.ndarray, size: int = 300) -> Image.Image:
    """Return a digit as black ink on white paper, with a margin."""
    inner = Image.fromarray(255 - levels).resize((size, size), Image.Resampling.BICUBIC)
    paper = Image.new("L", (size + 50, size + 90), 255)
    paper.paste(inner, (20, 30))
    return paper


def test_200_test_images_get_the_prediction_of_evaluate_and_the_probabilities_of_torch(
    reproduced: Path, run: Run, digits: np.ndarray, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{row}.png" for row in range(200)]
    for row, path in enumerate(paths):
        Image.fromarray(digits[row]).save(path)
    found = json.loads(predict(run, reproduced, "--json", *paths).stdout)
    with open(reproduced / "metrics" / "plots" / "confusion.csv", newline="") as file:
        evaluated = [int(row["predicted"]) for row in csv.DictReader(file)]
    assert [record["digit"] for record in found] == evaluated[:200]
    assert [record["image"] for record in found] == [str(path) for path in paths]
    images, _ = dataset.read(str(reproduced / "data" / "prepared" / "test.safetensors"))
    parameters = softmax_regression.load(str(reproduced / "models" / "model.safetensors"))
    expected = softmax_regression.log_probabilities(parameters, images[:200], 200).exp().numpy()
    assert np.abs(expected - [record["probabilities"] for record in found]).max() <= 1e-6


def test_mnist_itself_has_the_box_and_the_centre_of_the_form(digits: np.ndarray) -> None:
    ink = digits[:, None] > 0
    heights, widths = ink.any(axis=3).sum(axis=2), ink.any(axis=2).sum(axis=2)
    assert np.median(np.maximum(heights, widths)) == handwriting.BOX
    along = np.arange(28) + 0.5
    mass = digits.sum(axis=(1, 2))
    for axis in (1, 2):
        centres = digits.sum(axis=axis) @ along / mass
        assert abs(centres.mean() - handwriting.CENTRE) < 0.02


@given(st.sampled_from((2, 4)), st.integers(1, 10), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_form_is_the_mean_over_squares_of_the_centred_drawing(
    factor: int, half_width: int, random: np.random.Generator
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


@given(DRAWINGS, st.integers(2, 5), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_size_and_place_of_a_drawing_do_not_matter(
    ink: np.ndarray, factor: int, down: int, right: int
) -> None:
    larger = np.pad(ink.repeat(factor, 0).repeat(factor, 1), ((down, 3), (right, 0)))
    assert np.abs(handwriting.into_form(ink) - handwriting.into_form(larger)).max() < 1e-9


def test_polarity_format_orientation_and_transparency_do_not_matter(
    digits: np.ndarray, tmp_path: Path
) -> None:
    drawn = enlarged(digits[3])
    ink = ImageOps.invert(drawn)
    turned = Image.Exif()
    turned[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
    variants = {
        "white_paper.png": (drawn, {}),
        "black_paper.png": (ink, {}),
        "grey_paper.png": (drawn.point(lambda level: 60 + level // 2), {}),
        "colour.png": (ImageOps.colorize(drawn, "darkblue", "lightyellow"), {}),
        "palette.png": (drawn.convert("P"), {}),
        "sixteen_bits.png": (Image.fromarray(np.asarray(drawn).astype(np.uint16) * 257), {}),
        "turned.jpg": (drawn.rotate(90, expand=True), {"exif": turned, "quality": 95}),
    }
    for name, colour in (("black_on_nothing.png", "black"), ("white_on_nothing.png", "white")):
        sheet = Image.new("RGB", drawn.size, colour)
        sheet.putalpha(ink)
        variants[name] = (sheet, {})
    for name, (picture, options) in variants.items():
        picture.save(tmp_path / name, **options)
    expected = handwriting.read(str(tmp_path / "white_paper.png"))
    assert (expected > 0.5).sum() > 50
    for name in variants:
        # Ink is what is above half: rounding and JPEG move that line by part of a pixel of 15.
        assert np.abs(handwriting.read(str(tmp_path / name)) - expected).max() < 0.15, name


def test_enlarged_test_images_are_read_as_well_as_the_originals(
    reproduced: Path, digits: np.ndarray, tmp_path: Path
) -> None:
    weight, bias = inference.load(str(reproduced / "models" / "model.safetensors"))
    _, labels = dataset.read(str(reproduced / "data" / "prepared" / "test.safetensors"))
    forms = []
    for levels in digits[:300]:
        enlarged(levels, 150).save(tmp_path / "digit.jpg", quality=80)
        forms.append(handwriting.read(str(tmp_path / "digit.jpg")))
    right = (
        inference.log_probabilities(weight, bias, np.array(forms)).argmax(axis=1)
        == labels[:300].numpy()
    )
    originals = digits[:300].reshape(-1, 784) / 255
    as_they_are = (
        inference.log_probabilities(weight, bias, originals).argmax(axis=1) == labels[:300].numpy()
    )
    assert right.sum() >= as_they_are.sum()


def test_what_is_no_picture_is_named_and_the_others_are_still_read(
    reproduced: Path, run: Run, digits: np.ndarray, tmp_path: Path
) -> None:
    enlarged(digits[0]).save(tmp_path / "seven.png")
    whole = (tmp_path / "seven.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("a digit\n", encoding="utf-8")
    enlarged(digits[0]).save(tmp_path / "animated.gif")
    Image.new("L", (90, 90), 200).save(tmp_path / "blank.png")
    names = ["half.png", "text.png", "animated.gif", "blank.png", "missing.png", ".", "seven.png"]
    result = predict(run, reproduced, *(tmp_path / name for name in names), check=False)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert len(lines) == len(names)
    for name, reason in zip(
        names,
        ["cannot be read", "cannot be read", "cannot be read", "shows nothing", "is missing",
         "cannot be read", None],
        strict=True,
    ):  # fmt: skip
        (line,) = (
            line
            for line in lines
            if f"{tmp_path / name}" + (":" if reason is None else " ") in line
        )
        if reason is None:
            assert line.startswith(f"{tmp_path / name}: 7  (7 ")
        else:
            assert line.startswith(f"predict: {tmp_path / name} {reason}")


def test_a_missing_model_says_what_makes_it(run: Run, reproduced: Path) -> None:
    result = predict(run, reproduced, "--model", "models/none.safetensors", "x.png", check=False)
    assert result.returncode == 1
    assert result.stdout == "predict: models/none.safetensors is missing; `dvc repro` makes it\n"
