"""Records as JSON, tables as CSV and other small outputs: the same values, the same bytes."""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

# Digits after the point: float64's noise of about 1e-16 does not show, real differences do.
DECIMALS = 6
REMEDY = "`dvc repro` makes it anew"


def write_json(path: str, record: dict[str, float]) -> None:
    """Write a flat record of numbers; see `write`."""
    rounded = {key: round(value, DECIMALS) for key, value in record.items()}
    write(path, json.dumps(rounded, indent=2) + "\n")


def write_csv(path: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table; floats with six decimals, everything else as it prints; see `write`."""
    lines = [
        [f"{cell:.{DECIMALS}f}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in (header, *rows)
    ]
    write(path, "".join(",".join(line) + "\n" for line in lines))


def write(path: str, content: str | bytes) -> None:
    """Write bytes, or text as UTF-8 with Unix line ends.

    Raises:
        OSError: names the path; what stood there before still stands.
    """
    part = Path(f"{path}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # it is there only if something failed
            part.unlink()


def read_json(path: str) -> dict[str, Any]:
    """Read a record.

    Raises:
        OSError: the file is missing or damaged.
    """
    try:
        record = json.loads(read(path))
        if not isinstance(record, dict):
            raise ValueError("expected names and values")
        return record
    except (ValueError, RecursionError) as error:
        raise OSError(f"{path} is damaged ({error}); {REMEDY}") from error


def read_csv(path: str, **columns: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Read a table of at least one row.

    Args:
        path: the file.
        columns: the names in its header, each with what turns a cell into a value.

    Raises:
        OSError: the file is missing or damaged.
    """
    try:
        header, *rows = (line.split(",") for line in read(path).splitlines())
        if header != list(columns) or not rows:
            raise ValueError(f"expected rows of {', '.join(columns)}")
        return [
            {name: columns[name](cell) for name, cell in zip(header, row, strict=True)}
            for row in rows
        ]
    except ValueError as error:
        raise OSError(f"{path} is damaged ({error}); {REMEDY}") from error


def read(path: str) -> str:
    """Read UTF-8 text.

    Raises:
        OSError: the file is missing or may not be read.
        ValueError: it is no UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise OSError(f"{path} is missing; `dvc repro` makes it") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
