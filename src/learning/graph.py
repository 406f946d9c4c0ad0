"""The graph of a model, so that the report's page can compute it without torch."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import _pair

Node = dict[str, Any]


class _NotDrawnError(Exception):
    """The page cannot compute this; the message says what."""


class _Tracer(torch.fx.Tracer):
    """Looks into modules of the user's, and not into those of torch."""


def graph(model: nn.Module, shape: tuple[int, int, int]) -> tuple[list[Node] | None, str]:
    """Return the nodes of a model's forward pass in evaluation, and why there are none.

    Args:
        model: of plain torch.nn, before `exact.convert`, as torch.fx would look into twins.
        shape: of an image.

    Returns:
        A list of {name, op, inputs, module, ...settings}, the last with the op "output"; or None
        and a sentence.
    """
    was_training = model.training
    model.eval()
    try:
        traced = _Tracer().trace(model)
        nodes = [_node(node, dict(model.named_modules())) for node in traced.nodes]
        return nodes, ""
    except _NotDrawnError as reason:
        return None, f"The page cannot compute {reason}."
    except Exception as error:  # a forward may do anything, and torch.fx says it in many ways
        return None, f"The model's forward cannot be followed: {' '.join(str(error).split())[:200]}"
    finally:
        model.train(was_training)


def _node(node: Any, modules: dict[str, nn.Module]) -> Node:
    inputs = [each.name for each in node.all_input_nodes]
    base = {"name": node.name, "inputs": inputs, "module": None}
    if node.op == "placeholder":
        return base | {"op": "input"}
    if node.op == "output":
        if len(inputs) != 1:
            raise _NotDrawnError("a model with several outputs")
        return base | {"op": "output"}
    if node.op == "call_module":
        return base | {"module": node.target} | _of_module(modules[node.target])
    if node.op in ("call_function", "call_method"):
        name = node.target if isinstance(node.target, str) else node.target.__name__
        return base | _of_function(name.strip("_"), node)
    raise _NotDrawnError(f"{node.op} {node.target}")


def _of_module(module: nn.Module) -> Node:  # noqa: C901  (a table)
    """Return op and settings of a module of torch.nn."""
    match module:
        case nn.Linear():
            return {"op": "linear"}
        case nn.Conv2d():
            padding = module.padding
            if module.padding_mode != "zeros" or padding == "same":
                raise _NotDrawnError("a convolution with such padding")
            return {
                "op": "conv2d",
                "stride": [*module.stride],
                "padding": [0, 0] if isinstance(padding, str) else [*padding],
                "dilation": [*module.dilation],
                "groups": module.groups,
            }
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return {"op": "batchnorm", "eps": module.eps}
        case nn.MaxPool2d() | nn.AvgPool2d():
            stride = module.kernel_size if module.stride is None else module.stride
            pool: Node = {
                "kernel": [*_pair(module.kernel_size)],
                "stride": [*_pair(stride)],
                "padding": [*_pair(module.padding)],
                "ceil": module.ceil_mode,
            }
            if isinstance(module, nn.MaxPool2d):
                return pool | {"op": "maxpool", "dilation": [*_pair(module.dilation)]}
            if module.divisor_override:
                raise _NotDrawnError("an average with divisor_override")
            return pool | {"op": "avgpool", "count_include_pad": module.count_include_pad}
        case nn.AdaptiveAvgPool2d():
            return {"op": "adaptiveavgpool", "size": [*_pair(module.output_size)]}
        case nn.ReLU():
            return {"op": "relu"}
        case nn.LeakyReLU():
            return {"op": "leaky_relu", "slope": module.negative_slope}
        case nn.Hardtanh():
            return {"op": "hardtanh", "low": module.min_val, "high": module.max_val}
        case nn.Flatten():
            return {"op": "flatten", "start": module.start_dim, "end": module.end_dim}
        case nn.Unflatten():
            return {"op": "unflatten", "dim": module.dim, "sizes": [*module.unflattened_size]}
        case nn.Dropout() | nn.Dropout2d():
            return {"op": "dropout"}
        case nn.Identity():
            return {"op": "identity"}
    raise _NotDrawnError(type(module).__name__)


def _of_function(name: str, node: Any) -> Node:  # noqa: C901  (a table)
    """Return op and settings of a function or a method, where all operands are tensors."""
    args, kwargs = node.args, node.kwargs
    if (
        name in ("add", "iadd", "sub", "mul")
        and all(isinstance(each, torch.fx.Node) for each in args)
        and not kwargs
    ):
        return {"op": name.removeprefix("i"), "inputs": [each.name for each in args]}
    if name == "relu":
        return {"op": "relu"}
    if name == "leaky_relu":
        slope = args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01)
        return {"op": "leaky_relu", "slope": slope}
    if name == "flatten":
        start = args[1] if len(args) > 1 else kwargs.get("start_dim", 0)
        end = args[2] if len(args) > 2 else kwargs.get("end_dim", -1)
        return {"op": "flatten", "start": start, "end": end}
    if name in ("view", "reshape"):
        sizes = args[1] if isinstance(args[1], tuple | list) else args[1:]
        if all(isinstance(size, int) for size in sizes):
            return {"op": "reshape", "sizes": [*sizes]}
    if name == "cat":
        parts = [each.name for each in args[0]]  # one may come twice
        return {
            "op": "cat",
            "inputs": parts,
            "dim": args[1] if len(args) > 1 else kwargs.get("dim", 0),
        }
    if name == "pad":
        padding = args[1] if len(args) > 1 else kwargs.get("pad")
        value = kwargs.get("value") or 0
        if len(args) <= 2 and kwargs.get("mode", "constant") == "constant" and math.isfinite(value):
            return {"op": "pad", "pad": [*padding], "value": value}
    if name in ("max_pool2d", "avg_pool2d", "dropout"):
        if name == "dropout":
            return {"op": "dropout"}
        kernel = args[1] if len(args) > 1 else kwargs["kernel_size"]
        stride = args[2] if len(args) > 2 else kwargs.get("stride")
        # torch.fx gives max_pool2d all its keywords, most of them with their defaults.
        usual = {"padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
        others = {k: v for k, v in kwargs.items() if k not in ("kernel_size", "stride")}
        if len(args) <= 3 and all(usual.get(k, ...) == v for k, v in others.items()):
            pool: Node = {"kernel": [*_pair(kernel)], "stride": [*_pair(stride or kernel)]}
            pool |= {"padding": [0, 0], "ceil": False}
            if name == "max_pool2d":
                return pool | {"op": "maxpool", "dilation": [1, 1]}
            return pool | {"op": "avgpool", "count_include_pad": True}
    raise _NotDrawnError(f"{name} in a forward")
