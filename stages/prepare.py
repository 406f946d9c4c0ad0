"""Scale the pixels to [0, 1] and split the rows, in order, into train and test tensors."""

from typing import Annotated

import numpy as np
import pydantic
from pydantic import AfterValidator, Field

from src.common import command, dataset, parameters, tensors
from src.common.parameters import ParameterError, Switch, integer
from src.exact import grids

RAW = "data/raw/dataset.safetensors"
TRAIN_DATA = "data/prepared/train.safetensors"
TEST_DATA = "data/prepared/test.safetensors"


def _range(rows: list[int]) -> list[int]:
    if not 0 <= rows[0] < rows[1]:
        raise ValueError
    return rows


Rows = Annotated[
    list[int],
    Field(min_length=2, max_length=2, description="[first, end] with 0 <= first < end"),
    AfterValidator(_range),
]


class Prepare(parameters.Section):
    """How images become rows of tensors."""

    pixel_max: Annotated[int, integer(1, 255)]
    transpose: Switch
    train_rows: Rows
    test_rows: Rows

    @pydantic.model_validator(mode="after")
    def _apart(self) -> "Prepare":
        if max(self.train_rows[0], self.test_rows[0]) < min(self.train_rows[1], self.test_rows[1]):
            raise ValueError("train_rows and test_rows may not overlap")
        return self


def main() -> None:
    settings = parameters.read("prepare", Prepare)
    images, labels = dataset.read_raw(RAW)
    if images.max() > settings.pixel_max:
        raise ParameterError(
            "prepare.pixel_max",
            f"must be from the brightest pixel, {images.max()}, to 255",
            settings.pixel_max,
        )
    if settings.transpose:
        side = dataset.side_of(images.shape[1])
        if side is None:
            raise ParameterError("prepare.transpose", "only square images can be transposed", True)
        images = images.reshape(-1, side, side).transpose(0, 2, 1).reshape(len(images), -1)
    levels = grids.PIXELS.nearest(np.arange(256) / settings.pixel_max).astype(np.float32)
    splits = {"train": (TRAIN_DATA, settings.train_rows), "test": (TEST_DATA, settings.test_rows)}
    for split, (_, rows) in splits.items():
        if rows[1] > len(labels):
            raise ParameterError(
                f"prepare.{split}_rows", f"the data have {len(labels):,} rows", rows
            )
    largest = labels[slice(*settings.test_rows)].max()
    if largest > labels[slice(*settings.train_rows)].max():
        raise ParameterError(
            "prepare.train_rows", f"they lack the test rows' class {largest}", settings.train_rows
        )
    for path, rows in splits.values():
        picked = slice(*rows)
        tensors.write(
            path,
            {"images": levels[images[picked]], "labels": labels[picked].astype(np.int64)},
        )
        print(f"prepare: {path}: {len(labels[picked]):,} rows")


if __name__ == "__main__":
    command.run_stage("prepare", main)
