"""Metrics as JSON and plot data as CSV; the same values give the same bytes everywhere."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# Digits after the point: far fewer than float64 noise reaches, more than anyone compares.
DECIMALS = 6


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


def write(path: str, text: str) -> None:
    """Write UTF-8 text with Unix line ends.

    Raises:
        OSError: names the path; what stood there before still stands.
    """
    part = Path(f"{path}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(text.encode())
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # it is there only if something failed
            part.unlink()
