"""Loss, optimizers, draws and the watch, each against a second source."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from src import exact
from src.exact import functions


def test_the_loss_and_its_gradient_are_torchs_within_the_table() -> None:
    logits = torch.randn(50, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits, labels = (logits * 5).requires_grad_(), torch.arange(50) % 10
    found = exact.CrossEntropyLoss()(logits, labels)
    found.backward()
    other = logits.detach().clone().requires_grad_()
    expected = functional.cross_entropy(other, labels, reduction="sum")
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(logits.grad, other.grad, rtol=0, atol=1e-4)
    assert exact.CrossEntropyLoss(with_value=False)(logits, labels).isnan()
    with pytest.raises(ValueError, match='use "sum"'):
        exact.CrossEntropyLoss(reduction="mean")


def test_the_root_is_correctly_rounded() -> None:
    numbers = np.random.default_rng(0).integers(1, 2**52, 20_000)
    for number, root in zip(
        numbers.tolist(), functions.sqrt(torch.from_numpy(numbers).double()).tolist(), strict=True
    ):
        # The root of n 2^2k has k more bits; of these the nearest float64 is taken.
        wide = math.isqrt(number << 120)
        assert abs(int(root * 2**60) - wide) <= 2 ** (wide.bit_length() - 54)


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (exact.SGD, torch.optim.SGD, {"lr": 0.1}),
        (exact.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (exact.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.03}),
        (exact.AdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    ],
)
def test_an_optimizer_takes_torchs_steps(ours: type, theirs: type, settings: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    start = exact.grids.WEIGHTS.snap(torch.randn(30, generator=generator).double())
    found, expected = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer, oracle = ours([found], **settings), theirs([expected], **settings)
    for rows in (100, 100, 37, 100, 100):
        gradient = torch.randn(30, dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        found.grad.add_(gradient * rows)
        expected.grad = gradient
        optimizer.step(rows)
        oracle.step()
        ((_, master),) = optimizer.named_masters()
        torch.testing.assert_close(master, expected.detach(), rtol=1e-12, atol=1e-12)
        assert exact.grids.WEIGHTS.holds(found.detach())
        assert (found - expected).abs().max() <= 2**-19 + 1e-12


def test_gradients_that_the_optimizer_does_not_see_are_an_error() -> None:
    model = exact.convert(nn.Linear(2, 2))
    optimizer = exact.SGD(model.parameters(), lr=0.1)
    model.zero_grad()
    with pytest.raises(RuntimeError, match="this optimizer's zero_grad"):
        optimizer.step(1)


def test_numpy_draws_whatever_a_model_starts_from() -> None:
    def start(noise: int) -> list[Tensor]:
        torch.manual_seed(noise)
        with exact.seeded(5):
            modules = [nn.Linear(784, 10), nn.Conv2d(2, 3, 3), nn.LSTM(4, 3), nn.Embedding(4, 3)]
            weight = nn.init.trunc_normal_(torch.empty(40), std=0.1)
            drawn = [torch.rand(5), torch.randn(5), torch.randint(9, (20,)), torch.randperm(9)]
            return [*(p for m in modules for p in m.parameters()), weight, *drawn]

    first, second = start(1), start(2)
    assert all(map(torch.equal, first, second))
    generator, bound = np.random.default_rng(5), math.isqrt(2**36 // 784)
    expected = generator.integers(-bound, bound + 1, (10, 784)) / 2**18
    np.testing.assert_array_equal(first[0].detach().numpy(), expected)
    assert sorted(first[-1].tolist()) == list(range(9))
    assert 0.1 < first[-3].std() < 3
    assert 0 < first[-4].min() < first[-4].max() < 1
    assert 0 <= first[-2].min() < first[-2].max() < 9
    assert first[-2].dtype == torch.int64


def test_a_start_that_needs_a_decomposition_is_refused() -> None:
    with exact.seeded(0), pytest.raises(exact.NotExactError, match="linalg_qr is not exact"):
        nn.init.orthogonal_(torch.empty(3, 3))
    with exact.seeded(0), pytest.raises(exact.NotExactError, match="sin is not exact"):
        torch.sin(torch.arange(3.0))
    with exact.seeded(0), pytest.raises(exact.NotExactError, match="arange is not exact"):
        torch.arange(0, 1, 0.1)


def test_an_optimizer_takes_one_tensor_and_leaves_what_is_frozen() -> None:
    weight, frozen = nn.Parameter(torch.ones(3).double()), nn.Parameter(torch.ones(3).double())
    frozen.requires_grad_(False)
    optimizer = exact.AdamW([{"params": weight}, {"params": [frozen]}], weight_decay=0.1)
    weight.grad.fill_(1)
    optimizer.step(1)
    assert (weight != 1).all()
    assert (frozen == 1).all()


class Forward(nn.Module):
    """A linear layer, and then what a test does."""

    def __init__(self, then: object) -> None:
        super().__init__()
        self.linear, self.then = nn.Linear(6, 6), then
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.linear(x), self)


def take_a_step(model: nn.Module, x: Tensor) -> None:
    model = exact.convert(model)
    optimizer = exact.SGD(model.parameters(), lr=0.1)
    with exact.step(seed=0, epoch=1, step=0, rows=slice(0, len(x)), batch=len(x)), exact.watch():
        exact.CrossEntropyLoss(with_value=False)(model(x), torch.arange(len(x))).backward()
        optimizer.step(len(x))


@pytest.mark.parametrize(
    ("then", "name"),
    [
        (lambda y, m: functional.linear(y, m.linear.weight), "mm|linear"),
        (lambda y, m: y @ m.linear.weight, "mm"),
        (lambda y, m: y.softmax(1), "softmax"),
        (lambda y, m: y - y.mean(1, keepdim=True), "mean"),
        (lambda y, m: functional.gelu(y), "gelu"),
        (lambda y, m: torch.add(y, y, alpha=3), "alpha"),
        (lambda y, m: y / 3, "div by 3"),
        (lambda y, m: y * m.scale, "sum"),
        (lambda y, m: y.exp(), "exp"),
        (lambda y, m: y / torch.tensor(3.0), "div by 3"),
        (lambda y, m: torch.rsub(y, 2.0, alpha=3), "alpha"),
        (lambda y, m: y + torch.arange(0, 0.6, 0.1, dtype=torch.float64), "arange"),
    ],
)
def test_an_operation_that_is_not_exact_is_named(then: object, name: str) -> None:
    with pytest.raises(exact.NotExactError, match=rf"(?s)({name}).* is not exact: .*it comes from"):
        take_a_step(Forward(then), torch.rand(4, 6))


@pytest.mark.parametrize(
    "then",
    [
        lambda y, m: functional.relu(y) + y,
        lambda y, m: torch.cat([y[:, :3], y[:, 3:]], dim=1) + m.linear(y) + y,
        lambda y, m: functional.pad(y, (0, 2))[:, :6].reshape(4, 6).view(4, 2, 3).flatten(1),
        lambda y, m: torch.cat(
            [functional.max_pool2d(y.view(4, 1, 2, 3), (1, 3)).flatten(1), y], 1
        ),
        lambda y, m: functional.leaky_relu(y),
    ],
)
def test_what_is_exact_passes(then: object) -> None:
    take_a_step(Forward(then), torch.rand(4, 6))


class Public(nn.Module):
    """What public models do to a tensor in place, and to its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.norm, self.pool = nn.BatchNorm2d(4), nn.MaxPool2d(3, 2)
        self.relu, self.linear = nn.ReLU(inplace=True), nn.Linear(4 * 12 * 12, 10)
        self.framed = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        y += self.second(x)
        y = self.framed(self.relu(self.pool(functional.relu_(y))))
        left, right = y.chunk(2, 1)
        return self.linear(torch.cat((right, left), 1).view(y.size(0), -1))


def test_what_public_models_do_in_place_passes() -> None:
    take_a_step(Public(), torch.rand(4, 1, 28, 28))


@pytest.mark.parametrize("pool", [(3, 2), (2, 2, 0, 2), (2, 1), (2, None, 0, 2)])
def test_maxima_that_overlap_in_a_forward_are_refused(pool: tuple[int, ...]) -> None:
    x = torch.rand(1, 1, 9, 9, dtype=torch.float64)
    with exact.watch(), pytest.raises(exact.NotExactError, match="max_pool2d with overlap"):
        functional.max_pool2d(x, *pool)


def test_three_branches_whose_errors_are_on_no_grid_are_refused() -> None:
    with pytest.raises(exact.NotExactError, match="an addition in the backward pass"):
        take_a_step(Forward(lambda y, m: y * 0.3 + y * 0.7 + y * 0.1), torch.rand(4, 6))


def test_probabilities_of_a_tensor_are_its_own() -> None:
    with exact.seeded(0):
        drawn = torch.bernoulli(torch.full((10_000,), 0.1))
        assert torch.randperm(5, dtype=torch.int32).dtype == torch.int32
    assert 0.08 < drawn.mean() < 0.12


def test_a_refusal_in_the_backward_names_the_line_of_the_forward() -> None:
    def twice(y: Tensor, model: Forward) -> Tensor:
        return y * model.scale

    with pytest.raises(exact.NotExactError, match=r"of `return y \* model.scale` \(test_training"):
        take_a_step(Forward(twice), torch.rand(4, 6))


class AddsInPlace(torch.autograd.Function):
    """A user's own, whose backward rounds."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *given: Tensor) -> Tensor:
        return given[0].clone().add_(torch.full_like(given[0], 2.0**-60))


def test_an_addition_in_place_that_rounds_in_the_backward_is_refused() -> None:
    with pytest.raises(exact.NotExactError, match="an addition in the backward pass"):
        take_a_step(Forward(lambda y, m: AddsInPlace.apply(y)), torch.rand(4, 6))


def test_images_and_weights_beyond_the_grid_are_refused() -> None:
    with pytest.raises(exact.NotExactError, match=r"the images reach .* to 255 .*; scale them"):
        take_a_step(nn.Linear(2, 2), torch.tensor([[0.0, 255.0]]))
    model = nn.Linear(2, 2)
    nn.init.constant_(model.bias, -20)
    with pytest.raises(exact.NotExactError, match=r"bias has a weight of 20, .* up to 16"):
        exact.convert(model)


def test_a_watched_product_asks_for_the_step() -> None:
    model = exact.convert(nn.Linear(2, 2))
    x = torch.rand(1, 2)
    with exact.watch(), pytest.raises(exact.NotExactError, match=r"use exact\.step"):
        model(x)


def test_weights_that_others_change_and_doubled_parameters_are_no_secret() -> None:
    model = exact.convert(nn.Linear(2, 2))
    optimizer = exact.SGD(model.parameters(), lr=0.1)
    model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
    with pytest.raises(RuntimeError, match="load a state_dict first"):
        optimizer.step(1)
    groups = [{"params": list(model.parameters())}, {"params": [model.bias]}]
    with pytest.raises(ValueError, match="more than one parameter group"):
        exact.SGD(groups, lr=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_loss_of_a_forward_that_ends_in_another_dtype_is_that_of_its_values(
    dtype: torch.dtype,
) -> None:
    logits, labels = torch.randn(5, 3).to(dtype), torch.arange(5) % 3
    loss = exact.CrossEntropyLoss()
    assert torch.equal(loss(logits, labels), loss(logits.double(), labels))


def test_the_package_needs_nothing_else_of_the_project(tmp_path: Path) -> None:
    shutil.copytree(Path(exact.__file__).parent, tmp_path / "exact")
    code = "import exact, sys; print(exact.__file__, [n for n in sys.modules if n[:3] == 'src'])"
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split()[1:] == ["[]"], found
