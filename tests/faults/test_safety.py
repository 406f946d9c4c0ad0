"""Whatever the bytes of a file are, its reader refuses them or reads them, and executes nothing."""

import contextlib
import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from src import command, data, files, models, parameters, tensors, wheel

IMAGES, LABELS = np.arange(20, dtype=np.uint8).reshape(5, 4), np.arange(5, dtype=np.uint8)


class Exploit:
    """Pickles into a call that leaves a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch executed",)


def npz(*members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in zip(("images", "labels"), members, strict=True):
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read_model(path: str) -> object:
    files.write_json("recipe", {"model": "softmax_regression", "pixels": 4, "classes": 5})
    return models.load(path, "recipe")


def read_parameters(path: str) -> object:
    Path("params.yaml").write_bytes(Path(path).read_bytes())
    return parameters.read(parameters.Train)


READERS: dict[str, Callable[[str], object]] = {
    "raw": data.read_raw,
    "data": data.read,
    "tensors": tensors.read,
    "model": read_model,
    "record": files.read_json,
    "table": lambda path: files.read_csv(path, epoch=int, split=str, loss=float),
    "pickle": lambda path: wheel.read(io.BytesIO(Path(path).read_bytes())),
    "parameters": read_parameters,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=st.binary(max_size=300))
@example(content=pickle.dumps(Exploit()))
@example(content=b"\x93NUMPY\x01\x00")
@example(content=struct.pack("<Q", 2**63) + b"{}")
@example(content=struct.pack("<Q", 2) + b"{}")
@example(content=npz(pickle.dumps(Exploit()), b""))
@example(content=npz(npy(np.array([Exploit()])), npy(LABELS)))
@example(content=npz(npy(IMAGES), npy(np.array([{"a": Exploit()}] * 5))))
@example(content=gzip.compress(pickle.dumps(Exploit())))
@example(content=b"[" * 400)
@example(content=b"[[1, 2]]")
@example(content=b"train: !!python/object/apply:os.system ['touch executed']")
def test_arbitrary_bytes_are_refused_by_every_reader(reader: str, content: bytes) -> None:
    Path("file").write_bytes(content)
    with contextlib.suppress(OSError, command.UsageError):
        found = READERS[reader]("file")
        assert not found  # no tensors, no record
    assert not Path("executed").exists()
