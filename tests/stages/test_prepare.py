"""What prepare makes of raw data, read back by safetensors' own reader."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from src.common import dataset
from tests.support.stages import Outcome, parameters, run_stage

generator = np.random.default_rng(0)
IMAGES = generator.integers(0, 256, (30, 9), np.uint8)
LABELS = (np.arange(30) % 3).astype(np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(images: np.ndarray, labels: np.ndarray = LABELS, **changes: object) -> Outcome:
    dataset.write_raw("data/raw/dataset.safetensors", images, labels)
    changes = {"train_rows": [0, 20], "test_rows": [20, 30]} | changes
    parameters(**{f"prepare.{key}": value for key, value in changes.items()})
    return run_stage("prepare")


def prepared(split: str) -> dict[str, np.ndarray]:
    return load_file(f"data/prepared/{split}.safetensors")


@pytest.mark.parametrize(
    ("train", "test"), [([0, 20], [20, 30]), ([7, 30], [0, 7]), ([3, 9], [29, 30])]
)
def test_the_rows_of_the_ranges_come_in_order_the_end_left_out(
    train: list[int], test: list[int]
) -> None:
    outcome = prepare(IMAGES, train_rows=train, test_rows=test)
    for split, rows in (("train", train), ("test", test)):
        written, expected = prepared(split), slice(*rows)
        assert written["images"].dtype == np.float32
        assert written["labels"].dtype == np.int64
        np.testing.assert_allclose(written["images"], IMAGES[expected] / 255, atol=2**-17)
        np.testing.assert_array_equal(written["labels"], LABELS[expected])
        outcome.expect(0, f"{split}.safetensors: {rows[1] - rows[0]} rows")


@pytest.mark.parametrize("pixel_max", [255, 254, 200, 17, 16, 3, 1])
def test_every_level_is_the_nearest_multiple_of_2_to_minus_16(pixel_max: int) -> None:
    levels = np.resize(np.arange(pixel_max + 1, dtype=np.uint8), (30, 9))
    prepare(levels, pixel_max=pixel_max).expect(0)
    expected = [float(Fraction(round(Fraction(k, pixel_max) * 2**16), 2**16)) for k in range(256)]
    np.testing.assert_array_equal(prepared("train")["images"], np.array(expected)[levels[:20]])


def test_transposed_images_have_their_rows_and_columns_swapped() -> None:
    prepare(IMAGES, transpose=True).expect(0)
    turned = prepared("test")["images"].reshape(10, 3, 3)
    prepare(IMAGES).expect(0)
    found = prepared("test")["images"].reshape(-1, 3, 3)
    np.testing.assert_array_equal(turned.swapaxes(1, 2), found)


def test_rows_that_the_data_do_not_have_are_refused_and_nothing_is_written(folder: Path) -> None:
    for key in ("train_rows", "test_rows"):
        other = {"train_rows": "test_rows", "test_rows": "train_rows"}[key]
        outcome = prepare(IMAGES, **{key: [20, 31], other: [0, 20]})
        outcome.expect(2, f"prepare.{key}: the data have 30 rows (given: [20, 31])")
        assert not (folder / "data/prepared").exists()


def test_a_class_of_the_test_rows_that_no_training_row_has_is_refused(folder: Path) -> None:
    outcome = prepare(IMAGES, np.append(LABELS[:29], np.uint8(7)))
    outcome.expect(2, "prepare.train_rows: they lack the test rows' class 7 (given: [0, 20])")
    assert not (folder / "data/prepared").exists()


def test_a_pixel_max_below_the_brightest_pixel_is_refused() -> None:
    images = IMAGES // 16
    outcome = prepare(images, pixel_max=14)
    outcome.expect(2, "prepare.pixel_max: must be from the brightest pixel, 15, to 255 (given: 14)")
    prepare(images, pixel_max=15).expect(0)
    assert prepared("train")["images"].max() == 1


def test_only_square_images_can_be_transposed() -> None:
    outcome = prepare(IMAGES[:, 1:], transpose=True)
    outcome.expect(2, "prepare.transpose: only square images can be transposed (given: True)")
