"""How a command runs and ends: an error is a line or two and an exit status, not a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


class UsageError(Exception):
    """What the user gave is not allowed; a line for each fault."""


def run(name: str, main: Callable[[], int | None]) -> NoReturn:
    """Run a command's main function and end the process.

    The exit status is 2 for a UsageError, 1 for an OSError or Ctrl-C, else what main returns.
    With TRACEBACK set in the environment, an error comes with its traceback.
    """
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
    sys.exit(status)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)  # as an exception, so that temporary files go
