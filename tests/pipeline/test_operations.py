"""What runs inside a step is held to the operations that src/exact/README.md allows.

One test reads the source, with the branches that no test takes (CUDA's); the other looks at each
operation that torch is asked for. Both name the line that breaks the list, and the operation.
"""

import ast
import math
import sys
from types import FrameType
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from src.learning import models, training
from src.learning.group import Alone
from src.learning.training import Train
from tests.support.clones import REPOSITORY

# Rounded correctly, or exact; the sums exact because their operands are on grids.
COMPUTE = """
    abs add all_reduce argmax clamp div eq frexp gather gt le lt max mm mul neg round roll rsub
    scatter_add sub sum take where
"""
# Move, make or convert values without a change of any that is a float64.
MOVE = """
    arange cat clone contiguous copy dim double empty_like flatten from_numpy get getitem len bool
    long new_empty new_full new_ones new_tensor new_zeros numel permute reshape setitem split stack
    t tensor to tolist unbind unfold view view_as zero zeros zeros_like
"""
ALLOWED = set(f"{COMPUTE} {MOVE}".split())
# Whose names a source may call as well: Python's, NumPy's whole numbers, CUDA's and our own.
OTHER = """
    Alone Batch CUDAGraph Decimal Grid OSError Score Stream ValueError add_up append average
    backward buffer build captured ceil check_batch check_sum collective current_stream
    default_rng differentiate enumerate exponentials float forward getppid graph integers isqrt
    ln min multiply multiply_back overlap permutation prod range rate refusal replay round_
    run_epoch set_shapes setdefault share shapes shifted side_of short_exponentials slice snap
    snap_ str stream super together type wait_stream zip
    exact.log exact.log_probabilities exact.softmax log math.sqrt self.log_probabilities softmax
"""
OTHERS = set(OTHER.split())
# The functions that run in a step or look at its results; None: all of the file's.
STEP: dict[str, set[str] | None] = {
    "src/exact/functions.py": {"exponentials", "softmax", "log", "log_probabilities"},
    "src/exact/grids.py": {"round_", "snap_"},
    "src/learning/group.py": {"share", "add_up", "together"},
    "src/learning/layers.py": None,
    "src/learning/models.py": {"snap", "forward", "backward", "log_probabilities"},
    "src/learning/scores.py": {"average", "score"},
    "src/learning/training.py": {"train", "shifted", "captured"},
}


def forbidden(node: ast.AST) -> str | None:
    """Return the operation of a syntax node that the list does not have, or None."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return ast.unparse(node)
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    _, dot, name = called.rpartition(".")
    if any(keyword.arg in ("alpha", "beta", "value") for keyword in node.keywords):
        return ast.unparse(node)
    is_known = name.strip("_") in ALLOWED or called in OTHERS or (dot and name in OTHERS)
    is_torchs = dot and name in ("log", "log_probabilities", "softmax", "sqrt")
    return None if is_known and not (is_torchs and called not in OTHERS) else called


def test_the_source_of_a_step_calls_nothing_but_what_is_allowed() -> None:
    faults = []
    for path, names in STEP.items():
        tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert (names or set()) <= {function.name for function in functions}
        for function in functions:
            if names is None or function.name in names:
                for node in ast.walk(function):
                    if operation := forbidden(node):
                        faults.append(f"{path}:{getattr(node, 'lineno', 0)}: {operation}")
    assert not faults, f"not among the operations that src/exact/README.md allows: {faults}"


class Watch(TorchFunctionMode):
    """Notes each operation that is not allowed, with the line of src that asks for it."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.seen: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.strip("_")
        self.seen.add(name)
        if reason := self.reason(name, args, kwargs or {}, result):
            frame: FrameType | None = sys._getframe()
            while frame and "/src/" not in frame.f_code.co_filename:
                frame = frame.f_back
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "outside"
            self.faults.add(f"{place.removeprefix(f'{REPOSITORY}/')}: {name} {reason}")
        return result

    @staticmethod
    def reason(name: str, args: Any, kwargs: Any, result: Any) -> str | None:
        """Say why an operation is not allowed."""
        if name not in ALLOWED:
            return "is not on the list"
        if kwargs.keys() & {"alpha", "beta", "value"}:
            return "multiplies and adds at once"
        if name == "div" and not isinstance(args[1], torch.Tensor):
            # CUDA multiplies by the reciprocal, which only a power of two has exactly.
            return None if math.frexp(args[1])[0] == 0.5 else f"by {args[1]}, no power of two"
        is_float = isinstance(result, torch.Tensor) and result.is_floating_point()
        if is_float and result.dtype != torch.float64 and name in COMPUTE.split():
            return f"in {result.dtype}"  # a whole number times a float is a float32
        return None


@pytest.mark.parametrize("name", models.MODELS)
def test_torch_is_asked_for_nothing_but_what_is_allowed(name: str) -> None:
    recipe = {"device": "cpu", "threads": 1, "model": name, "seed": 1, "init": "uniform"}
    recipe |= {"epochs": 2, "batch_size": 3, "learning_rate": 0.1, "momentum": 0.9}
    recipe |= {"decay": "linear", "shuffle": True, "shift": 2, "drop_last": False}
    images = torch.randint(256, (7, 169), generator=torch.Generator().manual_seed(0)) / 256
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    model = models.build(name, 169, 4, torch.device("cpu"))
    model.initialize("uniform", 0)
    with Watch() as watch:
        list(training.train(model, images, labels, Train(**recipe), Alone()))
        model.log_probabilities(images)
    assert not watch.faults, f"not allowed by src/exact/README.md: {sorted(watch.faults)}"
    assert watch.seen >= {"mm", "sum", "take", "round", "div", "add", "sub", "mul", "frexp"}
