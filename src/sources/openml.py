"""The first source: OpenML, by scikit-learn's fetch_openml and through its cache.

It runs in a process of its own, as nothing else can be stopped for sure: a server that sends a byte
now and then meets every time-out of a socket.
"""

import glob
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from src.common import files
from src.common.dataset import (
    Dataset,
    WrongContentError,
    check,
    label_type,
    numbers,
    read_raw,
    write_raw,
)
from src.common.known import KNOWN, UNKNOWN
from src.sources import home

# How pandas says that a column is not uint8: too large, a fraction, no number, missing.
NOT_BYTES = ("user dtype of uint8", "literal for int()", "column has NA values")
BYTES = frozenset(map(str, range(256)))
ENDING = 60  # seconds for what the time limit leaves out: Python's start, imports, the end


def fetch(dataset: str, version: int, sha256: str | None, timeout: float) -> Dataset:
    """Load a data set of bytes, pixels and a label, from OpenML or the cache.

    Args:
        dataset: name on OpenML.
        version: version on OpenML.
        sha256: pinned digest of the content (see `common.dataset.sha256`), or None.
        timeout: seconds without an answer after which a request is given up; scikit-learn
            asks again, up to seven times. Ten times as long for everything together.

    Returns:
        images uint8 (N, 1, 1, D), labels uint8 or uint16 (N,), names.

    Raises:
        OSError: OpenML cannot be reached, or does not send this data set.
        LocalError: this machine cannot keep what it sends.
        WrongContentError: it sends, or the cache holds, other content than the pinned.
        On failure, what was downloaded is removed from scikit-learn's cache.
    """
    cache, started = home.folder() / "openml", time.time()
    with tempfile.TemporaryDirectory(prefix="openml-") as folder:
        try:
            return _in_child(folder, dataset, str(version), sha256 or "", str(timeout))
        except BaseException:
            # The process has done so too, unless it was killed.
            clear(cache, started, Path(folder).name)
            raise


def _in_child(folder: str, *arguments: str) -> Dataset:
    """Run this module as a program, which ends when its input does: with this process."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "src.sources.openml", folder, *arguments]
    errors = Path(folder) / "errors"
    with open(errors, "wb") as stderr:
        child = subprocess.Popen(  # noqa: S603  (no shell)
            command, stdin=subprocess.PIPE, stderr=stderr, env=os.environ | {"PYTHONPATH": path}
        )
        assert child.stdin
        limit = 10 * float(arguments[-1])
        try:
            child.wait(limit + ENDING)
        except subprocess.TimeoutExpired:
            raise OSError(f"no complete answer within {limit:g} s") from None
        finally:
            child.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                child.wait(10)
            child.kill()  # nothing, if it has ended
            child.wait()
    if not child.returncode:
        return read_raw(f"{folder}/{RESULT}")
    try:
        failure = json.loads(Path(folder, FAILURE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        lines = errors.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()] or ["no reason given"]
        raise OSError(f"its process ended with {child.returncode}: {said[-1][:300]}") from None
    kinds = {"wrong": WrongContentError, "local": home.LocalError}
    raise kinds.get(failure["kind"], OSError)(failure["reason"])


# What the process writes into the folder that it is given.
RESULT, FAILURE = "dataset.safetensors", "failure.json"


def load(name: str, version: int, sha256: str | None, cache: Path) -> Dataset:
    """Load the data set in this process; raises almost anything, as scikit-learn does."""
    # Here, as the stage needs neither, and their imports take a second.
    from sklearn.datasets import fetch_openml

    def ask(**options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: print(
                f"fetch: openml: {message}", flush=True
            )
            return fetch_openml(
                name, version=version, as_frame=False, parser="pandas", read_csv_kwargs=options
            )

    # Read as text, one row says which columns there are. To try numbers first would make
    # scikit-learn take labels that are names for a damaged file, and download it anew.
    features = _features(ask(dtype="str", nrows=1), cache)
    texts = [f.get("nominal_value", ()) for f in features if f["is_target"] == "true"]
    if len(texts) == 1 and not BYTES.issuperset(texts[0]):
        types = ["str" if feature["is_target"] == "true" else "uint8" for feature in features]
        bunch = ask(dtype=dict(enumerate(types)))
        labels, names = _from_texts(bunch.target, texts[0])
    else:
        # Without a type pandas 3.1 fails on labels written as bare integers
        # (scikit-learn issue 34892); with it, the parser is also fastest and smallest.
        bunch = ask(dtype="uint8")
        labels, names = _from_numbers(bunch.target)
    known = KNOWN.get(name, UNKNOWN).names
    if len(names) == len(known):
        names = known
    # pandas hands out Fortran order, which safetensors and sha256 would read askew.
    images = np.ascontiguousarray(bunch.data)
    found = Dataset(images[:, None, None], labels, names)
    check(found, sha256)
    return found


def _features(bunch: Any, cache: Path) -> list[dict[str, Any]]:
    """Return what OpenML says of the columns: scikit-learn keeps it, and does not hand it out."""
    number = bunch.details["id"]
    path = cache / "openml.org" / "api" / "v1" / "json" / "data" / "features" / f"{number}.gz"
    with gzip.open(path) as file:
        features: list[dict[str, Any]] = json.load(file)["data_features"]["feature"]
    return features


def _from_numbers(target: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels and names of uint8 (N,); numbers that do not start at 0 are names."""
    if not len(target) or target.min() == 0:
        return target, numbers(target)
    values, places = np.unique(target, return_inverse=True)
    return places.astype(label_type(len(values))), tuple(map(str, values))


def _from_texts(target: np.ndarray, allowed: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels and names of texts (N,); raises ValueError for one that is not allowed."""
    names = sorted(allowed, key=int) if all(name.isdecimal() for name in allowed) else allowed
    places = {name: place for place, name in enumerate(names)}
    texts = [text if text in places else str(text).strip("'") for text in target]
    if unknown := set(texts) - set(places):
        raise ValueError(f"found the label {min(unknown)!r}, which is none of OpenML's")
    return np.array([places[text] for text in texts], label_type(len(names))), tuple(names)


def clear(cache: Path, moment: float, prefix: str) -> list[str]:
    """Remove what a fetch began at a moment left in the cache; return the answers removed."""
    for path in glob.glob(f"{glob.escape(str(cache))}/**/{prefix}-*/", recursive=True):
        shutil.rmtree(path, ignore_errors=True)
    return remove_since(moment, cache)


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


def _failure(error: Exception, cache: Path, downloaded: bool) -> dict[str, str]:
    """Say in a line what went wrong, and of which kind it is."""
    if isinstance(error, WrongContentError):
        kept = f", for this one remove {cache}, a copy kept from before, to ask OpenML anew"
        return {"kind": "wrong", "reason": f"{error}{'' if downloaded else kept}"}
    if local := home.local_reason(error):
        return {"kind": "local", "reason": str(home.local_error(local))}
    # A broken answer surfaces as almost any exception of the parsers behind fetch_openml.
    reason = " ".join(str(error).split())[:400]
    if any(part in reason for part in NOT_BYTES):
        reason += ": pixels and labels must be whole numbers from 0 to 255"
    return {"kind": "failed", "reason": f"{type(error).__name__}: {reason}"}


def main() -> None:
    """Load a data set, and write it or the failure to the folder; the program of `_in_child`."""
    folder, name, version, sha256, timeout = sys.argv[1:]
    cache, started, limit = home.folder() / "openml", time.time(), 10 * float(timeout)
    # scikit-learn's temporary folders in the cache get a name by which they are found.
    tempfile.template = f"{Path(folder).name}-"
    # fetch_openml sets no time-out of its own: a firewall that drops packets would hang it.
    socket.setdefaulttimeout(float(timeout))

    def end(failure: dict[str, str]) -> NoReturn:
        with suppress(OSError):  # the folder may be gone, or full
            files.write_json(f"{folder}/{FAILURE}", failure)
        os._exit(1)  # from whatever thread, and whatever the others wait for

    def give_up() -> None:
        clear(cache, started, Path(folder).name)
        end({"kind": "failed", "reason": f"no complete answer within {limit:g} s"})

    def end_with_parent() -> None:
        while os.read(0, 1):  # not by sys.stdin, whose lock would be held at the end
            pass
        clear(cache, started, Path(folder).name)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    watch = threading.Timer(limit, give_up)
    watch.daemon = True
    watch.start()
    try:
        found = load(name, int(version), sha256 or None, cache)
        watch.cancel()
        write_raw(f"{folder}/{RESULT}", *found)
    except Exception as error:
        downloaded = clear(cache, started, Path(folder).name)
        end(_failure(error, cache, bool(downloaded)))


if __name__ == "__main__":
    main()
