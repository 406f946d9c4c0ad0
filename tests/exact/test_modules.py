"""Each twin against torch.nn and autograd in float64, and the orders that may not show."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from src import exact
from src.exact import grids

IMAGE, COLUMN = (3, 9, 8), (13,)
# A module, and the shape of an input without the batch.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(13, 7), COLUMN),
    "linear without bias": (lambda: nn.Linear(13, 7, bias=False), COLUMN),
    "linear of NumPy's sizes": (lambda: nn.Linear(np.prod((13, 1)), np.int64(4)), COLUMN),
    "linear on rows of rows": (lambda: nn.Linear(13, 4), (5, 13)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), IMAGE),
    "conv stride and padding": (lambda: nn.Conv2d(3, 4, (3, 5), stride=2, padding=(1, 2)), IMAGE),
    "conv dilation": (lambda: nn.Conv2d(3, 4, 3, dilation=2, padding=1), IMAGE),
    "conv groups": (lambda: nn.Conv2d(3, 6, 3, groups=3, bias=False), IMAGE),
    "conv same": (lambda: nn.Conv2d(3, 4, (3, 4), padding="same"), IMAGE),
    "batch norm of columns": (lambda: nn.BatchNorm1d(13), COLUMN),
    "batch norm of images": (lambda: nn.BatchNorm2d(3, momentum=0.3), IMAGE),
    "overlapping maxima": (lambda: nn.MaxPool2d(3, stride=2, padding=1), IMAGE),
    "averages": (lambda: nn.AvgPool2d(2), IMAGE),
    "averages over the edge": (
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        IMAGE,
    ),
    "averages with padding": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), IMAGE),
    "adaptive averages": (lambda: nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
}


def drawn(*shape: int, seed: int = 0, grid: grids.Grid = grids.IMAGES) -> Tensor:
    """Return float64 values on a grid, most of them within 1."""
    generator = torch.Generator().manual_seed(seed)
    return grid.snap(torch.randn(shape, dtype=torch.float64, generator=generator))


def pair(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """Return a twin, and torch's own module in float64 with the same parameters."""
    torch.manual_seed(3)
    twin = exact.convert(make())
    oracle = make().double()
    oracle.load_state_dict(twin.state_dict())
    return twin, oracle


def results(module: nn.Module, x: Tensor, errors: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(errors)
    assert x.grad is not None
    named = {f"gradient of {name}": p.grad for name, p in module.named_parameters()}
    return {"output": y.detach(), "gradient of x": x.grad, **named, **dict(module.named_buffers())}


@pytest.mark.parametrize("case", CASES)
def test_a_twin_computes_what_torch_computes(case: str) -> None:
    make, shape = CASES[case]
    twin, oracle = pair(make)
    x = drawn(6, *shape)
    errors = drawn(*oracle(x).shape, seed=1, grid=grids.Grid(2.0**-12, 1.0))
    twin, oracle = pair(make)
    found, expected = results(twin, x, errors), results(oracle, x, errors)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].double(),
            value.double(),
            rtol=1e-3,
            atol=1e-3 * float(value.double().abs().max() + 1e-9),
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("case", ["batch norm of images", "batch norm of columns"])
def test_what_batch_norm_learned_scores_as_torchs(case: str) -> None:
    make, shape = CASES[case]
    twin, oracle = pair(make)
    x = drawn(8, *shape)
    for module in (twin, oracle):
        module(x)
        module.eval()
    torch.testing.assert_close(twin(x), oracle(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(twin.running_var, twin.running_var.float().double())


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("linear", "conv"))])
def test_no_order_and_no_share_of_rows_shows_in_gradients(case: str) -> None:
    make, shape = CASES[case]
    twin, _ = pair(make)
    # On no grid at all: what enters must be snapped, whatever it is.
    x = torch.randn(7, *shape, generator=torch.Generator().manual_seed(5)).double() / 3
    errors = torch.randn(twin(x).shape, generator=torch.Generator().manual_seed(6)).double() / 3

    def gradients(order: list[int], cut: int) -> list[Tensor]:
        twin.zero_grad()
        for part in (order[:cut], order[cut:]):
            rows = slice(0, len(part))
            with exact.step(seed=0, epoch=1, step=0, rows=rows, batch=7):
                if part:
                    twin(x[part]).backward(errors[part])
        return [p.grad.clone() for p in twin.parameters() if p.grad is not None]

    whole = gradients(list(range(7)), 7)

    @settings(max_examples=10)
    @given(st.permutations(range(7)), st.integers(0, 7))
    def check(order: list[int], cut: int) -> None:
        assert all(map(torch.equal, gradients(order, cut), whole))

    check()


@pytest.mark.parametrize("case", CASES)
def test_errors_that_go_back_are_whole_steps_so_that_branches_add_up_exactly(case: str) -> None:
    make, shape = CASES[case]
    twin, _ = pair(make)
    x = torch.randn(6, *shape, dtype=torch.float64).requires_grad_()
    y = twin(x)
    y.backward(torch.randn(y.shape, dtype=torch.float64))  # on no grid
    assert x.grad is not None
    steps = x.grad / grids.ERRORS.step
    assert torch.equal(steps, steps.round())


@pytest.mark.parametrize("case", ["linear", "conv", "batch norm of columns", "averages"])
def test_what_is_beyond_the_grid_is_clamped_and_has_no_derivative(case: str) -> None:
    make, shape = CASES[case]
    twin, _ = pair(make)
    x = drawn(6, *shape)
    with torch.no_grad():
        x[0].flatten()[0] = 100
    x.requires_grad_()
    y = twin(x)
    y.backward(drawn(*y.shape, seed=1, grid=grids.Grid(2.0**-12, 1.0)))
    assert x.grad is not None
    assert x.grad[0].flatten()[0] == 0
    assert x.grad.any()


@pytest.mark.parametrize("layout", ["rows second", "rows folded", "grouped"])
def test_rows_in_any_dimension_are_split_without_a_trace(layout: str) -> None:
    torch.manual_seed(0)
    is_image = layout == "grouped"
    twin = exact.convert(nn.Conv2d(4, 4, 3, groups=2) if is_image else nn.Linear(9, 4))
    x = torch.randn(12, 4, 9, 9) if is_image else torch.randn(12, 700, 9)
    errors = torch.randn(12, 4, 7, 7) if is_image else torch.randn(12, 700, 4)

    def laid_out(part: Tensor) -> Tensor:
        if layout == "rows folded":
            return part.flatten(0, 1)
        return part.transpose(0, 1) if layout == "rows second" else part

    def gradient(*shares: slice) -> Tensor:
        twin.zero_grad()
        for rows in shares:
            # So large a batch that grids are coarse.
            with exact.step(seed=0, epoch=1, step=0, rows=rows, batch=2**17):
                twin(laid_out(x[rows])).backward(laid_out(errors[rows].double()))
        assert twin.weight.grad is not None
        return twin.weight.grad.clone()

    whole = gradient(slice(0, 12))
    assert torch.equal(gradient(slice(0, 5), slice(5, 5), slice(5, 12)), whole)
    assert torch.equal(gradient(*(slice(at, at + 1) for at in range(12))), whole)


def test_batch_norm_refuses_a_part_of_a_batch_and_a_forward_within_the_backward() -> None:
    norm, x = exact.convert(nn.BatchNorm1d(3)), torch.randn(4, 3)
    half = exact.step(seed=0, epoch=1, step=0, rows=slice(0, 4), batch=8)
    with half, pytest.raises(exact.NotExactError, match="needs the whole batch at once"):
        norm(x)
    model = exact.convert(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)))
    with exact.step(seed=0, epoch=1, step=0, rows=slice(0, 4), batch=4):
        y = checkpoint(model, x.requires_grad_(), use_reentrant=False)
        with pytest.raises(exact.NotExactError, match=r"torch\.utils\.checkpoint"):
            y.sum().backward()


def test_weights_that_are_loaded_come_onto_the_grid() -> None:
    twin = exact.convert(nn.Sequential(nn.Linear(3, 3)))
    twin.load_state_dict(nn.Sequential(nn.Linear(3, 3)).state_dict())
    assert all(grids.WEIGHTS.holds(parameter) for parameter in twin.parameters())


def test_a_linear_twin_refuses_another_shape_as_torch_does() -> None:
    with pytest.raises(RuntimeError, match=r"0 \(Linear\) needs 784 features .* \(2, 1, 28, 28\)"):
        exact.convert(nn.Sequential(nn.Linear(784, 10)))(torch.zeros(2, 1, 28, 28))


@pytest.mark.parametrize("module", [nn.Dropout(0.4), nn.Dropout2d(0.4)])
def test_dropout_draws_for_the_whole_batch(module: nn.Module) -> None:
    twin, x = exact.convert(module), torch.ones(10, 6, 5, 5, dtype=torch.float64)

    def dropped(rows: slice, epoch: int = 1) -> Tensor:
        with exact.step(seed=1, epoch=epoch, step=2, rows=rows, batch=10):
            return twin(x[rows])

    whole = dropped(slice(0, 10))
    assert torch.equal(torch.cat([dropped(slice(0, 3)), dropped(slice(3, 10))]), whole)
    assert not torch.equal(dropped(slice(0, 10), epoch=2), whole)
    assert 0.2 < (whole == 0).double().mean() < 0.6
    assert whole.max() == pytest.approx(1 / 0.6)
    twin.inplace = True
    kept = x.clone()
    with exact.step(seed=1, epoch=1, step=2, rows=slice(0, 10), batch=10):
        twin(kept)
    assert torch.equal(kept, whole)
    assert torch.equal(twin.eval()(x), x)


class Own(nn.Linear):
    """A subclass, whose forward may do anything."""


@pytest.mark.parametrize(
    ("module", "part"),
    [
        (nn.GELU(), r"1 \(GELU\): has no exact twin; use ReLU, or set train.exact to false"),
        (Own(3, 3), r"1 \(Own\): a subclass of Linear has no exact twin"),
        (parametrizations.weight_norm(nn.Linear(3, 3)), r"has no exact twin"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "padding_mode='circular'"),
        (nn.BatchNorm1d(3, affine=False), "affine=False"),
        (nn.BatchNorm1d(3, track_running_stats=False), "no running statistics"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices=True"),
        (nn.LSTM(3, 3), r"1 \(LSTM\): has no exact twin"),
    ],
)
def test_what_has_no_twin_is_refused_by_its_path(module: nn.Module, part: str) -> None:
    with pytest.raises(exact.NotExactError, match=part):
        exact.convert(nn.Sequential(nn.Flatten(), module))


def test_more_rows_than_exact_sums_allow_are_refused_with_the_number_allowed() -> None:
    errors = grids.ERRORS
    inputs, coarse = grids.for_gradient("0 (Conv2d)", grids.IMAGES, errors, 784, 1000)
    assert inputs.bits + coarse.bits + grids.log2_up(784_000) <= 53
    with pytest.raises(exact.NotExactError, match=r"0 \(Conv2d\): .* at most 684,784 rows"):
        grids.for_gradient("0 (Conv2d)", grids.IMAGES, errors, 784, 10**6)


def test_a_weight_that_modules_share_sums_over_all_its_uses() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    model = exact.convert(nn.Sequential(first, nn.ReLU(), second))
    # Two rows are here; in a batch of so many, each gradient is as large as may be.
    largest = {"seed": 0, "epoch": 1, "step": 0, "rows": slice(0, 2), "batch": 2**29}
    x = torch.ones(2, 3)
    with exact.step(**largest):
        model(x)
    second.weight = first.weight
    with (
        exact.step(**largest),
        pytest.raises(exact.NotExactError, match="at most 268,435,456 rows"),
    ):
        model(x)


@pytest.mark.parametrize("inputs", [1, 784, 1023, 1024, 3072, 100_000])
def test_every_partial_sum_of_a_forward_fits_a_float64(inputs: int) -> None:
    grid, weights = grids.for_inputs(inputs), grids.WEIGHTS
    products = inputs * 2**grid.bits * 2**weights.bits
    bias = 2**weights.bits * round(1 / grid.step)
    assert products + bias <= 2**53
