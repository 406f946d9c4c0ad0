"""The first source: OpenML, by scikit-learn's fetch_openml and through its cache."""

import glob
import os
import signal
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas  # noqa: F401  (fetch_openml would import it later, deaf to a Ctrl-C)
from sklearn.datasets import fetch_openml, get_data_home

from src.common.dataset import Dataset, WrongContentError, check, numbers

# How pandas says that a column is not uint8: too large, a fraction, no number, missing.
NOT_BYTES = ("user dtype of uint8", "literal for int()", "column has NA values")


class _TooSlow(BaseException):
    """Not an Exception, which scikit-learn would take for a reason to ask again."""


def _give_up(*_: object) -> None:
    raise _TooSlow


def fetch(dataset: str, version: int, sha256: str | None, timeout: float) -> Dataset:
    """Load a data set of bytes, pixels and a label, from OpenML or the cache.

    Args:
        dataset: name on OpenML.
        version: version on OpenML.
        sha256: pinned digest of the content (see `common.dataset.sha256`), or None.
        timeout: seconds without an answer after which a request is given up; scikit-learn
            asks again, up to seven times. Ten times as long for everything together.

    Returns:
        images uint8 (N, D) in C order, labels uint8 (N,).

    Raises:
        OSError: OpenML cannot be reached, or does not send this data set.
        WrongContentError: it sends, or the cache holds, other content than the pinned.
        On failure, what was downloaded is removed from scikit-learn's cache.
    """
    cache = Path(get_data_home()) / "openml"
    started = time.time()
    timeout_before = socket.getdefaulttimeout()
    # fetch_openml sets no time-out of its own: a firewall that drops packets would hang it.
    socket.setdefaulttimeout(timeout)
    # A server that sends a byte now and then meets that time-out for ever.
    signal_before = signal.signal(signal.SIGALRM, _give_up)
    limit = 10 * timeout
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: print(f"fetch: openml: {message}")
            bunch = fetch_openml(
                dataset,
                version=version,
                as_frame=False,
                parser="pandas",
                # Without a type pandas 3.1 fails on labels written as bare integers
                # (scikit-learn issue 34892); with it, the parser is also fastest and smallest.
                read_csv_kwargs={"dtype": "uint8"},
            )
        # pandas hands out Fortran order, which safetensors and sha256 would read askew.
        images, labels = np.ascontiguousarray(bunch.data), bunch.target
        found = Dataset(images[:, None, None], labels, numbers(labels))
        check(found, sha256)
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        downloaded = remove_since(started, cache)
        if isinstance(error, WrongContentError) and not downloaded:
            raise WrongContentError(
                f"{error}, for this one remove {cache}, a copy kept from before, to ask OpenML anew"
            ) from error
        if isinstance(error, _TooSlow):
            raise OSError(f"no complete answer within {limit:g} s") from None
        if isinstance(error, WrongContentError) or not isinstance(error, Exception):
            raise
        # A broken answer surfaces as almost any exception of the parsers behind fetch_openml.
        reason = " ".join(str(error).split())[:400]
        if any(part in reason for part in NOT_BYTES):
            reason += ": pixels and labels must be whole numbers from 0 to 255"
        raise OSError(f"{type(error).__name__}: {reason}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal_before)
        socket.setdefaulttimeout(timeout_before)
    return found


def remove_since(moment: float, cache: Path) -> list[str]:
    """Remove the answers that came into the cache since a moment, in seconds since 1970."""
    removed = []
    # glob, unlike Path.rglob, bears other processes that clear up there meanwhile.
    for path in glob.glob(f"{glob.escape(str(cache))}/**/*.gz", recursive=True):
        with suppress(OSError):
            if os.stat(path).st_mtime >= moment:
                os.unlink(path)
                removed.append(path)
    return removed
