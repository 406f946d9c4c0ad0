"""Writing and reading files so that nothing is lost and every failure says what and where."""

import csv
import io
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

# What readers raise of bytes in another form. Anything else is a mistake in the code: a traceback.
FORM = (ValueError, KeyError, RecursionError, csv.Error)
# Digits of a result after the point: float64's noise of about 1e-16 does not show, differences do.
DECIMALS = 6


@contextmanager
def replacing(path: str) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it when the block has ended well.

    Raises:
        OSError: names the path; what stood there before still stands.
    """
    part = Path(f"{path}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it is there only if something failed
            part.unlink()


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Say of whatever goes wrong in the block what is wrong with the file, and what to do.

    Raises:
        OSError: the file is missing, may not be read, or is damaged: the block raised one of FORM.
    """
    try:
        with open(path, "rb"):  # some libraries take a file without permission for a missing one
            pass
    except FileNotFoundError as error:
        raise OSError(f"{path} is missing; `make repro` makes what a stage writes") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
    try:
        yield
    except MemoryError as error:
        raise OSError(f"{path} cannot be read: the memory is full") from error
    except (*FORM, OSError) as error:
        if said := _system_error(error):
            raise OSError(f"{path} cannot be read: {said}") from error
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"{path} is damaged ({reason}); `make restore FILE={shlex.quote(path)}` restores it"
        ) from error


def _system_error(error: Exception) -> str | None:
    """Return what the system said, if it is the system's error: such a file may be sound."""
    if isinstance(error, OSError) and error.errno:
        return error.strerror
    found = re.search(r"(.*) \(os error \d+\)", str(error))  # in the words of safetensors
    return found[1] if found else None


def write(path: str, content: str | bytes) -> None:
    """Write bytes, or text as UTF-8 with Unix line ends; raises as `replacing`."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str, record: Mapping[str, object]) -> None:
    """Write a record, its floats with every digit; raises as `replacing`."""
    write(path, json.dumps(record, indent=2) + "\n")


def write_csv(path: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table, its floats with six decimals; raises as `replacing`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(
        [f"{cell:.{DECIMALS}f}" if isinstance(cell, float) else cell for cell in row]
        for row in rows
    )
    write(path, text.getvalue())


def read_json(path: str, **kinds: type) -> dict[str, Any]:
    """Read a record; raises as `reading`.

    Args:
        path: the file.
        kinds: names that it must have, each with the type of its value.
    """
    with reading(path):
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("expected names and values")
        for name, kind in kinds.items():
            if not isinstance(record.get(name), kind):
                raise ValueError(f"expected {name}: {kind.__name__}")
        return record


def parse_yaml(text: str) -> Any:
    """Parse a document as DVC parses params.yaml: by the same package, in the same way.

    PyYAML reads YAML 1.1, in which 0100 is 64. To DVC, which reads YAML 1.2, it is 100.

    Raises:
        ValueError: it is no YAML, or has a key twice; says in which line.
    """
    try:
        return YAML(typ="safe").load(text)
    except Exception as error:  # text like [[[[[[ or a date of 2020-13-45 raises almost anything
        problem = str(getattr(error, "problem", None) or error)
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(where + " ".join(problem.split())[:300]) from error


def read_csv(path: str, **columns: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Read a table of at least one row; raises as `reading`.

    Args:
        path: the file.
        columns: the names in its header, each with what turns a cell into a value.
    """
    with reading(path):
        header, *rows = csv.reader(Path(path).read_text(encoding="utf-8").splitlines())
        if header != list(columns) or not rows:
            raise ValueError(f"expected rows of {', '.join(columns)}")
        return [
            {name: columns[name](cell) for name, cell in zip(header, row, strict=True)}
            for row in rows
        ]
