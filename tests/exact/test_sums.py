"""Every sum that a step of training takes, looked at one by one: can it round in any order?"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from src.learning import models
from tests.learning.test_training import ADAMW, train_and_hash, train_settings


def unit(values: Tensor) -> float:
    """Return the largest power of two of which all values are whole multiples."""
    mantissas, exponents = torch.frexp(values[values != 0])
    if not mantissas.numel():
        return 1.0
    whole = (mantissas * 2**53).long()
    lowest = (whole & -whole).double()  # the lowest bit that is set
    return float((lowest * 2.0 ** (exponents - 53).double()).min())


class Sums(TorchDispatchMode):
    """Holds each sum to 53 bits: the sum of all sizes, in units, must be a float64 too."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.plain = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            a, b = args[:2]
            largest = float(torch.matmul(a.abs(), b.abs()).max()) if a.numel() and b.numel() else 0
            assert largest <= 2**53 * unit(a) * unit(b), f"{name} {a.shape} {b.shape}"
            self.products += 1
        elif name == "sum" and args[0].is_floating_point():
            assert float(args[0].abs().sum()) <= 2**53 * unit(args[0]), f"sum {args[0].shape}"
            self.plain += 1
        elif name == "sum" and args[0].numel():
            assert float(args[0].double().abs().sum()) < 2**63, f"sum {args[0].shape}"
        assert name not in ("addmm", "baddbmm", "convolution", "mean", "dot", "mv", "einsum"), name
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("changes", [{"learning_rate": 0.5}, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("name", models.MODELS)
def test_no_sum_of_a_training_can_round(name: str, changes: dict[str, Any]) -> None:
    with Sums() as sums:
        train_and_hash(train_settings(model=name, epochs=1, **changes))
    assert sums.products >= 2 * 4  # forward and backward of each of four steps
    assert sums.plain >= 4
