"""`watch`: look at every operation in a block, and name what is not exact."""

import contextlib
import os
import re
import traceback
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import grids, stepping

# Operations that IEEE 754 rounds correctly, each a kernel of its own.
ROUNDED = {
    *("add", "sub", "mul", "div", "neg", "abs", "sign", "relu", "leaky_relu", "hardtanh", "clamp"),
    *("clamp_min", "clamp_max", "maximum", "minimum", "max", "min", "amax", "amin", "where"),
    *("threshold_backward", "leaky_relu_backward", "hardtanh_backward", "round", "floor", "ceil"),
    *("reciprocal", "eq", "ne", "lt", "le", "gt", "ge", "argmax", "isnan", "bitwise_and", "rsub"),
    *("bitwise_or", "bitwise_not", "logical_and", "logical_not", "any", "all", "is_nonzero"),
}
# They do no arithmetic; where they add, it is one number to a zero.
MOVED = {
    *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "expand_as"),
    *("slice", "select", "narrow", "unsqueeze", "squeeze", "detach", "alias", "clone", "copy"),
    *("cat", "stack", "split", "split_with_sizes", "unbind", "unfold", "as_strided", "flip"),
    *("empty", "empty_like", "empty_strided", "zeros", "zeros_like", "ones", "ones_like", "full"),
    *("full_like", "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"),
    *("zero", "fill", "_to_copy", "lift_fresh", "scalar_tensor", "index", "gather"),
    *("constant_pad_nd", "slice_backward", "select_backward", "_reshape_alias", "contiguous"),
    *("max_pool2d_with_indices", "max_pool2d_with_indices_backward", "_local_scalar_dense"),
    *("index_select", "roll", "repeat", "item", "pixel_shuffle", "channel_shuffle", "chunk"),
    *("broadcast", "allreduce", "wait_tensor", "record_stream", "_foreach_zero"),
}
SAFE = ROUNDED | MOVED
NOT_USERS = tuple(os.path.dirname(path) + os.sep for path in (__file__, torch.__file__))
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
    "arange": "multiply an arange of whole numbers by the step instead",
}


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
        if not stepping.is_inside_a_twin() and func.namespace not in ("profiler", "prim"):
            _check(func, args, kwargs)
        return func(*args, **kwargs)

    def __enter__(self) -> "watch":
        """Begin to look; torch notes which line of a forward a part of the backward is of."""
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(stepping.watched())
        self.stack.enter_context(warnings.catch_warnings())
        # Beside our error, torch would print where in the forward it came from.
        warnings.filterwarnings("ignore", "Error detected in")
        self.stack.enter_context(torch.autograd.set_detect_anomaly(True, check_nan=False))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End it."""
        super().__exit__(*error)
        self.stack.close()


def counts_in_whole_numbers(name: str, args: tuple[Any, ...]) -> bool:
    """Say whether an operation is an arange of whole numbers.

    Another one rounds each of its numbers once or twice, as the processor's vectors have it.
    """
    return name == "arange" and all(float(value).is_integer() for value in args)


def _check(func: Any, args: tuple[Any, ...], kwargs: Any) -> None:
    """Raise an error if an operation is not exact with these arguments."""
    name = func.overloadpacket.__name__
    if func.namespace not in ("aten", "c10d"):
        raise grids.NotExactError(_message(f"{func.namespace}::{name}"))
    plain = name.rstrip("_")
    if plain not in SAFE and not counts_in_whole_numbers(plain, args):
        raise grids.NotExactError(_message(f"aten::{name}", INSTEAD.get(plain, "")))
    names = (argument.name for argument in func._schema.arguments)
    named = dict(zip(names, args, strict=False)) | kwargs
    if named.get("alpha", 1) != 1:
        raise grids.NotExactError(_message(f"aten::{name} with alpha"))
    # A GPU divides by a number by multiplying with its rounded reciprocal.
    if plain == "div" and _is_number(args[1]) and not _is_power(float(args[1])):
        raise grids.NotExactError(
            _message(f"aten::{name} by {args[1]}", "multiply by the reciprocal instead")
        )
    if plain == "max_pool2d_with_indices" and _overlaps(args[1:]):
        raise grids.NotExactError(
            _message("aten::max_pool2d with overlap", "use the module nn.MaxPool2d instead")
        )
    if plain == "add" and torch._C._current_graph_task_id() != -1:
        _check_sum(args)


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
    way_out = way_out or "write it with modules that have an exact twin"
    way_out = f"{way_out}, or set train.exact to false"
    if where:
        return f"{what} is not exact: {where}; {way_out}"
    if torch._C._current_graph_task_id() != -1:
        metadata: Any = torch._C._current_autograd_node().metadata
        line = _line_of_user(_frames(metadata.get("traceback_", ())))
        return f"{what} is not exact: it comes from the backward pass of {line}; {way_out}"
    stack = [(frame.filename, frame.lineno, frame.line) for frame in traceback.extract_stack()[:-2]]
    return f"{what} is not exact: it comes from {_line_of_user(stack)}; {way_out}"


def _frames(texts: Iterable[str]) -> list[tuple[str, int | None, str | None]]:
    """Return file, line and code of each frame of a stack that torch kept as text."""
    found = re.findall(r'File "(.+)", line (\d+), in .*\n\s*(.*)', "".join(texts))
    return [(path, int(line), code) for path, line, code in found]


def _line_of_user(stack: list[tuple[str, int | None, str | None]]) -> str:
    """Return the innermost line that is neither torch's nor this package's."""
    for path, line, code in reversed(stack):
        if not path.startswith(NOT_USERS):
            return f"`{code}` ({os.path.basename(path)}, line {line})"
    return "torch itself"
