"""The first source: OpenML, by scikit-learn's fetch_openml and through its cache."""

import socket
import warnings
from pathlib import Path

import numpy as np

from src import content

COLUMNS = 785  # 784 pixels and the label


def fetch(dataset: str, version: int, sha256: str, timeout: float) -> tuple[np.ndarray, np.ndarray]:
    """Load a data set of 784 pixels and a label, all from 0 to 255, from OpenML or the cache.

    Args:
        dataset: name on OpenML.
        version: version on OpenML.
        sha256: pinned digest of the content (see `content.sha256`), or "None".
        timeout: seconds without an answer after which a request is given up; scikit-learn
            asks again up to three times.

    Returns:
        images uint8 (N, 784) in C order, labels uint8 (N,).

    Raises:
        OSError: OpenML cannot be reached, or does not send this data set.
        content.WrongContentError: it sends other content than the pinned one.
        On failure, what was downloaded is removed from scikit-learn's cache.
    """
    from sklearn.datasets import fetch_openml, get_data_home  # 2 s, and only this source needs it

    cache = Path(get_data_home()) / "openml"
    cached_before = set(cache.rglob("*.gz"))
    timeout_before = socket.getdefaulttimeout()
    # fetch_openml sets no time-out of its own: a firewall that drops packets would hang it.
    socket.setdefaulttimeout(timeout)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: print(f"fetch: openml: {message}")
            bunch = fetch_openml(
                dataset,
                version=version,
                as_frame=False,
                parser="pandas",
                # Without this map pandas 3.1 fails on labels written as bare integers
                # (scikit-learn issue 34892); with it, the parser is also fastest and smallest.
                read_csv_kwargs={"dtype": {column: "uint8" for column in range(COLUMNS)}},
            )
        # pandas hands out Fortran order, which safetensors and sha256 would read askew.
        images, labels = np.ascontiguousarray(bunch.data), bunch.target
        content.check(images, labels, sha256)
    except BaseException as error:
        for path in set(cache.rglob("*.gz")) - cached_before:
            path.unlink(missing_ok=True)
        if isinstance(error, content.WrongContentError) or not isinstance(error, Exception):
            raise
        # A broken answer surfaces as almost any exception of the parsers behind fetch_openml.
        reason = " ".join(str(error).split())[:200]
        raise OSError(f"{type(error).__name__}: {reason}") from error
    finally:
        socket.setdefaulttimeout(timeout_before)
    return images, labels
