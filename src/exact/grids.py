"""The grids that keep every sum exact: which numbers may enter a product, and how many.

A float64 holds every whole number up to 2^53. Where both factors of a product are whole numbers of
steps of a power of two, so is the product. While no partial sum can exceed 2^53 steps, no addition
rounds, in whatever order. README.md beside this file has the proof.
"""

import functools
import math
from dataclasses import dataclass

import torch


class NotExactError(RuntimeError):
    """Something cannot be computed exactly; the message names it and a way out."""


class TooManyRowsError(NotExactError):
    """A batch has more rows than exact sums allow; the message says how many are allowed."""


BITS = 53  # of a float64's significand


@dataclass(frozen=True)
class Grid:
    """The multiples of `step` from -largest to largest; both are powers of two."""

    step: float
    largest: float

    @functools.cached_property
    def bits(self) -> int:
        """How many bits the largest value has, in steps."""
        return round(math.log2(self.largest / self.step))

    def round_(self, values: torch.Tensor) -> torch.Tensor:
        """Round float64 values in place to the nearest multiple, ties to even.

        Adding c = 1.5 * 2^52 * step pushes all that is below a step out of the significand. Values
        must be below 2^51 steps in size.
        """
        c = 1.5 * 2**52 * self.step
        return values.add_(c).sub_(c)

    def snap(self, values: torch.Tensor) -> torch.Tensor:
        """Return the nearest elements of the grid, float64, as a new tensor."""
        if values.dtype == torch.float32 and self.bits <= 22:
            # The same nearest multiples, at half the memory: see round_, with float32's 24 bits.
            c = 1.5 * 2**23 * self.step
            return values.clamp(-self.largest, self.largest).add_(c).sub_(c).double()
        if values.dtype == torch.float64:
            return self.round_(values.clamp(-self.largest, self.largest))
        return self.snap_(values.double())

    def snap_(self, values: torch.Tensor) -> torch.Tensor:
        """Bring float64 values in place to the nearest elements of the grid."""
        return self.round_(values.clamp_(-self.largest, self.largest))

    def holds(self, values: torch.Tensor) -> bool:
        """Say whether all values are elements of the grid; a NaN is none."""
        steps = values.double() / self.step
        return bool(torch.equal(steps.round(), steps) and (steps.abs() <= 2**self.bits).all())

    def coarsened(self, bits: int) -> "Grid":
        """Return the grid of the same range whose largest value has at most so many bits."""
        return self if bits >= self.bits else Grid(self.largest / 2**bits, self.largest)


# Weights and biases, as they enter a product.
WEIGHTS = Grid(2.0**-18, 2.0**4)
# What enters a product: the finest grid, which sums over many inputs make coarser. Pixels of
# k / 255 are rounded to the same step when they are prepared.
INPUTS = Grid(2.0**-16, 2.0**5)
# What enters a convolution, whose gradients sum over all positions of an image.
IMAGES = Grid(2.0**-13, 2.0**5)
# Derivatives of the summed loss by the logits, and those by what a layer inside the model returns.
LOGIT_ERRORS = Grid(2.0**-16, 2.0)
ERRORS = Grid(2.0**-20, 2.0**2)
# What BatchNorm sums: its squares have twice as many bits, and are summed in int64.
NORMALIZED = Grid(2.0**-14, 2.0**6)
LOSS_STEP = 2.0**-24  # losses are added up as whole numbers of these

FEWEST = 12  # bits that a factor of a weight's gradient keeps at least


def log2_up(count: int) -> int:
    """Return the least n with 2^n >= count."""
    return (max(1, int(count)) - 1).bit_length()  # NumPy's integers have no such method


@functools.cache
def for_inputs(inputs: int, finest: Grid = INPUTS) -> Grid:
    """Return the grid of what enters a product that sums over so many inputs, and a bias."""
    return finest.coarsened(BITS - WEIGHTS.bits - log2_up(inputs + 1))


@functools.cache
def for_errors(terms: int) -> Grid:
    """Return the grid of errors; so many of them, each times a weight, are summed to go back."""
    return ERRORS.coarsened(BITS - WEIGHTS.bits - log2_up(terms))


@functools.cache
def for_gradient(what: str, inputs: Grid, errors: Grid, each: int, rows: int) -> tuple[Grid, Grid]:
    """Return the grids of inputs and errors for the gradient of a weight.

    The gradient sums a product for each use of the weight: `each` for a row, over all `rows` of the
    whole batch. The bound is of the whole batch, so that no share of it can exceed it.

    Raises:
        TooManyRowsError: so many products leave fewer than FEWEST bits to a factor; says of `what`
            how many rows are allowed.
    """
    bits = BITS - log2_up(each * rows)
    if bits < 2 * FEWEST:
        raise TooManyRowsError(
            f"{what}: a gradient over {rows:,} rows would not be exact; "
            f"at most {2 ** (BITS - 2 * FEWEST) // each:,} rows are allowed in a batch"
        )
    errors = errors.coarsened(max(bits // 2, bits - inputs.bits))
    return inputs.coarsened(bits - errors.bits), errors
