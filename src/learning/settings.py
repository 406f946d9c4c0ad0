"""The settings of a training: the section `train` of params.yaml."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from src import exact
from src.common.parameters import Count, Number, Section, Switch, integer, one_of
from src.learning import models

# Each is called with src.exact or torch.optim, groups of parameters, and the settings of `train`.
OPTIMIZERS: dict[str, Callable[[Any, list[dict[str, Any]], Any], Any]] = {
    "sgd": lambda library, groups, settings: library.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum
    ),
    "adamw": lambda library, groups, settings: library.AdamW(
        groups, lr=settings.learning_rate, weight_decay=0.0
    ),
}


class Train(Section):
    """Which model, and how it is trained."""

    model: Annotated[
        str, one_of(models.MODELS), Field(description="a name in src/learning/models.py")
    ]
    exact: Switch
    seed: Annotated[int, integer(0, 2**63 - 1)]
    init: Annotated[
        Literal["default", "normal", "zeros"], Field(description="default, normal or zeros")
    ]
    epochs: Annotated[int, integer(1, 10_000)]
    batch_size: Count
    optimizer: Annotated[
        str, one_of(OPTIMIZERS), Field(description="a name in src/learning/settings.py")
    ]
    learning_rate: Annotated[Number, Field(gt=0, description="a finite number above 0")]
    momentum: Annotated[Number, Field(ge=0, lt=1, description="a number from 0, below 1")]
    weight_decay: Annotated[Number, Field(ge=0, description="a finite number from 0")]
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], Field(description="constant, linear or cosine")
    ]
    warmup_epochs: Annotated[int, integer(0, 10_000)]
    shuffle: Switch
    shift: Annotated[int, integer(0, 1000)]
    drop_last: Switch
    keep: Annotated[Literal["last", "best"], Field(description="last or best")]
    patience: Annotated[int, integer(0, 10_000)]

    @model_validator(mode="after")
    def _together(self) -> "Train":
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError(f"momentum belongs to sgd; with {self.optimizer} it must be 0")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ValueError("warmup_epochs must be fewer than epochs")
        return self

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of an epoch, counted from 1."""
        taken, warmup = (epoch - 1) * steps + step, self.warmup_epochs * steps
        if taken < warmup:
            return self.learning_rate * ((taken + 1) / warmup)
        taken, total = taken - warmup, self.epochs * steps - warmup
        if self.schedule == "linear":
            return self.learning_rate * ((total - taken) / total)
        if self.schedule == "cosine":
            return self.learning_rate * exact.cosine(taken, total)
        return self.learning_rate
