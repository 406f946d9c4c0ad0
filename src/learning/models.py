"""The models that `train.model` can name, in plain torch.nn.

To add one, write a function called as (shape, classes) that returns an nn.Module, and add it to
MODELS. `shape` is that of an image: (channels, height, width). The module takes images
(B, channels, height, width) and returns logits (B, classes).
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from src import exact
from src.common import files, tensors
from src.common.command import UsageError
from src.learning import graph

Shape = tuple[int, int, int]


def softmax_regression(shape: Shape, classes: int) -> nn.Module:
    """One linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def mlp(shape: Shape, classes: int) -> nn.Module:
    """A multilayer perceptron with one hidden layer."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), 256), nn.ReLU(), nn.Linear(256, classes)
    )


def cnn(shape: Shape, classes: int) -> nn.Module:
    """Two convolutions with stride 2 and a linear layer."""
    channels, height, width = shape
    for _ in range(2):
        height, width = (height - 5) // 2 + 1, (width - 5) // 2 + 1
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * max(0, height) * max(0, width), classes),
    )


def lenet(shape: Shape, classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling."""
    channels, height, width = shape
    height, width = (height // 2 - 4) // 2, (width // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * max(0, height) * max(0, width), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


class Residual(nn.Module):
    """Two convolutions of 3x3 with BatchNorm, and a way around them (He et al., 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        """Build a block from (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.around: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.around = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + x)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.around(x))


def resnet(shape: Shape, classes: int) -> nn.Module:
    """A small residual network: 19,898 parameters for MNIST."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16, 16),
        Residual(16, 32, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "softmax_regression": softmax_regression,
    "mlp": mlp,
    "cnn": cnn,
    "lenet": lenet,
    "resnet": resnet,
}


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """Build a model of MODELS; what its constructor raises is its own.

    Raises:
        UsageError: the entry is no function, or it returns no nn.Module with parameters to train.
    """
    make = MODELS[name]
    if not callable(make) or isinstance(make, nn.Module):
        raise UsageError(f"train.model: MODELS[{name!r}] is no function: {make!r}")
    with warnings.catch_warnings():
        # Of a layer that images too small leave nothing for: `checks.check` names the layer.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        model = make(shape, classes)
    if not isinstance(model, nn.Module):
        raise UsageError(f"train.model: MODELS[{name!r}] returned no nn.Module: {model!r}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"train.model: MODELS[{name!r}] has no parameters to train: {model!r}")
    return model


def start(
    name: str, shape: Shape, classes: int, *, init: str, seed: int, is_exact: bool
) -> nn.Module:
    """Build a model with the parameters that training starts from.

    Args:
        name: of MODELS.
        shape: of an image.
        classes: how many.
        init: `default`, each module's own initialisation; `normal`, N(0, 1), and `zeros` for every
            weight and bias.
        seed: of the draws.
        is_exact: NumPy draws (`exact.seeded`), not torch.

    Raises:
        UsageError: as `build`.
        exact.NotExactError: the initialisation sums, or draws in an unknown way.
    """
    if is_exact:
        with exact.seeded(seed):
            model = build(name, shape, classes)
    else:
        torch.manual_seed(seed)
        model = build(name, shape, classes)
    if init != "default":
        generator = np.random.default_rng(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                size = tuple(parameter.shape)
                drawn = generator.standard_normal(size) if init == "normal" else np.zeros(size)
                parameter.copy_(torch.from_numpy(drawn))
    return model


def is_exact(model: nn.Module) -> bool:
    """Say whether `exact.convert` made the model's parameters float64."""
    return next(model.parameters()).dtype == torch.float64


def state(model: nn.Module) -> dict[str, np.ndarray]:
    """Return the model's state_dict for a file: floats as float32, which holds each exactly."""
    return {
        key: (value.float() if value.is_floating_point() else value).cpu().numpy().copy()
        for key, value in model.state_dict().items()
    }


def load(
    model_path: str = "models/model.safetensors",
    recipe_path: str = "models/recipe.json",
    device: torch.device | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Read the model that train wrote, in evaluation mode, and its recipe.

    Raises:
        OSError: a file is missing, may not be read, is damaged or does not fit the other, or the
            model has other modules than it had; so has one whose forward does other things, where
            torch.fx can follow it.
    """
    kinds = {"model": str, "shape": list, "classes": int, "module": str}
    kinds |= {"exact": bool, "from_pictures": bool}
    recipe = files.read_json(recipe_path, **kinds)
    name = recipe["model"]
    if name not in MODELS:
        raise OSError(f"{recipe_path} is of {name!r}, which src/learning/models.py does not have")
    model = build(name, tuple(recipe["shape"]), recipe["classes"])
    nodes, _ = graph.graph(model, tuple(recipe["shape"]))
    is_other = nodes and recipe.get("graph") and nodes != recipe["graph"]
    if repr(model) != recipe["module"] or is_other:
        raise OSError(
            f"{recipe_path} is of another {name} than src/learning/models.py has; train it anew"
        )
    if recipe["exact"]:
        exact.convert(model)
    found = tensors.read(model_path)
    try:
        model.load_state_dict({key: torch.from_numpy(array) for key, array in found.items()})
    except RuntimeError as error:  # other names or shapes
        reason = " ".join(str(error).split())[:300]
        raise OSError(f"{model_path} does not fit {recipe_path}: {reason}") from error
    return model.to(device or torch.device("cpu")).eval(), recipe
