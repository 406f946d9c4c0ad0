"""Twins: modules of torch.nn that do the same in exact sums, and `convert`, which exchanges them.

A twin is a subclass of the module that it stands for. It keeps the parameters, their names and the
hooks. Tensors are float64. A twin snaps what enters a sum to a grid, so every sum is exact; what it
returns need not be on a grid, as the next twin snaps again. A twin's backward does the same with
the derivatives of the summed loss, which are called errors here.

To add a twin, write its class and add it to TWINS.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn.modules.utils import _pair

from . import functions, grids, stepping
from .grids import Grid, NotExactError, TooManyRowsError

Tensor = torch.Tensor


def _is_2d(x: Tensor, module: nn.Module) -> None:
    if x.dim() != 4:
        raise NotExactError(
            f"{type(module).__name__} needs images (B, C, H, W), and got {tuple(x.shape)}"
        )


class _Product(Function):
    """weight @ x + bias, for x (inputs, N), weight (outputs, inputs) and bias (outputs,) or None.

    With groups, all have a leading dimension for them: x (G, inputs, N). Where the N rows lie one
    after another in memory, the transposed product is twice as fast for few outputs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pair: Any) -> Tensor:
        with stepping.twin():
            ctx.save_for_backward(x, weight)
            ctx.pair, ctx.has_bias, ctx.is_by_rows = pair, bias is not None, not x.is_contiguous()
            y = torch.matmul(x.mT, weight.mT).mT if ctx.is_by_rows else torch.matmul(weight, x)
            return y if bias is None else y.add_(bias[..., None])

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with stepping.twin():
            inputs, errors = ctx.pair()
            error = errors.snap(given[0])
            weight_error = torch.matmul(error, inputs(x).mT)
            back = None
            if ctx.needs_input_grad[0]:
                # Rounded again, so that where branches of a model meet their sum is exact.
                back = grids.ERRORS.round_(
                    torch.matmul(error.mT, weight).mT
                    if ctx.is_by_rows
                    else torch.matmul(weight.mT, error)
                )
            bias_error = error.sum(-1) if ctx.has_bias else None
        return back, weight_error, bias_error, None


class _Snap(Function):
    """Bring x to a grid. What is beyond it, and so clamped, has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        with stepping.twin():
            snapped = grid.snap(x)
            ctx.is_within = None
            # amin and amax take a quarter of aminmax's time where the rows do not come first.
            if x.numel() and (x.amin() < -grid.largest or x.amax() > grid.largest):
                ctx.is_within = x.abs() <= grid.largest
        return snapped

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        return given[0] if ctx.is_within is None else given[0] * ctx.is_within, None


def _snap(x: Tensor, grid: Grid) -> Tensor:
    """Bring x to a grid; autograd need not know of what has no derivative, as pixels."""
    if x.requires_grad:
        snapped: Tensor = _Snap.apply(x, grid)
        return snapped
    with stepping.twin():
        is_data = stepping.is_watched() and torch.is_grad_enabled() and x.numel() > 0
        if is_data and (x.amin() < -grid.largest or x.amax() > grid.largest):
            raise NotExactError(
                f"the images reach from {x.amin():g} to {x.amax():g} in the forward, and exact "
                f"sums hold up to {grid.largest:g}; scale them, or set train.exact to false"
            )
        return grid.snap(x)


def _step_of_forward(name: str) -> stepping.Step | None:
    """Return the step that a forward is part of, or None."""
    now = stepping.current()
    if now and torch._C._current_graph_task_id() != -1:
        raise NotExactError(
            f"{name}: a forward inside the backward, as torch.utils.checkpoint takes it, draws and "
            "counts anew; leave it out, or set train.exact to false"
        )
    return now


def _for_each_row(name: str, count: int) -> tuple[int, int]:
    """Divide a count by the rows that are here; return it for one row, and the rows of the batch.

    A forward may put its rows into any dimension, so the shape of an input does not tell.
    """
    now = _step_of_forward(name)
    if now is None:
        return count, 1
    here = now.rows.stop - now.rows.start
    if here and count % here:
        raise NotExactError(
            f"{name}: its {count:,} inputs are not the same number for each of {here:,} rows"
        )
    return (count // here if here else 0), now.batch


def _pair_of_grids(
    module: nn.Linear | nn.Conv2d, inputs: Grid, errors: Grid, products: int
) -> Callable[[], tuple[Callable[[Tensor], Tensor], Grid]]:
    """Return a function that the backward calls for the grids of a weight's gradient.

    That function returns what snaps x, and the grid of the errors. It cannot be asked before: the
    gradient of a weight sums over all its uses, which are known only when the forward has ended. A
    forward may use a module several times, and modules may share a weight.

    Args:
        module: the one whose weight it is.
        inputs: the grid that x is on already.
        errors: the grid that is fine enough for what goes back.
        products: how many products the rows that are here add to the gradient by this use.
    """
    name, weight = getattr(module, "path", type(module).__name__), id(module.weight)
    now = stepping.current()
    if now is None and stepping.is_watched() and torch.is_grad_enabled():
        raise NotExactError(f"{name} needs to know the step in training: use exact.step")
    each, whole = _for_each_row(name, products)
    if now:
        now.products[weight] = now.products.get(weight, 0) + each

    def pair() -> tuple[Callable[[Tensor], Tensor], Grid]:
        uses = now.products[weight] if now else each
        coarse, coarse_errors = grids.for_gradient(name, inputs, errors, uses, whole)
        return (coarse.snap if coarse != inputs else lambda x: x), coarse_errors

    pair()  # refuses before anything is computed
    return pair


class Linear(nn.Linear):
    """nn.Linear: float (B, ..., inputs) to float64 (B, ..., outputs)."""

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] != self.in_features:  # reshape would take other rows for these
            raise RuntimeError(
                f"{getattr(self, 'path', 'Linear')} needs {self.in_features} features in the last "
                f"dimension, and got {tuple(input.shape)}"
            )
        inputs, errors = grids.for_inputs(self.in_features), grids.for_errors(self.out_features)
        flat = input if input.dim() == 2 else input.reshape(-1, self.in_features)
        pair = _pair_of_grids(self, inputs, errors, len(flat))
        x = _snap(flat, inputs)
        y = _Product.apply(x.t(), self.weight, self.bias, pair).t()
        return y if input.dim() == 2 else y.reshape(*input.shape[:-1], self.out_features)


class _Patches(Function):
    """The patches that a convolution sees, (C * kh * kw, h * w * B) of x (B, C, H, W).

    Winograd's and Fourier's ways to convolve are not exact, so patches are copied and multiplied.
    The rows of the batch lie side by side, the fastest way for a step's small images.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
        with stepping.twin():
            x = x.permute(1, 2, 3, 0)
            (top, left) = padding
            channels, height, width, rows = x.shape
            if top or left:
                frame = x.new_zeros(channels, height + 2 * top, width + 2 * left, rows)
                frame[:, top : top + height, left : left + width] = x
            else:
                frame = x.contiguous()
            ctx.frame, ctx.image = frame.shape, (top, left, height, width)
            sides = frame.shape[1:3]
            h, w = (
                (side - d * (k - 1) - 1) // s + 1
                for side, k, s, d in zip(sides, kernel, stride, dilation, strict=True)
            )
            ctx.settings = kernel, stride, dilation, h, w
            a, b, c, d = frame.stride()
            windows = frame.as_strided(
                (channels, *kernel, h, w, rows),
                (a, dilation[0] * b, dilation[1] * c, stride[0] * b, stride[1] * c, d),
            )
            return windows.reshape(channels * kernel[0] * kernel[1], h * w * rows)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        with stepping.twin():
            kernel, stride, dilation, h, w = ctx.settings
            channels, *_, rows = ctx.frame
            patches = given[0].view(channels, *kernel, h, w, rows)
            back = patches.new_zeros(ctx.frame)
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    y, x = i * dilation[0], j * dilation[1]
                    down = slice(y, y + stride[0] * (h - 1) + 1, stride[0])
                    across = slice(x, x + stride[1] * (w - 1) + 1, stride[1])
                    back[:, down, across].add_(patches[:, i, j])
            top, left, height, width = ctx.image
            image = back[:, top : top + height, left : left + width]
            return image.permute(3, 0, 1, 2), None, None, None, None


class Conv2d(nn.Conv2d):
    """nn.Conv2d with zeros as padding: float (B, C, H, W) to float64 (B, channels, h, w)."""

    def refusal(self) -> str | None:
        return None if self.padding_mode == "zeros" else f"padding_mode={self.padding_mode!r}"

    def forward(self, input: Tensor) -> Tensor:
        _is_2d(input, self)
        kernel, stride, dilation = self.kernel_size, self.stride, self.dilation
        x, padding = input, self.padding
        if padding == "valid":
            padding = (0, 0)
        elif padding == "same":
            totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            padding = (totals[0] // 2, totals[1] // 2)
            if any(total % 2 for total in totals):
                x = nn.functional.pad(x, (0, totals[1] % 2, 0, totals[0] % 2))
        assert not isinstance(padding, str)
        sides = [
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, p, d, k, s in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
        ]
        if min(sides) < 1:
            raise NotExactError(f"images of {x.shape[2]} x {x.shape[3]} are too small for Conv2d")
        area, groups = math.prod(kernel), self.groups
        inputs = grids.for_inputs(self.in_channels // groups * area, grids.IMAGES)
        errors = grids.for_errors(self.out_channels // groups)
        pair = _pair_of_grids(self, inputs, errors, math.prod(sides) * len(x))
        x = _snap(x, inputs)
        patches = _Patches.apply(x, kernel, stride, padding, dilation)
        weight, bias = self.weight.flatten(1), self.bias
        if groups > 1:
            patches = patches.unflatten(0, (groups, -1))
            weight = weight.view(groups, -1, weight.shape[1])
            bias = None if bias is None else bias.view(groups, -1)
        y = _Product.apply(patches, weight, bias, pair)
        return y.reshape(self.out_channels, *sides, len(x)).permute(3, 0, 1, 2)


# So many products of an error and a value, of 22 and 20 bits, fit an int64.
MOST_VALUES = 2**21 - 1


class _Normalize(Function):
    """BatchNorm in training, for x (B, C, ...) on the grid NORMALIZED; returns mean and variance.

    Sums are of whole numbers in int64, over all processes. The gradients of weight and bias are
    sums over all processes already, so only the first process, the one that has row 0, gives them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        name: str,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        add_up: Any,
        is_first: bool,
    ) -> Any:
        with stepping.twin():
            shape = (1, -1, *[1] * (x.dim() - 2))
            over = [0, *range(2, x.dim())]
            steps = (x / grids.NORMALIZED.step).long()
            here = steps.numel() // max(1, steps.shape[1])
            values, rows = _for_each_row(name, here)
            if rows * values > MOST_VALUES:
                raise TooManyRowsError(
                    f"{name}: at most {MOST_VALUES // values:,} rows are allowed in a batch"
                )
            count = torch.full_like(steps.sum(over), here)
            sums = torch.stack([steps.sum(over), (steps * steps).sum(over), count])
            if add_up:
                add_up(sums)
            total, squares, count = sums.double()
            mean = total / count
            variance = squares / count
            variance = variance.sub_(mean * mean).clamp_(min=0)
            step = grids.NORMALIZED.step
            mean, variance = mean * step, variance * step**2
            scale = functions.sqrt(variance + eps).reciprocal_()
            ctx.save_for_backward(x, steps, mean, scale, weight, count)
            ctx.shape, ctx.over, ctx.add_up, ctx.is_first = shape, over, add_up, is_first
            factor = (scale * weight).view(shape)
            y = (x - mean.view(shape)).mul_(factor).add_(bias.view(shape))
            ctx.mark_non_differentiable(mean, variance, count)
            return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        x, steps, mean, scale, weight, count = ctx.saved_tensors
        with stepping.twin():
            error = grids.ERRORS.snap(given[0])
            whole = (error / grids.ERRORS.step).long()
            sums = torch.stack([whole.sum(ctx.over), (whole * steps).sum(ctx.over)])
            if ctx.add_up:
                ctx.add_up(sums)
            total, products = sums.double()
            total = total * grids.ERRORS.step
            products = products * (grids.ERRORS.step * grids.NORMALIZED.step)
            along = (products - mean * total) * scale  # the sum of error times what is normalized
            normal = (x - mean.view(ctx.shape)).mul_(scale.view(ctx.shape))
            back = error - (total / count).view(ctx.shape)
            back = back.sub_(normal.mul_((along / count).view(ctx.shape)))
            back = grids.ERRORS.snap_(back.mul_((scale * weight).view(ctx.shape)))
            if not ctx.is_first:
                along, total = torch.zeros_like(along), torch.zeros_like(total)
        return None, back, along, total, None, None, None


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """What both have in common; `add_up` sums over all processes, see `convert`."""

    add_up: stepping.AddUp | None = None

    def refusal(self) -> str | None:
        if not self.affine:
            return "affine=False"
        if not self.track_running_stats or self.momentum is None:
            return "no running statistics with a momentum"
        return None

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)  # torch's own
        x = _snap(input, grids.NORMALIZED)
        if not self.training:
            shape = (1, -1, *[1] * (input.dim() - 2))
            assert self.running_mean is not None
            assert self.running_var is not None
            factor = functions.sqrt(self.running_var + self.eps).reciprocal_() * self.weight
            y: Tensor = (x - self.running_mean.view(shape)) * factor.view(shape)
            return y + self.bias.view(shape)
        name = getattr(self, "path", type(self).__name__)
        now = stepping.current()
        if now and self.add_up is None and now.rows != slice(0, now.batch):
            raise NotExactError(
                f"{name} needs the whole batch at once, and not in shares one after another; for "
                "several processes give `convert` what adds up their sums"
            )
        is_first = now is None or (now.rows.start == 0 and now.rows.stop > 0)
        y, mean, variance, count = _Normalize.apply(
            name, x, self.weight, self.bias, self.eps, self.add_up, is_first
        )
        if count[0] < 2:
            raise NotExactError(f"{name}: more than one value a channel is needed in a batch")
        with torch.no_grad(), stepping.twin():
            unbiased = variance * (count / (count - 1))
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                assert running is not None
                assert self.momentum is not None
                kept = running * (1 - self.momentum)
                # As float32 holds them, so that a saved model is the one that was scored.
                running.copy_((kept + new * self.momentum).float())
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
        return y


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """nn.BatchNorm1d: float (B, C) or (B, C, L) to float64, over the rows of all processes."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """nn.BatchNorm2d: float (B, C, H, W) to float64, over the rows of all processes."""


def _snap_errors(error: Tensor) -> Tensor:
    with stepping.twin():
        return grids.ERRORS.snap(error)


class MaxPool2d(nn.MaxPool2d):
    """nn.MaxPool2d, overlapping too: an input's errors from several outputs are summed exactly."""

    def refusal(self) -> str | None:
        return "return_indices=True" if self.return_indices else None

    def forward(self, input: Tensor) -> Tensor:
        _is_2d(input, self)
        with stepping.twin():
            y: Tensor = super().forward(input)
        if y.requires_grad:
            y.register_hook(_snap_errors)  # before the pooling's own backward adds them up
        return y


class _Average(Function):
    """Averages over windows, by two matrices of 0 and 1 that say which rows and columns count."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, across: Tensor, counts: Tensor) -> Tensor:
        with stepping.twin():
            ctx.save_for_backward(down, across, counts)
            return torch.matmul(torch.matmul(down, x), across.t()).div_(counts)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        down, across, counts = ctx.saved_tensors
        with stepping.twin():
            error = grids.ERRORS.snap(given[0] / counts)
            return torch.matmul(torch.matmul(down.t(), error), across), None, None, None


def _average(x: Tensor, windows: list[list[tuple[int, int]]], counts: Tensor) -> Tensor:
    """Average x (B, C, H, W) over windows: for each of the two sides, a list of (first, end)."""
    grid = grids.INPUTS.coarsened(grids.BITS - grids.log2_up(math.prod(x.shape[2:])))
    matrices = []
    for side, spans in zip(x.shape[2:], windows, strict=True):
        matrix = x.new_zeros(len(spans), side, dtype=torch.float64)
        for index, (first, end) in enumerate(spans):
            matrix[index, first:end] = 1
        matrices.append(matrix)
    return _Average.apply(_snap(x, grid), *matrices, counts.to(x.device))


class AvgPool2d(nn.AvgPool2d):
    """nn.AvgPool2d: float (B, C, H, W) to float64 (B, C, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        _is_2d(input, self)
        windows, counts = [], []
        settings = (self.kernel_size, self.stride, self.padding)
        for side, kernel, stride, padding in zip(
            input.shape[2:], *map(_pair, settings), strict=True
        ):
            rounded = (side + 2 * padding - kernel) / stride
            outputs = (math.ceil(rounded) if self.ceil_mode else math.floor(rounded)) + 1
            if self.ceil_mode and (outputs - 1) * stride >= side + padding:
                outputs -= 1  # torch's rule: a window starts inside the image or its left padding
            if outputs < 1:
                raise RuntimeError(f"images of {side} pixels a side are too small for {self}")
            starts = [at * stride - padding for at in range(outputs)]
            spans = [(max(0, at), max(0, min(side, at + kernel))) for at in starts]
            padded = [min(at + kernel, side + padding) - at for at in starts]
            inside = [end - first for first, end in spans]
            windows.append(spans)
            counts.append(
                torch.tensor(padded if self.count_include_pad else inside, dtype=torch.float64)
            )
        both = counts[0][:, None] * counts[1]
        if self.divisor_override:
            both = torch.full_like(both, self.divisor_override)
        return _average(input, windows, both)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """nn.AdaptiveAvgPool2d: float (B, C, H, W) to float64 (B, C, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        _is_2d(input, self)
        windows = []
        for side, wanted in zip(input.shape[2:], _pair(self.output_size), strict=True):
            outputs = side if wanted is None else wanted
            windows.append(
                [(n * side // outputs, -(-(n + 1) * side // outputs)) for n in range(outputs)]
            )
        sizes = [
            torch.tensor([end - first for first, end in spans], dtype=torch.float64)
            for spans in windows
        ]
        return _average(input, windows, sizes[0][:, None] * sizes[1])


def _drop(x: Tensor, share: float, dims: int, is_in_place: bool) -> Tensor:
    """Multiply x by a mask that NumPy draws for the whole batch, over its first dimensions."""
    now = _step_of_forward("Dropout")
    if now is None:
        raise NotExactError("Dropout draws in training, and needs to know the step: use exact.step")
    if len(x) != now.rows.stop - now.rows.start:
        raise NotExactError(f"Dropout needs the rows in the first dimension, got {tuple(x.shape)}")
    shape = (now.batch, *x.shape[1:dims], *[1] * (x.dim() - dims))
    kept = now.generator().random(shape)[now.rows] >= share
    scale = 0.0 if share == 1 else 1 / (1 - share)
    mask = torch.from_numpy(kept).to(x.device).double() * scale
    return x.mul_(mask) if is_in_place else x * mask


class Dropout(nn.Dropout):
    """nn.Dropout: the mask depends on the seed, the epoch, the step and the row alone."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.p):
            return input
        return _drop(input, self.p, input.dim(), self.inplace)


class Dropout2d(nn.Dropout2d):
    """nn.Dropout2d: whole channels of (B, C, H, W) are dropped."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.p):
            return input
        return _drop(input, self.p, 2, self.inplace)


TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Linear,
    nn.Conv2d: Conv2d,
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.MaxPool2d: MaxPool2d,
    nn.AvgPool2d: AvgPool2d,
    nn.AdaptiveAvgPool2d: AdaptiveAvgPool2d,
    nn.Dropout: Dropout,
    nn.Dropout2d: Dropout2d,
}
# They sum nothing, so torch's own are exact.
EXACT_ALREADY = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh),
    *(nn.ZeroPad2d, nn.Flatten, nn.Unflatten, nn.Identity),
)
CONTAINERS = (
    *(nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *(nn.ParameterList, nn.ParameterDict),
)
INSTEAD = "use another module, or set train.exact to false"
WAYS_OUT = {  # by the name of a kind: what helps beside train.exact
    **dict.fromkeys(("Softmax", "LogSoftmax"), "leave it out, as the loss has it"),
    **dict.fromkeys(("GELU", "SiLU", "ELU", "Sigmoid", "Tanh", "Softplus", "Mish"), "use ReLU"),
    **dict.fromkeys(("LayerNorm", "GroupNorm", "InstanceNorm2d"), "use BatchNorm2d"),
    **dict.fromkeys(("AdaptiveMaxPool2d", "FractionalMaxPool2d"), "use MaxPool2d"),
}


def convert(model: nn.Module, add_up: stepping.AddUp | None = None) -> nn.Module:
    """Exchange each module that sums for its twin, as nn.SyncBatchNorm's conversion does.

    The model's own objects stay: only their class changes, their dtype becomes float64, and each
    parameter is snapped to the grid of weights.

    Args:
        model: of plain torch.nn. It is changed in place.
        add_up: replaces a tensor in place by its sum over all processes; BatchNorm calls it.

    Returns:
        The same model.

    Raises:
        NotExactError: a module or one of its options has no twin; names its path.
    """
    for path, module in model.named_modules():
        kind = type(module)
        where = f"{path or 'the model'} ({kind.__name__})"
        if kind in TWINS:
            if hasattr(module, "weight") and "weight" not in module._parameters:
                raise NotExactError(f"{where}: its weight is computed anew in each step; {INSTEAD}")
            module.__class__ = TWINS[kind]
            module.path = where
            option = getattr(module, "refusal", lambda: None)()
            if option:
                module.__class__ = kind
                raise NotExactError(f"{where}: {option} is not exact; {INSTEAD}")
            if isinstance(module, _BatchNorm):
                module.add_up = add_up
        elif kind in EXACT_ALREADY or kind in TWINS.values():
            continue
        elif not _is_own(kind):
            base = next(base for base in kind.__mro__ if base.__module__.startswith("torch."))
            what = "" if base is kind else f"a subclass of {base.__name__} "
            way_out = WAYS_OUT.get(kind.__name__, "use another module")
            raise NotExactError(
                f"{where}: {what}has no exact twin; {way_out}, or set train.exact to false"
            )
    for path, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise NotExactError(f"{path} is {parameter.dtype}, and not of real numbers; {INSTEAD}")
    model.double()
    _snap_weights(model)
    model.register_load_state_dict_post_hook(_snap_weights)  # what is loaded may be on no grid
    return model


@torch.no_grad()
def _snap_weights(model: nn.Module, *_: object) -> None:
    for path, parameter in model.named_parameters():
        largest = parameter.abs().max() if parameter.numel() else 0
        if largest > grids.WEIGHTS.largest:
            raise NotExactError(
                f"{path} has a weight of {largest:g}, and exact sums hold weights up to "
                f"{grids.WEIGHTS.largest:g}; {INSTEAD}"
            )
        grids.WEIGHTS.round_(parameter)


def _is_own(kind: type[nn.Module]) -> bool:
    """Say whether a class is a container or a user's, whose forward is seen."""
    bases = [base for base in kind.__mro__ if base.__module__.startswith("torch.")]
    return all(base in CONTAINERS for base in bases)
