"""Softmax and logarithm against torch's, Python's and `decimal`."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

from src import exact
from src.exact import functions
from src.exact.grids import Grid

CPU = torch.device("cpu")


def test_the_table_is_exp_to_its_last_place_but_rounding() -> None:
    table = functions.exponentials(CPU)
    assert len(table) == 28 * 2**14
    assert table[0] == 1
    for i in [*range(0, len(table), 997), 1, 2**14, len(table) - 1]:
        true = (-Decimal(i) / 2**14).exp()
        assert abs(Decimal(table[i].item()) - true) <= Decimal(2) ** -41 * Decimal("1.001")
    assert table[-1] == 2.0**-40  # larger gaps are clamped to it: no probability is 0
    assert torch.equal(table, (table * 2**40).round() / 2**40)


def test_the_sum_of_the_exponentials_is_exact_for_any_number_of_classes_of_a_byte() -> None:
    table = functions.exponentials(CPU)
    powers = table[torch.randint(len(table), (256,), generator=torch.Generator().manual_seed(0))]
    whole = sum(int(power * 2**40) for power in powers.tolist())
    assert powers.sum().item() == powers.flip(0).sum().item() == whole / 2**40


@pytest.mark.parametrize("size", [2.0**-14, 1, 20, 2.0**19])
def test_softmax_and_its_logarithm_are_torchs_within_1e_4(size: float) -> None:
    drawn = torch.rand(10, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = Grid(2.0**-34, size).round_((drawn - 0.5) * size)  # as sums of pixels times weights
    probabilities, _, _, predicted = functions.softmax(z)
    np.testing.assert_allclose(probabilities, torch.softmax(z, 0), rtol=0, atol=3e-5)
    found = exact.log_softmax(z.t()).t()
    np.testing.assert_allclose(found, torch.log_softmax(z, 0), rtol=0, atol=1e-4)
    assert found.isfinite().all()
    assert torch.equal(predicted, z.argmax(dim=0))


def test_the_first_of_equal_logits_is_predicted_and_nan_becomes_no_index() -> None:
    z = torch.tensor([[2.0, math.nan], [2.0, 0], [1.0, 0]], dtype=torch.float64)
    probabilities, _, totals, predicted = functions.softmax(z)
    assert predicted[0] == 0
    assert totals[0] == 1 + 1 + functions.exponentials(CPU)[2**14]
    assert probabilities[0, 0] == probabilities[1, 0]


def test_the_logarithm_is_pythons_within_two_units_in_the_last_place() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(20_000, dtype=torch.float64, generator=generator) * 46 + 1
    near = 1 + 2.0 ** -torch.arange(53, dtype=torch.float64)
    around_roots = torch.tensor([0.5, 1, 2, 4, 8], dtype=torch.float64) * math.sqrt(2)
    large = torch.tensor([1e-300, 0.3, 1, 256, 1e300], dtype=torch.float64)
    values = torch.cat([spread, near, around_roots, large])
    for value, found in zip(values.tolist(), functions.log(values).tolist(), strict=True):
        assert abs(found - math.log(value)) <= 2 * math.ulp(math.log(value)), value
    assert functions.log(torch.ones(1, dtype=torch.float64)).item() == 0  # rows of other processes
