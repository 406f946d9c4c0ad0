"""`watch`: look at every operation in a block, and name what is not exact."""

import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from src.exact import grids, stepping

# Operations that IEEE 754 rounds correctly, each a kernel of its own.
ROUNDED = {
    *("add", "sub", "mul", "div", "neg", "abs", "sign", "relu", "leaky_relu", "hardtanh", "clamp"),
    *("clamp_min", "clamp_max", "maximum", "minimum", "max", "min", "amax", "amin", "where"),
    *("threshold_backward", "leaky_relu_backward", "hardtanh_backward", "round", "floor", "ceil"),
    *("reciprocal", "eq", "ne", "lt", "le", "gt", "ge", "argmax", "isnan", "bitwise_and", "rsub"),
    *("bitwise_or", "bitwise_not", "logical_and", "logical_not", "any", "all", "is_nonzero"),
}
# They do no arithmetic, or add to a place once.
MOVED = {
    *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "expand_as"),
    *("slice", "select", "narrow", "unsqueeze", "squeeze", "detach", "alias", "clone", "copy"),
    *("cat", "stack", "split", "split_with_sizes", "unbind", "unfold", "as_strided", "flip"),
    *("empty", "empty_like", "empty_strided", "zeros", "zeros_like", "ones", "ones_like", "full"),
    *("full_like", "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
    *("zero", "fill", "_to_copy", "lift_fresh", "scalar_tensor", "arange", "index", "gather"),
    *("constant_pad_nd", "slice_backward", "select_backward", "_reshape_alias", "contiguous"),
    *("max_pool2d_with_indices", "max_pool2d_with_indices_backward", "_local_scalar_dense"),
    *("index_select", "roll", "repeat", "item", "pixel_shuffle", "channel_shuffle", "chunk"),
    *("broadcast", "allreduce", "wait_tensor", "record_stream", "_foreach_zero"),
}
SAFE = ROUNDED | MOVED
# What to write instead.
INSTEAD = {
    "bernoulli": "use the module nn.Dropout instead of functional.dropout",
    "native_dropout": "use the module nn.Dropout instead of functional.dropout",
    "_log_softmax": "return the logits, as the loss has the softmax already",
    "_softmax": "return the logits, as the loss has the softmax already",
    "mean": "use the modules nn.AdaptiveAvgPool2d(1) and nn.Flatten instead",
    "avg_pool2d": "use the module nn.AvgPool2d instead",
    "_adaptive_avg_pool2d": "use the module nn.AdaptiveAvgPool2d instead",
    "linear": "use the module nn.Linear instead",
    "addmm": "use the module nn.Linear instead",
    "convolution": "use the module nn.Conv2d instead",
}
POWERS_ONLY = {"div"}  # a GPU divides by a number by multiplying with its rounded reciprocal


class watch(TorchDispatchMode):  # noqa: N801  (a context, as torch's modes are)
    """Raise an error for an operation that is not exact, in forward, backward and optimizer.

    A mode sees what torch is asked for. It does not see NumPy, `math`, or a branch of a forward
    that is taken later.

    Raises:
        NotExactError: names the operation, and the line of the user's code or the module. (A
            TypeError would be swallowed by Python's operators.)
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if stepping.is_inside_a_twin() or func.namespace in ("profiler", "prim"):
            return result
        name = func.overloadpacket.__name__
        if func.namespace not in ("aten", "c10d"):
            raise grids.NotExactError(_message(f"{func.namespace}::{name}"))
        plain = name.rstrip("_")
        if plain not in SAFE:
            raise grids.NotExactError(_message(f"aten::{name}", INSTEAD.get(plain, "")))
        names = (argument.name for argument in func._schema.arguments)
        named = dict(zip(names, args, strict=False)) | kwargs
        if named.get("alpha", 1) != 1:
            raise grids.NotExactError(_message(f"aten::{name} with alpha"))
        if plain in POWERS_ONLY and _is_number(args[1]) and not _is_power(float(args[1])):
            raise grids.NotExactError(
                _message(f"aten::{name} by {args[1]}", "multiply by the reciprocal instead")
            )
        if plain == "max_pool2d_with_indices" and _overlaps(args[1:]):
            raise grids.NotExactError(
                _message("aten::max_pool2d with overlap", "use the module nn.MaxPool2d instead")
            )
        if plain == "add" and torch._C._current_graph_task_id() != -1:
            _check_sum(args)
        return result


def _overlaps(given: Any) -> bool:
    """Say so of max_pool2d's arguments from the kernel on: stride, padding, dilation."""
    kernel, stride, _, dilation = [*given, *[[]] * 4][:4]
    stride = stride or kernel
    reach = [k * d for k, d in zip([*kernel] * 2, [*dilation] * 2 or [1] * 4, strict=False)]
    return any(s < r for r, s in zip(reach, [*stride] * 2, strict=False))


def _is_number(value: Any) -> bool:
    """Say whether a GPU would take it for a number: a scalar tensor of the CPU is one to it."""
    if isinstance(value, torch.Tensor):
        return value.dim() == 0 and value.device.type == "cpu"
    return isinstance(value, int | float)


def _is_power(number: float) -> bool:
    return number != 0 and float(number).hex().split("p")[0].lstrip("-") == "0x1.0000000000000"


def _check_sum(args: Any) -> None:
    """Check that an addition in the backward pass does not round: its order is the engine's.

    The error of a + b is known exactly (Knuth's two-sum).
    """
    a, b = args[0], args[1]
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.is_floating_point()):
        return
    total = a + b
    part = total - a
    rounded = (a - (total - part)) + (b - part)
    if (rounded.nan_to_num() != 0).any():  # a NaN is no matter of order: training diverges
        raise grids.NotExactError(
            _message(
                "an addition in the backward pass",
                "put a module that has an exact twin behind it",
                "branches meet there whose errors are on no grid, maybe behind a LeakyReLU",
            )
        )


def _message(what: str, way_out: str = "", where: str = "") -> str:
    """Say where an operation comes from, and what to do."""
    way_out = way_out or "use a module that has an exact twin"
    way_out = f"{way_out}, or set train.exact to false"
    if where:
        return f"{what} is not exact: {where}; {way_out}"
    where = "in the backward pass"
    for frame in reversed(traceback.extract_stack()[:-2]):
        path = frame.filename.replace("\\", "/")
        if "/torch/" in path or "/exact/" in path:
            continue
        where = f"it comes from `{frame.line}` ({path.rpartition('/')[2]}, line {frame.lineno})"
        break
    if torch._C._current_graph_task_id() != -1:
        where = "it comes from the backward pass, of something that the forward broadcasts or sums"
    return f"{what} is not exact: {where}; {way_out}"
