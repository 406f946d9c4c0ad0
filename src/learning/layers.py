"""The layers of a model, forward and backward, in exact sums.

Tensors are float64 and hold a batch's rows in their last dimension: (features, B) or
(channels, height, width, B). Each layer's `build` is told the shape of an input without the
batch, and its grid; None stands for sums of products, which are on no grid that a product takes.
Names, order and shapes of the parameters are those of the torch.nn layer of the same purpose.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from src.common import dataset
from src.exact import grids
from src.exact.grids import Grid

Shape = tuple[int, ...]


@dataclass
class Layer:
    """A layer without parameters that hands through what it gets."""

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of the parameters by name, once the layer is built."""
        return {}

    def build(self, shape: Shape, grid: Grid | None) -> tuple[Shape, Grid | None]:
        """Learn the shape and grid of the input; return those of the output.

        Raises:
            ValueError: such an input does not fit.
        """
        return shape, grid

    def bind(self, parameters: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take this layer's parts of a model's parameters, snapped, and of its gradient."""

    def check_batch(self, rows: int) -> None:
        """Raise ValueError if a batch of so many rows is too large for exact sums."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output; `x` may be overwritten only by a layer without parameters."""
        return x

    def backward(self, error: torch.Tensor, is_first: bool) -> torch.Tensor:
        """Return the derivative of the summed loss by the input; write those by the parameters.

        Args:
            error: the derivative by the output; may be overwritten.
            is_first: no layer before this one has parameters; what is returned is not used.
        """
        return error

    def buffer(self, name: str, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """A tensor that is kept from step to step: large ones cost more to make than to fill."""
        key = (name, *shape)
        if key not in self.buffers:
            self.buffers[key] = like.new_empty(shape)
        return self.buffers[key]

    @cached_property
    def buffers(self) -> dict[tuple[object, ...], torch.Tensor]:
        """What `buffer` keeps."""
        return {}


class Product(Layer):
    """A layer whose outputs are sums of products with its weight, plus its bias."""

    grid: Grid  # of the input
    positions: int = 1  # places of an image at which the weights are used
    overlaps: int = 1  # outputs of one kind that an input takes part in

    def shapes(self) -> dict[str, Shape]:
        return {"weight": self.weight_shape, "bias": self.weight_shape[:1]}

    def set_shapes(self, weight: Shape, grid: Grid | None) -> None:
        """Set the parameters' shapes, (outputs, inputs...) and (outputs,).

        Raises:
            ValueError: the input is on no grid, or there are too many inputs for exact sums.
        """
        name, inputs = type(self).__name__, math.prod(weight[1:])
        if grid is None:
            raise ValueError(f"{name} needs a Relu between it and the layer with weights before")
        self.weight_shape, self.grid = weight, grid
        grids.check_sum(
            f"{name}: a sum over {inputs:,} inputs",
            (inputs, grids.WEIGHTS, grid),
            (1, grids.WEIGHTS, grids.Grid(1, 1)),
        )
        errors = weight[0] * self.overlaps
        grids.check_sum(
            f"{name}: a sum over {errors:,} errors", (errors, grids.WEIGHTS, grids.ERRORS)
        )

    def bind(self, parameters: torch.Tensor, gradient: torch.Tensor) -> None:
        count = math.prod(self.weight_shape)
        self.weight = parameters[:count].view(self.weight_shape)
        self.bias = parameters[count:]
        self.weight_gradient = gradient[:count].view(self.weight_shape)
        self.bias_gradient = gradient[count:]
        # As matrices: made once, as in a small step each view counts.
        self.matrix, self.column = self.weight.flatten(1), self.bias[:, None]
        self.matrix_gradient = self.weight_gradient.flatten(1)

    def check_batch(self, rows: int) -> None:
        grids.check_sum(
            f"{type(self).__name__}: a gradient over {rows:,} rows",
            (rows * self.positions, self.grid, grids.ERRORS),
        )

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Return weight @ x + bias for x (inputs, N)."""
        sums = self.buffer("sums", self.weight_shape[0], x.shape[1], like=x)
        return torch.mm(self.matrix, x, out=sums).add_(self.column)

    def differentiate(self, error: torch.Tensor, x: torch.Tensor) -> None:
        """Write the gradients for error (outputs, N) and x (inputs, N)."""
        torch.mm(error, x.t(), out=self.matrix_gradient)
        torch.sum(error, dim=1, out=self.bias_gradient)

    def multiply_back(self, error: torch.Tensor) -> torch.Tensor:
        """Return weight.T @ error, (inputs, N)."""
        sums = self.buffer("errors", self.matrix.shape[1], error.shape[1], like=error)
        return torch.mm(self.matrix.t(), error, out=sums)


@dataclass
class Linear(Product):
    """torch.nn.Linear: (inputs, B) to (outputs, B)."""

    outputs: int

    def build(self, shape: Shape, grid: Grid | None) -> tuple[Shape, Grid | None]:
        if len(shape) != 1:
            raise ValueError("Linear needs a Flatten before it")
        self.set_shapes((self.outputs, *shape), grid)
        return (self.outputs,), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.x = x
        return self.multiply(x)

    def backward(self, error: torch.Tensor, is_first: bool) -> torch.Tensor:
        self.differentiate(error, self.x)
        return error if is_first else self.multiply_back(error)


@dataclass
class Convolution(Product):
    """torch.nn.Conv2d without padding: (C, H, W, B) to (channels, h, w, B).

    A product over the patches of all positions, copied one beside the other: Winograd's and
    Fourier's ways, which torch may choose, are not exact.
    """

    channels: int
    kernel: int
    stride: int

    def build(self, shape: Shape, grid: Grid | None) -> tuple[Shape, Grid | None]:
        if len(shape) != 3:
            raise ValueError("Convolution needs an Unflatten before it")
        depth, *sides = shape
        if min(sides) < self.kernel:
            raise ValueError(f"images of {sides[0]} x {sides[1]} are too small for Convolution")
        self.height, self.width = ((side - self.kernel) // self.stride + 1 for side in sides)
        self.positions = self.height * self.width
        self.overlaps = math.ceil(self.kernel / self.stride) ** 2
        self.set_shapes((self.channels, depth, self.kernel, self.kernel), grid)
        return (self.channels, self.height, self.width), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.input_shape, rows = x.shape, x.shape[-1]
        windows = x.unfold(1, self.kernel, self.stride).unfold(2, self.kernel, self.stride)
        windows = windows.permute(0, 4, 5, 1, 2, 3)
        self.patches = self.buffer("patches", *windows.shape, like=x).copy_(windows)
        self.patches = self.patches.view(self.matrix.shape[1], -1)
        return self.multiply(self.patches).view(self.channels, self.height, self.width, rows)

    def backward(self, error: torch.Tensor, is_first: bool) -> torch.Tensor:
        flat = error.reshape(self.channels, -1)
        self.differentiate(flat, self.patches)
        if is_first:
            return error
        depth, _, _, rows = self.input_shape
        patches = self.multiply_back(flat).view(
            depth, self.kernel, self.kernel, self.height, self.width, rows
        )
        back = self.buffer("back", *self.input_shape, like=error).zero_()
        for i in range(self.kernel):
            for j in range(self.kernel):
                down = slice(i, i + self.stride * self.height, self.stride)
                across = slice(j, j + self.stride * self.width, self.stride)
                back[:, down, across].add_(patches[:, i, j])
        return back


@dataclass
class Relu(Layer):
    """torch.nn.ReLU, and the way back to a grid: outputs above 64 become 64."""

    def build(self, shape: Shape, grid: Grid | None) -> tuple[Shape, Grid | None]:
        return shape, grids.ACTIVATIONS

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.outputs = grids.ACTIVATIONS.round_(x.clamp_(0, grids.ACTIVATIONS.largest))
        return self.outputs

    def backward(self, error: torch.Tensor, is_first: bool) -> torch.Tensor:
        return grids.ERRORS.snap_(error).mul_(self.outputs > 0)


@dataclass
class Unflatten(Layer):
    """torch.nn.Unflatten: (pixels, B) to (1, side, side, B), for square images in grey."""

    def build(self, shape: Shape, grid: Grid | None) -> tuple[Shape, Grid | None]:
        side = dataset.side_of(shape[0])
        if side is None:
            raise ValueError(f"Unflatten needs square images, and {shape[0]} pixels are no square")
        self.side = side
        return (1, side, side), grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous().view(1, self.side, self.side, -1)

    def backward(self, error: torch.Tensor, is_first: bool) -> torch.Tensor:
        return error.view(self.side**2, -1)


@dataclass
class Flatten(Layer):
    """torch.nn.Flatten: (C, H, W, B) to (C * H * W, B)."""

    def build(self, shape: Shape, grid: Grid | None) -> tuple[Shape, Grid | None]:
        self.shape = shape
        return (math.prod(shape),), grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(math.prod(self.shape), -1)

    def backward(self, error: torch.Tensor, is_first: bool) -> torch.Tensor:
        return error.view(*self.shape, -1)
