"""Each layer against torch.nn and autograd, in float64 on the same snapped values."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from src.exact import grids
from src.exact.grids import ACTIVATIONS, ERRORS, PIXELS, WEIGHTS, Grid
from src.learning.layers import Convolution, Flatten, Layer, Linear, Product, Relu, Unflatten


def draw(grid: Grid, *shape: int, seed: int = 0, is_largest: bool = False) -> torch.Tensor:
    """Return float64 values on a grid: spread over all of it, or each the largest or its minus."""
    drawn = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values = (2 * drawn - 1) * grid.largest
    return grid.snap_(values.sign() * grid.largest if is_largest else values)


def built(layer: Layer, shape: tuple[int, ...], grid: Grid = ACTIVATIONS, **how: Any) -> Layer:
    """Build a layer and give it parameters and room for gradients, as a model does."""
    layer.build(shape, grid)
    count = sum(map(math.prod, layer.shapes().values()))
    layer.bind(draw(WEIGHTS, count, **how), torch.full((count,), math.nan, dtype=torch.float64))
    return layer


# A layer, the shape of its input and the torch.nn layer of the same purpose.
CASES: dict[str, tuple[Callable[[], Layer], tuple[int, ...], Callable[[], nn.Module]]] = {
    "linear": (lambda: Linear(7), (13,), lambda: nn.Linear(13, 7)),
    "5 by 2": (lambda: Convolution(4, 5, 2), (3, 12, 12), lambda: nn.Conv2d(3, 4, 5, 2)),
    "3 by 1": (lambda: Convolution(2, 3, 1), (1, 6, 9), lambda: nn.Conv2d(1, 2, 3, 1)),
    "2 by 3": (lambda: Convolution(3, 2, 3), (2, 9, 8), lambda: nn.Conv2d(2, 3, 2, 3)),
    "relu": (Relu, (11,), lambda: nn.Hardtanh(0, 64)),
    "flatten": (Flatten, (2, 3, 4), nn.Flatten),
    "unflatten": (Unflatten, (16,), lambda: nn.Unflatten(1, (1, 4, 4))),
}


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward_are_torchs(case: str) -> None:
    make, shape, make_oracle = CASES[case]
    layer, oracle = built(make(), shape), make_oracle().double()
    oracle.load_state_dict({name: getattr(layer, name) for name in layer.shapes()})
    x = draw(ACTIVATIONS, *shape, 6)
    batch_first = x.movedim(-1, 0).clone().requires_grad_()
    expected = oracle(batch_first)
    found = layer.forward(x.clone())
    # Sums of both are exact here; only torch's own order may round none the less.
    np.testing.assert_allclose(
        found.movedim(-1, 0), expected.detach(), rtol=1e-14, atol=0, err_msg="forward"
    )
    error = draw(ERRORS, *found.shape, seed=9)
    expected.backward(error.movedim(-1, 0))
    back = layer.backward(error.clone(), is_first=False)
    np.testing.assert_allclose(
        back.movedim(-1, 0), batch_first.grad, rtol=1e-14, atol=0, err_msg="backward"
    )
    for name, parameter in oracle.named_parameters():
        np.testing.assert_allclose(
            getattr(layer, f"{name}_gradient"), parameter.grad, rtol=1e-14, atol=0
        )


def test_relu_brings_sums_and_errors_to_their_grids() -> None:
    sums = torch.tensor([-3.0, -0.0, 2.0**-15, 3 * 2.0**-15, 0.7, 63.99999, 64.1, 1e9])
    relu = built(Relu(), (8,))
    found = relu.forward(sums.double()[:, None])[:, 0].tolist()
    assert found == [0, 0, 0, 2.0**-13, round(0.7 * 2**14) / 2**14, 64, 64, 64]
    error = torch.tensor([1.0, 1, 1, 5, 2.0**-17, -7, -(2.0**-17), 3 * 2.0**-17]).double()
    assert relu.backward(error[:, None], False)[:, 0].tolist() == [0, 0, 0, 2, 0, -2, 0, 2.0**-15]


@pytest.mark.parametrize("case", ["linear", "5 by 2", "3 by 1", "2 by 3"])
def test_the_largest_values_give_what_their_signs_give(case: str) -> None:
    make, shape, make_oracle = CASES[case]
    layer = built(make(), shape, is_largest=True)
    x = draw(ACTIVATIONS, *shape, 3, seed=5, is_largest=True)
    found = layer.forward(x)
    error = draw(ERRORS, *found.shape, seed=6, is_largest=True)
    back = layer.backward(error, is_first=False)
    whole = make_oracle().double()  # of signs, so its sums are small and nothing rounds
    whole.load_state_dict({"weight": layer.weight / 2**4, "bias": layer.bias / 2**10})
    ones = x.sign().movedim(-1, 0).requires_grad_()
    output = whole(ones)
    output.backward(error.sign().movedim(-1, 0))
    for what, given, expected in (
        ("forward", found.movedim(-1, 0), output.detach() * 2**10),
        ("backward", back.movedim(-1, 0), ones.grad * 2**5),
        ("weight", layer.weight_gradient, whole.weight.grad * 2**7),
        ("bias", layer.bias_gradient, whole.bias.grad * 2),
    ):
        np.testing.assert_array_equal(given, expected, what)


@pytest.mark.parametrize(
    ("layer", "shape", "grid", "message"),
    [
        (Linear(3), (2, 2), PIXELS, "Linear needs a Flatten before it"),
        (Linear(3), (4,), None, "Linear needs a Relu between it and the layer with weights before"),
        (Linear(3), (2_048,), ACTIVATIONS, "Linear: a sum over 2,048 inputs .* 2,047 are"),
        (Linear(3), (32_768,), PIXELS, "Linear: a sum over 32,768 inputs .* 32,767 are"),
        (Linear(16_385), (4,), PIXELS, "Linear: a sum over 16,385 errors .* 16,384 are"),
        (Convolution(3, 3, 2), (9,), PIXELS, "Convolution needs an Unflatten before it"),
        (Convolution(3, 3, 2), (1, 4, 2), PIXELS, "images of 4 x 2 are too small for Convolution"),
        (Convolution(3, 7, 2), (42, 8, 8), ACTIVATIONS, "Convolution: a sum over 2,058 inputs"),
        (Convolution(1_821, 3, 1), (1, 8, 8), PIXELS, "Convolution: a sum over 16,389 errors"),
        (Convolution(1_821, 5, 2), (1, 8, 8), PIXELS, "Convolution: a sum over 16,389 errors"),
        (Unflatten(), (12,), PIXELS, "Unflatten needs square images, and 12 pixels are no square"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_what_would(
    layer: Layer, shape: tuple[int, ...], grid: Grid | None, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        layer.build(shape, grid)


@pytest.mark.parametrize(
    ("layer", "shape", "grid"),
    [
        (Linear(16_384), (2_047,), ACTIVATIONS),
        (Linear(3), (32_767,), PIXELS),
        (Convolution(1_820, 3, 1), (227, 8, 8), ACTIVATIONS),
        (Convolution(1_820, 5, 2), (81, 8, 8), ACTIVATIONS),
    ],
)
def test_the_last_size_that_is_exact_is_allowed(
    layer: Layer, shape: tuple[int, ...], grid: Grid
) -> None:
    layer.build(shape, grid)


@pytest.mark.parametrize(
    ("layer", "shape", "grid", "rows"),
    [
        (Linear(3), (5,), PIXELS, 1_048_576),
        (Linear(3), (5,), ACTIVATIONS, 65_536),
        (Convolution(2, 3, 1), (1, 6, 6), ACTIVATIONS, 4_096),
    ],
)
def test_a_batch_is_refused_whose_gradient_would_round(
    layer: Product, shape: tuple[int, ...], grid: Grid, rows: int
) -> None:
    layer.build(shape, grid)
    layer.check_batch(rows)
    # The same by hand: positions x rows products of the largest values, in steps of both grids.
    products = rows * layer.positions * grid.steps * ERRORS.steps
    assert products == grids.SIGNIFICAND
    with pytest.raises(ValueError, match=rf"a gradient over {rows + 1:,} rows would not be exact"):
        layer.check_batch(rows + 1)


@pytest.mark.filterwarnings("error")  # torch warns when it makes room for a result anew
@pytest.mark.parametrize("case", ["linear", "5 by 2"])
def test_the_room_for_sums_is_the_same_in_every_step(case: str) -> None:
    make, shape, _ = CASES[case]
    layer, x = built(make(), shape), draw(ACTIVATIONS, *shape, 3)

    def step() -> list[int]:
        found = layer.forward(x)
        return [part.data_ptr() for part in (found, layer.backward(torch.ones_like(found), False))]

    assert step() == step()


def test_a_share_without_rows_has_a_gradient_of_zeros() -> None:
    for case in ("linear", "5 by 2"):
        make, shape, _ = CASES[case]
        layer = built(make(), shape)
        output = layer.forward(torch.empty(*shape, 0, dtype=torch.float64))
        layer.backward(torch.zeros_like(output), is_first=False)
        assert not layer.weight_gradient.any()
        assert not layer.bias_gradient.any()
