"""Functions whose bits do not depend on the processor, the library or the device.

They are made of operations that IEEE 754 rounds correctly, one operation a kernel, and of sums
that are exact. What libraries compute each in their own way is not used: exp, log, softmax, a
square root of torch, and multiplications fused with additions.
"""

import decimal
import functools
import math
from decimal import Decimal

import numpy as np
import torch

from . import grids

# exp(-i / 2^14) for i from 0 to 28 * 2^14 - 1, on a grid of 2^-40. The last entry is one step, and
# larger gaps take it too: no probability is 0.
RESOLUTION = 2**14
LAST = 28 * RESOLUTION - 1
EXPONENTIALS = grids.Grid(2.0**-40, 1)
PI = Decimal("3.14159265358979323846264338327950288419716939937510")


def short_exponentials() -> list[list[float]]:
    """Return exp(-i) for i < 28, exp(-i / 128) and exp(-i / 2^14) for i < 128, correctly rounded.

    The table of the softmax is made of products of the three.
    """
    return [
        [float((-Decimal(i) / parts).exp()) for i in range(count)]
        for count, parts in ((28, 1), (128, 128), (128, RESOLUTION))
    ]


@functools.cache
def exponentials(device: torch.device) -> torch.Tensor:
    """The table of exp(-i / 2^14), float64 (28 * 2^14,), on a device."""
    first, second, third = (
        torch.tensor(part, dtype=torch.float64) for part in short_exponentials()
    )
    products = (first[:, None] * second).flatten()[:, None] * third
    return EXPONENTIALS.round_(products.flatten()).to(device)


def cosine(taken: int, total: int) -> float:
    """Return (1 + cos(pi taken / total)) / 2, rounded to 2^-40: the cosine schedule of a rate.

    The last bit of `math.cos` belongs to the C library. Decimal numbers are the same everywhere;
    the series is 1 - x^2 / 2! + x^4 / 4! - ...
    """
    with decimal.localcontext(prec=40):
        x = PI * taken / total
        term = series = Decimal(1)
        n = 0
        while abs(term) > Decimal("1e-30"):
            n += 2
            term *= -x * x / (n * (n - 1))
            series += term
        return round((1 + series) / 2 * 2**40) / 2**40


def sqrt(values: torch.Tensor) -> torch.Tensor:
    """Return the correctly rounded square roots of float64 values.

    torch.sqrt is not correctly rounded in float64 on x86: 1.2 % of its results differ in the last
    bit. NumPy's is the processor's own instruction, which IEEE 754 requires to round correctly.
    """
    return torch.from_numpy(np.sqrt(values.detach().cpu().numpy())).to(values.device)


def softmax(
    logits: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Softmax over the classes, within 3e-5 of the true one.

    Args:
        logits: float64 (classes, B).

    Returns:
        The probabilities (classes, B), each one correctly rounded division; the gaps between the
        highest logit and each (classes, B) and the sums of the exponentials (B,), both exact; the
        first class with the highest logit (B,), int64.
    """
    if len(logits) > 2 ** (grids.BITS - EXPONENTIALS.bits):
        raise grids.NotExactError(f"a softmax over {len(logits):,} classes would not be exact")
    highest, predicted = logits.max(dim=0)
    gaps = highest - logits
    table = exponentials(logits.device)
    # Clamped as integers too: a NaN of a training that diverges must not become an index.
    index = (gaps * float(RESOLUTION)).round_().clamp_(max=LAST).long().clamp_(0, LAST)
    powers = table.take(index)
    totals = powers.sum(dim=0)
    return powers.div_(totals), gaps, totals, predicted


def log(values: torch.Tensor) -> torch.Tensor:
    """Natural logarithm of positive float64 values, within 4e-16 of the true one or 2 ulp.

    With v = m 2^e and s = (m - 1) / (m + 1): log v = e log 2 + 2 (s + s^3 / 3 + s^5 / 5 + ...),
    where m lies between sqrt(1/2) and sqrt(2). A processor's or a library's own log may differ
    in its last bit; additions, multiplications and divisions may not.
    """
    mantissas, exponents = torch.frexp(values)
    is_low = mantissas < math.sqrt(0.5)
    mantissas = torch.where(is_low, mantissas * 2, mantissas)
    exponents = torch.where(is_low, exponents - 1, exponents).double()
    s = (mantissas - 1) / (mantissas + 1)
    squares = s * s
    series = torch.zeros_like(s)
    for k in range(11, -1, -1):
        series.mul_(squares).add_(1 / (2 * k + 1))
    return s * 2 * series + exponents * float(Decimal(2).ln())
