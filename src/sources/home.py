"""The folder in which scikit-learn keeps data sets, and what can be wrong with this machine."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "SCIKIT_LEARN_DATA"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LocalError(OSError):
    """A fault of this machine's files, which every other source would meet too."""


def folder() -> Path:
    """Return the folder, as `sklearn.datasets.get_data_home` does, and do not make it.

    Raises:
        LocalError: the variable is set to nothing.
    """
    named = os.environ.get(VARIABLE, "~/scikit_learn_data")
    if not named:
        raise LocalError(f"{VARIABLE} is empty: unset it, or set it to a folder for downloads")
    return Path(named).expanduser()


def local_reason(error: BaseException) -> str | None:
    """Say what is wrong with this machine's files, if that is behind an error, else None."""
    for cause in _causes(error):
        # Of what concerns the network, too, the number may be that of a missing permission.
        if isinstance(cause, OSError) and (cause.errno in FULL or (cause.errno and cause.filename)):
            return f"{cause.filename or 'the folder for downloads'}: {cause.strerror}"
    return None


def local_error(reason: str) -> LocalError:
    """Return the error, with the variables to set."""
    return LocalError(
        f"{reason}; the fault is on this machine: {VARIABLE}, for downloads, and TMPDIR, for "
        "temporary files, name folders that can be written to"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
