"""The flags of a stage: its section of params.yaml as DVC writes it out, then its paths.

Shared by the stages that have parameters: how a parameter is read decides what they compute. No
module is shared by all stages, since an edit of it would re-run everything: `report`, which has no
parameters, does without this one, and each format of files has its own few lines for writing.
It imports nothing but the standard library, so that a bad parameter is refused at once.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

# How a parameter's text is read, the test that its value must pass, and that test in words.
Parameter = tuple[Callable[[str], Any], Callable[[Any], Any], str]

BOOLEAN: Parameter = (
    lambda text: ("false", "true").index(text) == 1,
    lambda _: True,
    "true or false",
)
DEVICE: Parameter = (
    str,
    re.compile(r"cpu|cuda(:\d+)?|mps|auto").fullmatch,
    "cpu, cuda, cuda:N, mps or auto",
)


def integer(low: int, high: int) -> Parameter:
    """Return the parameter that is an integer within bounds, both included."""
    return int, lambda value: low <= value <= high, f"an integer from {low} to {high}"


def parse(
    stage: str, parameters: dict[str, Parameter], paths: tuple[str, ...], argv: list[str] | None
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read a stage's flags, all of which must be there.

    Args:
        stage: its name.
        parameters: the keys of its section.
        paths: the flags that dvc.yaml adds.
        argv: the flags; None for those of this process.

    Returns:
        The parser, whose `error(message)` refuses what only the data show to be wrong, and the
        values by name.

    Raises:
        SystemExit: with status 2, after a message that names the flag, its value, and what is
            allowed.
    """
    usage = f"python -m stages.{stage} FLAGS (as dvc.yaml calls it)"
    parser = argparse.ArgumentParser(prog=stage, usage=usage, allow_abbrev=False)
    for name in parameters:  # DVC writes true as --name and false as --no-name
        either = parser.add_mutually_exclusive_group(required=True)
        either.add_argument(f"--{name}", nargs="?", const="true")
        either.add_argument(f"--no-{name}", dest=name, action="store_const", const="false")
    for name in paths:
        parser.add_argument(f"--{name}", required=True)
    # A flag and all that follows it become one argument, so that a list where one value is
    # wanted, or a value that starts with a dash, is refused by name.
    words = re.split("\0(?=--)", "\0".join(sys.argv[1:] if argv is None else argv))
    arguments = parser.parse_args([word.replace("\0", "=", 1).replace("\0", " ") for word in words])
    for name, (read, holds, allowed) in parameters.items():
        text = getattr(arguments, name)
        try:
            value = read(text)
            if not holds(value):
                raise ValueError
        except ValueError:
            parser.error(
                f"argument --{name}: {text!r} is not allowed; allowed: {allowed} "
                f"({stage}.{name} in params.yaml)"
            )
        setattr(arguments, name, value)
    return parser, arguments


@contextlib.contextmanager
def importing(stage: str) -> Iterator[None]:
    """Let Ctrl-C end the process at once: there is nothing yet to clean up.

    The C code of NumPy and torch turns a KeyboardInterrupt amid an import into an ImportError, or
    drops it and goes on with half a module.
    """

    def leave(*_: object) -> None:
        os.write(2, f"{stage}: interrupted\n".encode())
        os._exit(1)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
