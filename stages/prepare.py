"""Scale the pixels to [0, 1], give images their shape, and split the rows into three files."""

from itertools import combinations
from typing import Annotated, Any

import numpy as np
import pydantic
from pydantic import AfterValidator, Field

from src.common import command, dataset, parameters
from src.common.parameters import ParameterError, Switch, integer

RAW = "data/raw/dataset.safetensors"
TRAIN_DATA = "data/prepared/train.safetensors"
VALIDATION_DATA = "data/prepared/validation.safetensors"
TEST_DATA = "data/prepared/test.safetensors"


def _range(rows: list[int]) -> list[int]:
    if rows and not (len(rows) == 2 and 0 <= rows[0] < rows[1]):
        raise ValueError
    return rows


def _shape(value: Any) -> Any:
    is_list = isinstance(value, list) and len(value) == 3
    if value != "auto" and not (is_list and all(type(size) is int and size > 0 for size in value)):
        raise ValueError
    return value


Rows = Annotated[
    list[int],
    Field(min_length=2, description="[first, end] with 0 <= first < end"),
    AfterValidator(_range),
]


class Prepare(parameters.Section):
    """How images become rows of tensors."""

    pixel_max: Annotated[int, integer(1, 255)]
    transpose: Switch
    shape: Annotated[
        Any,
        AfterValidator(_shape),
        Field(description="auto, or [channels, height, width] of integers above 0"),
    ]
    train_rows: Rows
    validation_rows: Annotated[
        list[int],
        Field(description="[first, end] with 0 <= first < end, or [] for none"),
        AfterValidator(_range),
    ]
    test_rows: Rows

    @property
    def splits(self) -> dict[str, list[int]]:
        """Each split's first row and end."""
        rows = {"train": self.train_rows, "validation": self.validation_rows or [0, 0]}
        return rows | {"test": self.test_rows}

    @pydantic.model_validator(mode="after")
    def _apart(self) -> "Prepare":
        for (one, left), (other, right) in combinations(self.splits.items(), 2):
            if max(left[0], right[0]) < min(left[1], right[1]):
                raise ValueError(f"{one}_rows and {other}_rows may not overlap: {left} and {right}")
        return self


def shaped(images: np.ndarray, shape: str | list[int]) -> np.ndarray:
    """Return raw images as a view (N, C, H, W); flat ones, of one row of pixels, take `shape`."""
    found = images.shape[1:]
    is_flat, pixels = found[:2] == (1, 1), int(np.prod(found))
    if isinstance(shape, list):
        if np.prod(shape) != pixels or not (is_flat or tuple(shape) == found):
            allowed = f"multiply to the images' {pixels:,} pixels"
            if not is_flat:
                allowed = f"be auto, or {list(found)} as the images are"
            raise ParameterError("prepare.shape", f"must {allowed}", shape)
        return images.reshape(-1, *shape)
    if not is_flat:
        return images
    side = round(pixels**0.5)
    if side**2 != pixels:
        raise ParameterError(
            "prepare.shape",
            f"must be [channels, height, width], as {pixels:,} pixels are no grey square",
            shape,
        )
    return images.reshape(-1, 1, side, side)


def check_classes(raw: dataset.Dataset, splits: dict[str, list[int]]) -> None:
    """Check that each class that is scored is trained."""
    trained = np.unique(raw.labels[slice(*splits["train"])])
    for split in ("validation", "test"):
        missing = np.setdiff1d(raw.labels[slice(*splits[split])], trained)
        if len(missing):
            named = ", ".join(raw.names[label] for label in missing[:5])
            what = "class" if len(missing) == 1 else f"{len(missing)} classes"
            more = ", ..." if len(missing) > 5 else ""
            raise ParameterError(
                "prepare.train_rows",
                f"must have all classes that are scored; they lack the {split} rows' {what} "
                f"{named}{more}",
                splits["train"],
            )


def main() -> None:
    settings = parameters.read("prepare", Prepare)
    raw = dataset.read_raw(RAW)
    if raw.images.max() > settings.pixel_max:
        raise ParameterError(
            "prepare.pixel_max",
            f"must be from the brightest pixel, {raw.images.max()}, to 255",
            settings.pixel_max,
        )
    images = shaped(raw.images, settings.shape)
    if settings.transpose:
        images = images.swapaxes(2, 3)
    for split, rows in settings.splits.items():
        if rows[1] > len(images):
            allowed = f"must end by {len(images)}, as the data have {len(images):,} rows"
            raise ParameterError(f"prepare.{split}_rows", allowed, rows)
    check_classes(raw, settings.splits)
    levels = np.arange(256) / settings.pixel_max
    # The nearest step, ties to even, which float32 holds exactly.
    levels = (np.rint(levels / dataset.PIXEL_STEP) * dataset.PIXEL_STEP).astype(np.float32)
    paths = {"train": TRAIN_DATA, "validation": VALIDATION_DATA, "test": TEST_DATA}
    for split, rows in settings.splits.items():
        picked = slice(*rows)
        labels = raw.labels[picked].astype(np.int64)
        dataset.write(paths[split], levels[images[picked]], labels, raw.names, raw.from_pictures)
        shape = " x ".join(map(str, images.shape[1:]))
        print(f"prepare: {paths[split]}: {len(labels):,} rows of {shape}")


if __name__ == "__main__":
    command.run_stage("prepare", main)
