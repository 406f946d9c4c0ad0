"""The models that `train.model` can name, and what they have in common.

To add one, add an entry to MODELS.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable

import numpy as np
import torch

from src.common import files, tensors
from src.exact import functions, grids
from src.learning.layers import Convolution, Flatten, Layer, Linear, Relu, Unflatten

CPU = torch.device("cpu")

MODELS: dict[str, Callable[[int], list[Layer]]] = {
    "softmax_regression": lambda classes: [Linear(classes)],
    "mlp": lambda classes: [Linear(256), Relu(), Linear(classes)],
    "cnn": lambda classes: [
        Unflatten(),
        Convolution(16, kernel=5, stride=2),
        Relu(),
        Convolution(32, kernel=5, stride=2),
        Relu(),
        Flatten(),
        Linear(classes),
    ],
}


class Model:
    """Layers, and their parameters in one vector.

    Attributes:
        layers: in the order of the forward pass.
        pixels: how many an image has.
        parameters: float64 (P,), every layer's weight and bias one after the other; never rounded.
        gradient: float64 (P,), of the loss summed over the rows of a batch.
    """

    def __init__(self, layers: list[Layer], pixels: int, device: torch.device) -> None:
        """Build the layers for images of so many pixels, with all parameters 0.

        Raises:
            ValueError: the layers do not fit the images, or one another.
        """
        self.layers, self.pixels = layers, pixels
        shape: tuple[int, ...] = (pixels,)
        grid: grids.Grid | None = grids.PIXELS
        for layer in layers:
            shape, grid = layer.build(shape, grid)
        if len(shape) != 1 or grid is not None:
            raise ValueError("the last layer must be a Linear")
        self.first = next(index for index, layer in enumerate(layers) if layer.shapes())
        self.places: dict[str, tuple[slice, tuple[int, ...]]] = {}
        start = 0
        for index, layer in enumerate(layers):
            for name, shape in layer.shapes().items():
                place = slice(start, start := start + math.prod(shape))
                self.places[f"{index}.{name}"] = place, shape
        self.parameters = torch.zeros(start, dtype=torch.float64, device=device)
        self.gradient = torch.zeros_like(self.parameters)
        self.snapped = torch.zeros_like(self.parameters)  # as they enter the products
        counts = [sum(map(math.prod, layer.shapes().values())) for layer in layers]
        parts = zip(layers, self.snapped.split(counts), self.gradient.split(counts), strict=True)
        for layer, parameters, gradient in parts:
            layer.bind(parameters, gradient)

    def snap(self) -> None:
        """Bring the parameters, as the products see them, to the grid of weights."""
        largest = grids.WEIGHTS.largest
        grids.WEIGHTS.round_(torch.clamp(self.parameters, -largest, largest, out=self.snapped))

    def initialize(self, init: str, seed: int) -> None:
        """Draw the parameters that training starts from.

        NumPy draws them, as torch's generators depend on the vector width and the device, and
        whole numbers where that is possible, so that not even a multiplication rounds.

        Args:
            init: `uniform`, the distribution of torch.nn's layers, U(-1/sqrt(n), 1/sqrt(n)) with n
                inputs; `normal`, N(0, 1); `zeros`.
            seed: of the generator.
        """
        generator = np.random.default_rng(seed)
        step = grids.WEIGHTS.step
        for key, (place, shape) in self.places.items():
            if key.endswith("weight"):
                inputs = math.prod(shape[1:])
            if init == "uniform":
                bound = math.isqrt(round(1 / step) ** 2 // inputs)
                values = generator.integers(-bound, bound + 1, shape) * step
            elif init == "normal":
                values = generator.standard_normal(shape)
            else:
                values = np.zeros(shape)
            self.parameters[place] = torch.from_numpy(values).flatten()
        grids.WEIGHTS.snap_(self.parameters)
        self.snap()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, float64 (classes, B), of images (B, pixels)."""
        x = self.layers[0].buffer("x", *images.shape, like=self.parameters).copy_(images).t()
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, error: torch.Tensor) -> None:
        """Write the gradient for the last forward pass.

        Args:
            error: float64 (classes, B), derivative of the summed loss by the logits, on the grid
                of errors; is overwritten.
        """
        for index in range(len(self.layers) - 1, self.first - 1, -1):
            error = self.layers[index].backward(error, index == self.first)

    def check_batch(self, rows: int) -> None:
        """Raise ValueError if the gradient of so many rows would not be an exact sum."""
        for layer in self.layers:
            layer.check_batch(rows)

    def log_probabilities(self, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
        """Return float64 (N, classes) for images float32 (N, pixels), on the model's device."""
        parts = []
        for at in range(0, len(images), batch_size):
            _, gaps, totals, _ = functions.softmax(self.forward(images[at : at + batch_size]))
            parts.append(functions.log_probabilities(gaps, totals).T)
        return torch.cat(parts)

    def sha256(self) -> str:
        """Digest of all parameters: float64, little-endian, weight then bias, layer by layer."""
        return hashlib.sha256(self.parameters.cpu().numpy().astype("<f8").tobytes()).hexdigest()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the snapped parameters, as the equivalent torch.nn.Sequential names them.

        They are float32, which holds each of them exactly.
        """
        snapped = self.snapped.cpu().numpy().astype(np.float32)
        return {key: snapped[place].reshape(shape) for key, (place, shape) in self.places.items()}

    def describe(self) -> list[dict[str, object]]:
        """Name each layer and its settings, in a form for JSON."""
        return [
            {"kind": type(layer).__name__, **dataclasses.asdict(layer)} for layer in self.layers
        ]


def known(name: str) -> str:
    """Return the name of a model; raise ValueError if there is none of that name."""
    if name not in MODELS:
        raise ValueError(f"must be one of {', '.join(MODELS)}")
    return name


def build(name: str, pixels: int, classes: int, device: torch.device) -> Model:
    """Build a model of MODELS.

    Raises:
        ValueError: there is none of that name, or it does not fit images of so many pixels.
    """
    return Model(MODELS[known(name)](classes), pixels, device)


def load(model_path: str, recipe_path: str, device: torch.device = CPU) -> Model:
    """Read the model that train wrote, its parameters as they were saved.

    Raises:
        OSError: a file is missing, may not be read, is damaged or does not fit the other,
            or src/learning/models.py has changed since.
    """
    recipe = files.read_json(recipe_path)
    with files.reading(recipe_path):
        model = build(recipe["model"], recipe["pixels"], recipe["classes"], device)
        is_of_today = model.describe() == recipe["layers"]
    if not is_of_today:
        raise OSError(
            f"{recipe_path} is of another {recipe['model']} than src/learning/models.py has; "
            "train it anew"
        )
    found = tensors.read(model_path)
    with files.reading(model_path):
        if {key: array.shape for key, array in found.items()} != {
            key: shape for key, (_, shape) in model.places.items()
        }:
            raise ValueError(f"it is no {recipe['model']} of this recipe")
        for key, (place, _) in model.places.items():
            grids.WEIGHTS.whole_steps("weights", found[key])
            model.parameters[place] = torch.from_numpy(found[key]).flatten()
        model.snap()
    return model
