"""The same models in plain torch: torch.nn, autograd, no grids."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from src.learning.models import MODELS


def module(recipe: Mapping[str, Any], parameters: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build what models/recipe.json names, with the parameters of a model file, for scoring."""
    model = MODELS[recipe["model"]](tuple(recipe["shape"]), recipe["classes"])
    model.load_state_dict(dict(parameters))
    return model.eval()


def scores(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
    """Return the summed cross-entropy and the hits."""
    with torch.no_grad():
        logits = model(images)
    return (
        functional.cross_entropy(logits, labels, reduction="sum").item(),
        int((logits.argmax(1) == labels).sum()),
    )


def train(
    model: nn.Module,
    recipe: Mapping[str, Any],
    train_data: tuple[torch.Tensor, torch.Tensor],
    test_data: tuple[torch.Tensor, torch.Tensor],
) -> Iterator[list[float]]:
    """Train in float64 by plain SGD, rows in their order.

    Yields:
        After each epoch train loss and accuracy, test loss and accuracy.
    """
    images, labels = train_data[0].double(), train_data[1]
    model = model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe["learning_rate"])
    for _ in range(recipe["epochs"]):
        totals = np.zeros(2)
        for at in range(0, len(labels), recipe["batch_size"]):
            batch = slice(at, at + recipe["batch_size"])
            totals += scores(model, images[batch], labels[batch])
            optimizer.zero_grad()
            functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        tested = scores(model, test_data[0].double(), test_data[1])
        yield [*(totals / len(labels)), *(np.array(tested) / len(test_data[1]))]
