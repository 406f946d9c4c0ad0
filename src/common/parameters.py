"""Sections of params.yaml: how one is read, and the types that several have.

A section is a class beside the stage that it belongs to, so that a new parameter re-runs that stage
alone. `read("fetch", Fetch)` reads the section `fetch`.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import Field

from src.common import files
from src.common.command import UsageError

PATH = "params.yaml"


class ParameterError(UsageError):
    """A parameter, section.key, has a value that is not allowed."""

    def __init__(self, key: str, allowed: object, given: object) -> None:
        # As YAML writes it: null, true and false.
        shown = json.dumps(given) if given is None or isinstance(given, bool) else repr(given)
        super().__init__(f"{key}: {allowed} (given: {shown})")


def one_of(table: Collection[str]) -> Any:
    """The limits of a parameter that names an entry of a table."""

    def known(name: str) -> str:
        if name not in table:
            raise ValueError(f"must be one of {', '.join(table)}")
        return name

    return pydantic.AfterValidator(known)


def integer(low: int, high: int) -> Any:
    """The limits of an integer parameter."""
    return Field(ge=low, le=high, description=f"an integer from {low} to {high}")


# A field's description is what is printed of a value that is not allowed; params.yaml has it too.
Number = Annotated[float, Field(allow_inf_nan=False)]
Dataset = Annotated[
    str, Field(pattern=r"^[\w.()-]+$", description="a name of letters, digits and any of _.()-")
]
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


class Machine(Section):
    """How to compute, not what: no stage depends on it."""

    device: Device
    threads: Threads
    processes: Annotated[int, integer(1, 1024)]
    checkpoint_seconds: Annotated[
        Number, Field(gt=0, le=86400, description="a number above 0, up to 86400")
    ]


S = TypeVar("S", bound=Section)


def read(name: str, section: type[S]) -> S:
    """Read and check the section of that name of params.yaml in the present folder.

    Raises:
        UsageError: a line for each fault.
        OSError: the file is missing or may not be read.
    """
    try:
        values = files.parse_yaml(Path(PATH).read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"{PATH} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of the YAML, or of bytes that are no UTF-8
        raise UsageError(f"{PATH} is not YAML: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get(name), dict):
        raise UsageError(f"{PATH} has no section '{name}'")
    try:
        return section.model_validate(values[name])
    except pydantic.ValidationError as error:
        faults = (_line(section, name, fault) for fault in error.errors())
        raise UsageError("\n".join(faults)) from error


def machine() -> Machine:
    """Read the section `machine`, where MACHINE_DEVICE, MACHINE_THREADS and so on replace a key.

    Raises:
        UsageError: a line for each fault, which names the key or the variable.
        OSError: params.yaml is missing or may not be read.
    """
    settings, faults = read("machine", Machine), []
    for key, field in Machine.model_fields.items():
        variable = f"MACHINE_{key.upper()}"
        if variable in os.environ:
            text = os.environ[variable]
            try:
                settings = Machine.model_validate(dict(settings) | {key: files.parse_yaml(text)})
            except ValueError:  # of the YAML, or pydantic's
                faults.append(ParameterError(variable, f"must be {field.description}", text))
    if faults:
        raise UsageError("\n".join(map(str, faults)))
    return settings


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
    return str(ParameterError(key, allowed, fault["input"]))
