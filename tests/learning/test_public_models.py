"""Models for MNIST as their authors write them: each trains exactly, or is refused by name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name that everybody uses)

from src import exact
from src.learning import models
from tests.learning.test_training import train_and_hash, train_settings, two_threads


class Example(nn.Module):
    """After pytorch/examples, mnist, with logits in place of log_softmax."""

    def __init__(self, ends_in_log_softmax: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 8, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(1152, 32)
        self.fc2 = nn.Linear(32, 4)
        self.ends_in_log_softmax = ends_in_log_softmax

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        x = self.fc2(x)
        return F.log_softmax(x, dim=1) if self.ends_in_log_softmax else x


class Tutorial(nn.Module):
    """After PyTorch's nn tutorial: three convolutions and an average."""

    def __init__(self, average: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 8, kernel_size=3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(8, 4, kernel_size=3, stride=2, padding=1)
        self.average = average

    def forward(self, xb: Tensor) -> Tensor:
        xb = xb.view(-1, 1, 28, 28)
        xb = F.relu(self.conv1(xb))
        xb = F.relu(self.conv2(xb))
        xb = F.relu(self.conv3(xb))
        xb = self.average(xb)
        return xb.view(-1, xb.size(1))


class Dense(nn.Module):
    """After DenseNet: each layer sees all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 5, stride=4)
        self.layers = nn.ModuleList(nn.Conv2d(4 * n, 4, 3, padding=1) for n in (1, 2, 3))
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(F.relu(layer(torch.cat(features, 1))))
        x = F.adaptive_avg_pool2d(self.norm(torch.cat(features, 1)), 1)
        return self.head(x.flatten(1))


class Shared(nn.Module):
    """One layer used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again, self.leave = nn.Linear(784, 9), nn.Linear(9, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.enter(x.flatten(1)))
        for _ in range(3):
            x = F.relu(self.again(x)) + x
        return self.leave(x)


def perceptron(*, activation: Callable[[], nn.Module], norm: bool = False) -> nn.Module:
    middle = [nn.BatchNorm1d(16)] if norm else []
    head = nn.Linear(16, 4)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), *middle, activation(), head)


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 1),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Dropout2d(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


# Each with what it is refused by, if it is.
PUBLIC: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "example": (Example, ""),
    "example with log_softmax": (lambda: Example(True), "log_softmax"),
    "tutorial": (lambda: Tutorial(nn.AvgPool2d(4)), ""),
    "tutorial with a function": (lambda: Tutorial(lambda x: F.avg_pool2d(x, 4)), "avg_pool2d"),
    "dense": (Dense, "mean|adaptive_avg_pool2d"),
    "shared": (Shared, ""),
    "perceptron": (lambda: perceptron(activation=nn.ReLU, norm=True), ""),
    "perceptron with GELU": (lambda: perceptron(activation=nn.GELU), r"2 \(GELU\)"),
    "perceptron with Tanh": (lambda: perceptron(activation=nn.Tanh), r"2 \(Tanh\)"),
    "separable": (separable, ""),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_model_trains_with_one_hash_or_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, refused_by = PUBLIC[name]
    monkeypatch.setitem(models.MODELS, "public", lambda shape, classes: make())
    settings = train_settings(model="public", epochs=1, shift=0)
    if refused_by:
        with pytest.raises(exact.NotExactError, match=refused_by):
            train_and_hash(settings)
    else:
        one = train_and_hash(settings)
        with two_threads():
            assert train_and_hash(settings) == one
    records, _ = train_and_hash(settings.model_copy(update={"exact": False}))
    assert records[0].train.loss < 10
