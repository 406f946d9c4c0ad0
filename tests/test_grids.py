"""The grids against Python's whole numbers and fractions, which never round."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from src.exact import grids
from src.exact.grids import ACTIVATIONS, ERRORS, PIXELS, WEIGHTS, Grid

GRIDS = pytest.mark.parametrize("grid", [PIXELS, ACTIVATIONS, WEIGHTS, ERRORS, Grid(2.0**-40, 1)])


def as_fraction(value: float, grid: Grid) -> float:
    """Round to the nearest multiple, ties to even, as Python rounds a fraction."""
    step = Fraction(grid.step)
    bounded = min(max(Fraction(value), -Fraction(grid.largest)), Fraction(grid.largest))
    return float(round(bounded / step) * step)


@GRIDS
def test_snapping_rounds_as_fractions_do_and_leaves_no_negative_zero(grid: Grid) -> None:
    generator = np.random.default_rng(0)
    ties = generator.integers(-(2**24), 2**24, 200) * grid.step / 2
    tiny = np.array([-0.0, 0.0, -grid.step / 2, -grid.step / 4, grid.step / 2])
    wide = generator.uniform(-2, 2, 100) * grid.largest
    values = np.concatenate([ties, np.nextafter(ties, 99), np.nextafter(ties, -99), tiny, wide])
    found = grid.snap_(torch.tensor(values))
    assert found.tolist() == [as_fraction(value, grid) for value in values]
    assert not torch.signbit(found[found == 0]).any()


@GRIDS
def test_the_largest_values_stay_and_what_is_beyond_becomes_them(grid: Grid) -> None:
    top = grid.largest
    values = torch.tensor([top, -top, top + grid.step, -1e300, torch.inf], dtype=torch.float64)
    assert grid.snap_(values).tolist() == [top, -top, top, -top, top]
    assert grid.steps * Fraction(grid.step) == Fraction(top)


def test_nearest_is_numpys_way_to_the_same_numbers() -> None:
    values = np.arange(256) / 255
    assert np.array_equal(
        PIXELS.nearest(values), PIXELS.round_(torch.from_numpy(values.copy())).numpy()
    )


@pytest.mark.parametrize(
    ("factors", "allowed"),
    [
        pytest.param((WEIGHTS, PIXELS), 32_768, id="pixels forward"),
        pytest.param((WEIGHTS, ACTIVATIONS), 2_048, id="activations forward"),
        pytest.param((WEIGHTS, ERRORS), 16_384, id="errors back"),
        pytest.param((PIXELS, ERRORS), 1_048_576, id="gradient of the first layer"),
        pytest.param((ACTIVATIONS, ERRORS), 65_536, id="gradient of a hidden layer"),
    ],
)
def test_a_sum_is_allowed_up_to_the_last_count_that_float64_adds_exactly(
    factors: tuple[Grid, Grid], allowed: int
) -> None:
    """The largest values that the grids allow, added one by one by Python's whole numbers."""
    left, right = factors
    unit = Fraction(left.step) * Fraction(right.step)
    product = Fraction(left.largest) * Fraction(right.largest) / unit
    grids.check_sum("a sum", (allowed, left, right))
    assert allowed * product <= 2**53 < (allowed + 1) * product
    with pytest.raises(ValueError, match=f"{allowed + 1:,} products, and at most {allowed:,} are"):
        grids.check_sum("a sum", (allowed + 1, left, right))
    # At the edge float64 still tells neighbours apart; one step beyond it may not.
    edge = float(allowed * product * unit)
    assert edge - float(unit) != edge
    assert 2.0**53 + 1 == 2.0**53


def test_products_of_several_kinds_count_in_the_finest_of_their_steps() -> None:
    """A bias is a weight times 1, whose step is far coarser than that of a product."""
    bias = (1, WEIGHTS, Grid(1, 1))
    grids.check_sum("a sum", (2_047, WEIGHTS, ACTIVATIONS), bias)
    with pytest.raises(ValueError, match=r"^a sum would not be exact: 2,048 products, .* 2,047"):
        grids.check_sum("a sum", (2_048, WEIGHTS, ACTIVATIONS), bias)
