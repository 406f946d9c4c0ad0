"""How a command runs and ends: an error is a line or two and an exit status, not a traceback."""

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn


class UsageError(Exception):
    """What the user gave is not allowed; a line for each fault."""


def run(name: str, main: Callable[[], int | None]) -> NoReturn:
    """Run a command's main function and end the process.

    The exit status is 2 for a UsageError, 1 for an OSError or Ctrl-C, else what main returns.
    With TRACEBACK set in the environment, an error comes with its traceback.
    """
    _open_outputs()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = main()
        sys.stdout.flush()
    except (UsageError, OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        for line in (str(error) or "interrupted").splitlines():
            print(f"{name}: {line}", file=sys.stderr)
        status = 2 if isinstance(error, UsageError) else 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an exception amid Python's own end is noise
    sys.exit(status)


class _Output(io.FileIO):
    """A file or a pipe. That nobody reads a pipe any more is no error, any other is told once."""

    failed = False

    def write(self, data: Any) -> int:
        if self.failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self.failed = True
            if isinstance(error, BrokenPipeError):
                return len(data)
            raise


def _open_outputs() -> None:
    """Let print work whatever stdout and stderr are: closed, ASCII, or `| head`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed: `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and not stream.isatty():
            opened = io.TextIOWrapper(
                io.BufferedWriter(_Output(stream.fileno(), "wb", closefd=False)),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering or stream.write_through,
            )
            setattr(sys, name, opened)


def run_stage(name: str, main: Callable[[], None]) -> NoReturn:
    """Run a stage's main function as `run` does; a stage takes no arguments."""

    def without_arguments() -> None:
        if given := " ".join(sys.argv[1:]):
            raise UsageError(
                f"a stage takes no arguments; its settings are in params.yaml (given: {given})"
            )
        main()

    run(name, without_arguments)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)  # as an exception, so that temporary files go
