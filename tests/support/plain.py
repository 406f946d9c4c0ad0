"""The same models in plain torch: torch.nn.Sequential, autograd, no grids."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def sequential(recipe: Mapping[str, Any], parameters: Mapping[str, Any]) -> nn.Sequential:
    """Build what models/recipe.json describes, with the parameters of a model file."""
    shapes = {key: array.shape for key, array in parameters.items()}
    layers: list[nn.Module] = []
    for index, layer in enumerate(recipe["layers"]):
        weight = shapes.get(f"{index}.weight")
        layers.append(
            {
                "Linear": lambda shape=weight, **_: nn.Linear(shape[1], shape[0]),
                "Convolution": lambda shape=weight, **given: nn.Conv2d(
                    shape[1], given["channels"], given["kernel"], given["stride"]
                ),
                "Relu": lambda **_: nn.ReLU(),
                "Flatten": lambda **_: nn.Flatten(),
                "Unflatten": lambda **_: nn.Unflatten(1, (1, int(recipe["pixels"] ** 0.5), -1)),
            }[layer["kind"]](**layer)
        )
    model = nn.Sequential(*layers)
    model.load_state_dict({key: torch.as_tensor(array) for key, array in parameters.items()})
    return model


def shifted(images: torch.Tensor, down: int, right: int, most: int) -> torch.Tensor:
    """Move square images (B, pixels): a window of their size in a wider frame of background."""
    side = int(images.shape[1] ** 0.5)
    frame = functional.pad(images.reshape(-1, side, side), [most] * 4)
    top, left = most - down, most - right
    return frame[:, top : top + side, left : left + side].reshape(len(images), -1)


def scores(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
    """Return the summed cross-entropy and the hits."""
    with torch.no_grad():
        logits = model(images)
    return (
        functional.cross_entropy(logits, labels, reduction="sum").item(),
        int((logits.argmax(1) == labels).sum()),
    )


def train(
    model: nn.Sequential,
    recipe: Mapping[str, Any],
    train_data: tuple[torch.Tensor, torch.Tensor],
    test_data: tuple[torch.Tensor, torch.Tensor],
) -> Iterator[list[float]]:
    """Train in float64; after each epoch yield train loss and accuracy, test loss and accuracy."""
    images, labels = train_data[0].double(), train_data[1]
    size, model = recipe["batch_size"], model.double()
    parameters = list(model.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    steps = range(0, len(labels) - (size - 1 if recipe["drop_last"] else 0), size)
    taken, most = 0, recipe["shift"]
    for epoch in range(1, recipe["epochs"] + 1):
        generator = np.random.default_rng([recipe["seed"], epoch])
        order = np.arange(len(labels))
        if recipe["shuffle"]:
            order = generator.permutation(len(labels))
        moves = generator.integers(-most, most + 1, (len(steps), 2))
        seen, totals = 0, np.zeros(2)
        for at, (down, right) in zip(steps, moves, strict=True):
            rows = order[at : at + size]
            batch, targets = shifted(images[rows], down, right, most), labels[rows]
            totals += scores(model, batch, targets)
            seen += len(rows)
            loss = functional.cross_entropy(model(batch), targets)
            gradients = torch.autograd.grad(loss, parameters)
            rate = recipe["learning_rate"]
            if recipe["decay"] == "linear":
                rate *= 1 - taken / (recipe["epochs"] * len(steps))
            taken += 1
            with torch.no_grad():
                for parameter, velocity, gradient in zip(
                    parameters, velocities, gradients, strict=True
                ):
                    velocity.mul_(recipe["momentum"]).add_(gradient)
                    parameter.sub_(velocity * rate)
        tested = scores(model, test_data[0].double(), test_data[1])
        yield [*(totals / seen), *(np.array(tested) / len(test_data[1]))]
