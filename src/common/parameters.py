"""Sections of params.yaml: how one is read, and the types that several have.

A section is a class beside the stage that it belongs to, so that a new parameter re-runs that stage
alone. `read(Fetch)` reads the section `fetch`.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import yaml
from pydantic import BeforeValidator, Field

from src.common.command import UsageError

PATH = "params.yaml"


class ParameterError(UsageError):
    """A parameter, section.key, what is allowed, and what was given."""

    def __init__(self, key: str, allowed: object, given: object) -> None:
        super().__init__(f"{key}: {allowed} (given: {given!r})")


refusal = ParameterError  # its old name


def _number(value: Any) -> Any:
    """Turn text like 1e-2 into the number that it is to DVC; PyYAML reads YAML 1.1."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def integer(low: int, high: int) -> Any:
    """The limits of an integer parameter."""
    return Field(ge=low, le=high, description=f"an integer from {low} to {high}")


# A field's description is what is printed of a value that is not allowed; params.yaml has it too.
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Dataset = Annotated[
    str, Field(pattern=r"^[\w.()-]+$", description="a name of letters, digits and any of _.()-")
]
whole = integer  # its old name
Switch = Annotated[bool, Field(description="true or false")]
Count = Annotated[int, integer(1, 1_000_000_000)]
Threads = Annotated[int, integer(1, 1024)]
Device = Annotated[
    str,
    Field(  # of mps, `device.choose` says why not
        pattern=r"^(cpu|cuda(:\d+)?|mps|auto)$",
        description="cpu, cuda, cuda:N, or auto for a GPU if there is one",
    ),
]


class Section(pydantic.BaseModel):
    """A section of params.yaml: exactly these keys, of exactly these types."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


S = TypeVar("S", bound=Section)


def read(section_or_name: Any, section: type[S] | None = None) -> S:
    """Read and check a section of params.yaml in the present folder.

    Raises:
        UsageError: a line for each fault.
        OSError: the file is missing or may not be read.
    """
    section = section or section_or_name
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
    own = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else ""  # a validator's
    if not fault["loc"]:
        return f"{key}: {own}"
    if fault["loc"][0] not in fields:  # or no text, as YAML reads `on: 1` and `3: 1`
        allowed = f"no such parameter; there are {', '.join(fields)}"
    else:
        allowed = own or f"must be {fields[fault['loc'][0]].description}"
    if fault["type"] == "missing":
        return f"{key}: missing; {allowed}"
    return str(refusal(key, allowed, fault["input"]))
