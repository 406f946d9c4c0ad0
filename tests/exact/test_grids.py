"""Rounding to a grid against fractions, which are exact by nature."""

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from src.exact import grids

GRIDS = [grids.WEIGHTS, grids.INPUTS, grids.IMAGES, grids.ERRORS, grids.LOGIT_ERRORS]


@given(st.sampled_from(GRIDS), st.floats(-100, 100), st.integers(-(2**30), 2**30))
def test_a_value_snaps_to_the_nearest_multiple_within_the_range(
    grid: grids.Grid, anything: float, halves: int
) -> None:
    for number in (anything, halves * grid.step / 2, grid.largest, -grid.largest):
        for dtype in (torch.float32, torch.float64):
            values = torch.tensor([number], dtype=dtype)
            value = values.item()
            within = max(-grid.largest, min(grid.largest, value))
            expected = round(Fraction(within) / Fraction(grid.step)) * Fraction(grid.step)
            found = grid.snap(values)
            assert found.dtype == torch.float64
            assert Fraction(found.item()) == expected, (grid, value)
            assert grid.holds(found)
            assert grid.holds(values) == (expected == Fraction(value))
            assert torch.equal(grid.snap_(values.double()), found)
