"""What a step of training knows: its place, which rows of the batch are here, and who sums."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

AddUp = Callable[..., object]  # replaces a tensor, in place, by its sum over all processes


@dataclass
class Step:
    """A step, as `step` describes it, and what has happened in it so far.

    Attributes:
        products: how many products a row adds to the gradient of a weight, by the weight's id.
        draws: how often numbers were drawn.
    """

    seed: int
    epoch: int
    number: int
    rows: slice
    batch: int
    products: dict[int, int] = field(default_factory=dict)
    draws: int = 0

    def generator(self) -> np.random.Generator:
        """Return the generator of the next draw: one draw is one call, whichever rows are here."""
        self.draws += 1
        return np.random.default_rng([self.seed, self.epoch, self.number, self.draws])


class _Here(threading.local):
    """What happens in this thread; others may train models of their own."""

    step: Step | None = None
    twins: int = 0
    watches: int = 0


_here = _Here()


def current() -> Step | None:
    """Return the step that is being taken, or None."""
    return _here.step


@contextlib.contextmanager
def step(*, seed: int, epoch: int, step: int, rows: slice, batch: int) -> Iterator[Step]:
    """Say which step of training the block takes.

    Modules that draw (Dropout) draw for the whole batch and take their rows. Modules that sum know
    over how many rows the whole batch does.

    Args:
        seed: of the training.
        epoch: its number.
        step: the number of the step in the epoch.
        rows: which rows of the batch the block computes on; the others are another process's, or
            come in another share.
        batch: how many rows the whole batch has.
    """
    before, now = _here.step, Step(seed, epoch, step, rows, batch)
    _here.step = now
    try:
        yield now
    finally:
        _here.step = before


@contextlib.contextmanager
def _inside(what: str) -> Iterator[None]:
    """Count in `_here`, in the attribute of that name, how many such blocks are open."""
    setattr(_here, what, getattr(_here, what) + 1)
    try:
        yield
    finally:
        setattr(_here, what, getattr(_here, what) - 1)


def twin() -> contextlib.AbstractContextManager[None]:
    """Tell `watch` that the block is a twin's own arithmetic, which keeps to the grids."""
    return _inside("twins")


def is_inside_a_twin() -> bool:
    """Say whether a twin is computing."""
    return _here.twins > 0


def watched() -> contextlib.AbstractContextManager[None]:
    """Tell the twins that `watch` looks at the block, so that they look at values too."""
    return _inside("watches")


def is_watched() -> bool:
    """Say whether `watch` looks."""
    return _here.watches > 0
