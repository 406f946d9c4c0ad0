"""What prepare makes of raw data, read back by safetensors' own reader."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from src.common import dataset
from tests.support.stages import Outcome, parameters, run_stage

pytestmark = pytest.mark.usefixtures("here")

generator = np.random.default_rng(0)
IMAGES = generator.integers(0, 256, (30, 1, 1, 9), np.uint8)
LABELS = (np.arange(30) % 3).astype(np.uint8)


def prepare(
    images: np.ndarray,
    labels: np.ndarray = LABELS,
    names: tuple[str, ...] | None = None,
    **changes: object,
) -> Outcome:
    dataset.write_raw("data/raw/dataset.safetensors", images, labels, names)
    changes = {"train_rows": [0, 20], "test_rows": [20, 30]} | changes
    parameters(**{f"prepare.{key}": value for key, value in changes.items()})
    return run_stage("prepare")


def prepared(split: str) -> dict[str, np.ndarray]:
    return load_file(f"data/prepared/{split}.safetensors")


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ([0, 20], [], [20, 30]),
        ([7, 30], [], [0, 7]),
        ([3, 9], [9, 12], [29, 30]),
        ([20, 30], [0, 1], [1, 20]),
    ],
)
def test_the_rows_of_the_ranges_come_in_order_the_end_left_out(
    train: list[int], validation: list[int], test: list[int]
) -> None:
    names = ("cat", "dog", "つ")
    rows = {"train": train, "validation": validation, "test": test}
    changes = {f"{split}_rows": pair for split, pair in rows.items()}
    outcome = prepare(IMAGES, names=names, **changes)
    for split, pair in rows.items():
        written, expected = prepared(split), slice(*(pair or [0, 0]))
        assert written["images"].dtype == np.float32
        assert written["images"].shape[1:] == (1, 3, 3)
        assert written["labels"].dtype == np.int64
        pixels = IMAGES[expected].reshape(-1, 1, 3, 3) / 255
        np.testing.assert_allclose(written["images"], pixels, atol=2**-17)
        np.testing.assert_array_equal(written["labels"], LABELS[expected])
        assert written["names"].tobytes().decode().split("\n") == list(names)
        outcome.expect(0, f"{split}.safetensors: {len(pixels)} rows of 1 x 3 x 3")
        assert len(dataset.read(f"data/prepared/{split}.safetensors").images) == len(pixels)


@pytest.mark.parametrize(
    "pairs", [("train", "test"), ("train", "validation"), ("validation", "test")]
)
def test_no_two_splits_may_overlap(pairs: tuple[str, str]) -> None:
    rows = {"train": [0, 10], "validation": [10, 20], "test": [20, 30]}
    prepare(IMAGES, **{f"{split}_rows": pair for split, pair in rows.items()}).expect(0)
    start, end = rows[pairs[0]]
    for overlap in ([end - 1, end], [start, end], [start + 2, start + 3], [0, 30]):
        changed = rows | {pairs[1]: overlap}
        outcome = prepare(IMAGES, **{f"{split}_rows": pair for split, pair in changed.items()})
        outcome.expect(2, "prepare: prepare: ", f"{pairs[1]}_rows", "may not overlap: [")


@pytest.mark.parametrize("pixel_max", [255, 254, 200, 17, 16, 3, 1])
def test_every_level_is_the_nearest_multiple_of_2_to_minus_16(pixel_max: int) -> None:
    levels = np.resize(np.arange(pixel_max + 1, dtype=np.uint8), (30, 1, 1, 9))
    prepare(levels, pixel_max=pixel_max).expect(0)
    expected = [float(Fraction(round(Fraction(k, pixel_max) * 2**16), 2**16)) for k in range(256)]
    np.testing.assert_array_equal(
        prepared("train")["images"], np.array(expected)[levels[:20]].reshape(-1, 1, 3, 3)
    )


@pytest.mark.parametrize(
    ("raw", "shape", "expected"),
    [
        ((1, 1, 36), "auto", (1, 6, 6)),
        ((1, 1, 36), [1, 4, 9], (1, 4, 9)),
        ((1, 1, 36), [3, 3, 4], (3, 3, 4)),
        ((1, 1, 36), [1, 1, 36], (1, 1, 36)),
        ((4, 3, 3), "auto", (4, 3, 3)),
        ((2, 1, 18), "auto", (2, 1, 18)),
        ((4, 3, 3), [4, 3, 3], (4, 3, 3)),
    ],
)
@pytest.mark.parametrize("transpose", [False, True])
def test_images_take_their_shape_and_transposed_have_rows_and_columns_swapped(
    raw: tuple[int, ...], shape: object, expected: tuple[int, ...], transpose: bool
) -> None:
    images = generator.integers(0, 256, (30, *raw), np.uint8)
    prepare(images, shape=shape, transpose=transpose).expect(0)
    found = prepared("test")["images"]
    pixels = images[20:].reshape(10, *expected) / 255
    if transpose:
        pixels = np.array([[channel.T for channel in image] for image in pixels])
    np.testing.assert_allclose(found, pixels, atol=2**-17)


@pytest.mark.parametrize(
    ("raw", "shape", "reason"),
    [
        ((1, 1, 8), "auto", "must be [channels, height, width], as 8 pixels are no grey square"),
        ((1, 1, 9), [1, 3, 4], "must multiply to the images' 9 pixels (given: [1, 3, 4])"),
        ((1, 3, 4), [1, 4, 3], "must be auto, or [1, 3, 4] as the images are (given"),
        *(
            ((1, 1, 9), shape, "must be auto, or [channels, height, width] of integers above 0")
            for shape in ("square", [9], [1, 3, 3.0], [1, 0, 9], [True, 3, 3], None)
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    raw: tuple[int, ...], shape: object, reason: str, here: Path
) -> None:
    prepare(np.zeros((30, *raw), np.uint8), shape=shape).expect(2, f"prepare.shape: {reason}")
    assert not (here / "data/prepared").exists()


def test_rows_that_the_data_do_not_have_are_refused_and_nothing_is_written(here: Path) -> None:
    for key in ("train_rows", "test_rows"):
        other = {"train_rows": "test_rows", "test_rows": "train_rows"}[key]
        outcome = prepare(IMAGES, **{key: [20, 31], other: [0, 20]})
        allowed = "must end by 30, as the data have 30 rows (given: [20, 31])"
        outcome.expect(2, f"prepare.{key}: {allowed}")
        assert not (here / "data/prepared").exists()


def test_a_class_that_no_training_row_has_is_refused(here: Path) -> None:
    outcome = prepare(IMAGES, np.append(LABELS[:29], np.uint8(7)))
    allowed = "prepare.train_rows: must have all classes that are scored; they lack the "
    outcome.expect(2, f"{allowed}test rows' class 7 (given: [0, 20])")
    labels = np.arange(30, dtype=np.uint8)
    names = tuple(f"c{label}" for label in labels)
    rows = {"train_rows": [0, 10], "validation_rows": [10, 12], "test_rows": [0 + 12, 20]}
    lacking = allowed + "{} (given: [0, 10])"
    outcome = prepare(IMAGES, labels, names, **rows)
    outcome.expect(2, lacking.format("validation rows' 2 classes c10, c11"))
    outcome = prepare(IMAGES, labels, names, **rows | {"validation_rows": []})
    outcome.expect(2, lacking.format("test rows' 8 classes c12, c13, c14, c15, c16, ..."))
    assert not (here / "data/prepared").exists()


def test_a_pixel_max_below_the_brightest_pixel_is_refused() -> None:
    images = IMAGES // 16
    outcome = prepare(images, pixel_max=14)
    outcome.expect(2, "prepare.pixel_max: must be from the brightest pixel, 15, to 255 (given: 14)")
    prepare(images, pixel_max=15).expect(0)
    assert prepared("train")["images"].max() == 1
