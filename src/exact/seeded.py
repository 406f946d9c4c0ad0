"""`seeded`: whatever torch draws in the block takes its numbers from NumPy.

torch's own generators draw other numbers on another vector width or device.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import grids
from .watch import SAFE, counts_in_whole_numbers

# A start may also ask for these, which do no arithmetic. What is in neither set sums or decomposes,
# as the QR of `orthogonal_`, or belongs to the C library, as `sin`.
ALLOWED = SAFE | {"eye", "tril", "triu", "set", "is_same_size", "diagonal", "set_data"}


class seeded(TorchDispatchMode):  # noqa: N801  (a context, named like torch's manual_seed)
    """Draw from NumPy's generator of a seed: the same start on every machine.

    `uniform_(a, b)` draws whole steps of 2^-18 in [a, b], so that nothing is rounded; `normal_`
    draws standard normal numbers by NumPy and scales them. A `generator` that is given to a draw is
    not asked.

    Raises:
        NotExactError: in the block, an operation is not exact, or draws in a way that is not known
            here; names it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = np.random.default_rng(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        draws = torch.Tag.nondeterministic_seeded in func.tags
        if name == "erfinv_":  # of trunc_normal_: in float64, whose last bits a float32 drops
            return args[0].copy_(func(args[0].double()))
        is_allowed = name.rstrip("_") in ALLOWED or counts_in_whole_numbers(name, args)
        if not draws and not is_allowed:
            raise grids.NotExactError(
                f"aten::{name} is not exact, so a model cannot start from it; use another "
                "initialisation (nn.init), or set train.exact to false"
            )
        if not draws:
            return func(*args, **kwargs)
        draw = DRAWS.get(name.rstrip("_"))
        if draw is None:
            raise grids.NotExactError(
                f"aten::{name} draws in a way that NumPy cannot; use another initialisation "
                "(nn.init), or set train.exact to false"
            )
        kwargs.pop("generator", None)
        return draw(self.generator, func, name, args, kwargs)


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _filled(generator: np.random.Generator, like: torch.Tensor, draw: Draw) -> torch.Tensor:
    drawn = np.asarray(draw(generator, tuple(like.shape)))
    return like.copy_(torch.from_numpy(drawn.reshape(tuple(like.shape))))


def _made(args: tuple[Any, ...], kwargs: Any, name: str) -> torch.Tensor:
    """Make the tensor that a factory or a `_like` function was asked for."""
    kept = {k: v for k, v in kwargs.items() if k in ("dtype", "layout", "device", "pin_memory")}
    if name.endswith("_like"):
        return torch.empty_like(args[0], **kept)
    return torch.empty(args[0], **kept)


def _in_place_or_new(draw: Callable[..., Draw]) -> Callable[..., torch.Tensor]:
    """Serve `uniform_` and its kind, which fill a tensor, and give their out-of-place forms too."""

    def fill(generator: Any, func: Any, name: str, args: Any, kwargs: Any) -> torch.Tensor:
        if not isinstance(args[0], torch.Tensor):
            raise grids.NotExactError(
                f"aten::{name} of numbers draws in a way that is not known here; use randn"
            )
        target = args[0] if name.endswith("_") else torch.empty_like(args[0])
        names = [argument.name for argument in func._schema.arguments]
        named = dict(zip(names, args, strict=False)) | kwargs
        return _filled(generator, target, draw(named))

    return fill


def _uniform(named: dict[str, Any]) -> Draw:
    low, high, step = named.get("from", 0.0), named.get("to", 1.0), grids.WEIGHTS.step
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    if first > last:
        raise grids.NotExactError(f"uniform_({low}, {high}) is narrower than a step of 2^-18")
    return lambda generator, shape: generator.integers(first, last + 1, shape) * step


def _normal(named: dict[str, Any]) -> Draw:
    mean, std = named.get("mean", 0.0), named.get("std", 1.0)
    return lambda generator, shape: generator.standard_normal(shape) * std + mean


def _bernoulli(named: dict[str, Any]) -> Draw:
    share = named.get("p", named["self"])  # a number, or a tensor of probabilities
    return lambda generator, shape: generator.random(shape) < np.asarray(share)


def _factory(draw: Draw) -> Callable[..., torch.Tensor]:
    return lambda generator, func, name, args, kwargs: _filled(
        generator, _made(args, kwargs, name), draw
    )


def _integers(generator: Any, func: Any, name: str, args: Any, kwargs: Any) -> torch.Tensor:
    """randint(high, size), randint(low, high, size), and their `_like` forms."""
    is_like = name.endswith("_like")
    limits = args[1:] if is_like else args[:-1]
    low, high = limits if len(limits) == 2 else (0, limits[0])
    if not is_like:
        kwargs.setdefault("dtype", torch.int64)
    made = _made(args[:1] if is_like else args[-1:], kwargs, name)
    return _filled(generator, made, lambda g, shape: g.integers(low, high, shape))


def _permutation(generator: Any, func: Any, name: str, args: Any, kwargs: Any) -> torch.Tensor:
    drawn = torch.from_numpy(generator.permutation(args[0]))
    return drawn.to(kwargs.get("dtype") or torch.int64)


DRAWS: dict[str, Callable[..., torch.Tensor]] = {
    "uniform": _in_place_or_new(_uniform),
    "normal": _in_place_or_new(_normal),
    "bernoulli": _in_place_or_new(_bernoulli),
    "rand": _factory(lambda generator, shape: generator.integers(0, 2**24, shape) / 2**24),
    "rand_like": _factory(lambda generator, shape: generator.integers(0, 2**24, shape) / 2**24),
    "randn": _factory(lambda generator, shape: generator.standard_normal(shape)),
    "randn_like": _factory(lambda generator, shape: generator.standard_normal(shape)),
    "randint": _integers,
    "randint_like": _integers,
    "randperm": _permutation,
}
