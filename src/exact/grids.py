"""The grids that keep every sum exact: which numbers may enter a product, and how many.

A float64 holds every whole number up to 2^53. Where both factors of a product are whole numbers of
steps of a power of two, so is the product; and while no partial sum can exceed 2^53 steps, no
addition rounds, in whatever order. docs/bits.md has the proof.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # prepare needs the grid of pixels, and starts without torch
    import torch

SIGNIFICAND = 2**53  # whole numbers up to this one are float64s


@dataclass(frozen=True)
class Grid:
    """The multiples of `step`, a power of two, from -largest to largest."""

    step: float
    largest: float

    @property
    def steps(self) -> int:
        """How many steps the largest value has."""
        return int(self.largest / self.step)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest multiples of the step, ties to even."""
        return np.rint(values / self.step) * self.step

    def whole_steps(self, what: str, values: np.ndarray, least: float | None = None) -> np.ndarray:
        """Return values that are on the grid as whole numbers of steps, in floats as before.

        Raises:
            ValueError: a value is not on the grid, or below `least`; says of `what` what would be.
        """
        least = -self.largest if least is None else least
        steps = values / self.step
        is_whole = np.array_equal(np.rint(steps), steps)  # false for NaN
        if not is_whole or steps.min() < least / self.step or steps.max() > self.steps:
            raise ValueError(
                f"{what} must be multiples of 2^{math.log2(self.step):.0f} "
                f"from {least:g} to {self.largest:g}"
            )
        return steps

    def round_(self, values: torch.Tensor) -> torch.Tensor:
        """Round float64 values in place to the nearest multiple, ties to even.

        Adding c = 1.5 * 2^52 * step pushes all that is below a step out of the significand. Values
        must be below 2^51 steps in size.
        """
        c = 1.5 * 2**52 * self.step
        return values.add_(c).sub_(c)

    def snap_(self, values: torch.Tensor) -> torch.Tensor:
        """Bring float64 values in place to the nearest element of the grid."""
        return self.round_(values.clamp_(-self.largest, self.largest))


PIXELS = Grid(2.0**-16, 1)
ACTIVATIONS = Grid(2.0**-14, 2.0**6)
WEIGHTS = Grid(2.0**-18, 2.0**4)
ERRORS = Grid(2.0**-16, 2.0)  # derivatives of the summed loss with respect to a layer's outputs
LOSS_STEP = 2.0**-24  # losses are added up as whole numbers of these


def check_sum(what: str, *products: tuple[int, Grid, Grid]) -> None:
    """Check that a sum of products is exact in whatever order it is added up.

    Args:
        what: the sum, in words.
        products: how many products there are, and the grids of their two factors; the error
            counts the first kind.

    Raises:
        ValueError: a partial sum may need more than 53 bits.
    """
    unit = min(left.step * right.step for _, left, right in products)
    largest = [
        left.steps * right.steps * int(left.step * right.step / unit) for _, left, right in products
    ]
    counts = [count for count, *_ in products]
    if sum(map(operator.mul, counts, largest)) > SIGNIFICAND:
        others = sum(map(operator.mul, counts[1:], largest[1:]))
        raise ValueError(
            f"{what} would not be exact: {counts[0]:,} products, "
            f"and at most {(SIGNIFICAND - others) // largest[0]:,} are allowed"
        )


def short_exponentials() -> list[list[float]]:
    """Return exp(-i) for i < 28, exp(-i / 128) and exp(-i / 2^14) for i < 128, correctly rounded.

    The table of the softmax is made of products of the three.
    """
    return [
        [float((-Decimal(i) / parts).exp()) for i in range(count)]
        for count, parts in ((28, 1), (128, 128), (128, 2**14))
    ]
