"""Exact training in ordinary PyTorch: the same bits on every machine.

Only sums depend on an order, so only what sums is replaced here. README.md beside this file says
how and why. Nothing in this package imports anything else of the project.

    with exact.seeded(seed):
        model = MyNet()
    model = exact.convert(model)
    criterion, optimizer = exact.CrossEntropyLoss(), exact.SGD(model.parameters(), lr=0.1)
    for number, (x, y) in enumerate(batches):
        with exact.step(seed=seed, epoch=1, step=number, rows=slice(0, len(y)), batch=len(y)):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step(len(y))
"""

from .functions import cosine
from .grids import NotExactError, TooManyRowsError
from .loss import CrossEntropyLoss, log_softmax, losses
from .modules import (
    TWINS,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Dropout2d,
    Linear,
    MaxPool2d,
    convert,
)
from .optim import SGD, AdamW, Optimizer
from .seeded import seeded
from .stepping import step
from .watch import watch

__all__ = [
    "SGD",
    "TWINS",
    "AdamW",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout2d",
    "Linear",
    "MaxPool2d",
    "NotExactError",
    "Optimizer",
    "TooManyRowsError",
    "convert",
    "cosine",
    "log_softmax",
    "losses",
    "seeded",
    "step",
    "watch",
]
