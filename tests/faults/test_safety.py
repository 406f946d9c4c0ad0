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
from tests.support.mnist_wheel import pickled_data

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


def read_or_refuse(reader: str, content: bytes) -> object:
    """Return what the reader makes of the bytes; only a refusal may come instead."""
    Path("file").write_bytes(content)
    with contextlib.suppress(OSError, command.UsageError):
        return READERS[reader]("file")
    return None


quickly = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
@quickly
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
    found = read_or_refuse(reader, content)
    assert not found or reader == "tensors"
    assert not Path("executed").exists()


# The others have no checksum of their own; the hash that DVC holds stands for them.
@pytest.mark.parametrize("reader", ["raw", "data", "model", "pickle"])
@pytest.mark.filterwarnings("ignore")
@quickly
@given(data_=st.data())
def test_sound_files_with_bytes_replaced_give_the_sound_content_or_an_error(
    reader: str, data_: st.DataObject
) -> None:
    if reader == "raw":
        data.write_raw("sound", IMAGES, LABELS)
    elif reader == "data":
        pixels = (IMAGES / 64).astype(np.float32)
        tensors.write("sound", {"images": pixels, "labels": LABELS.astype(np.int64)})
    elif reader == "model":
        weight, bias = np.zeros((5, 4), np.float32), np.zeros(5, np.float32)
        tensors.write("sound", {"0.weight": weight, "0.bias": bias})
    else:
        files.write("sound", pickled_data(IMAGES, LABELS))
    sound = Path("sound").read_bytes()
    at = data_.draw(st.integers(0, len(sound)))
    new = data_.draw(st.binary(min_size=1, max_size=20))
    removed = data_.draw(st.integers(0, 20))
    expected = READERS[reader]("sound")
    found = read_or_refuse(reader, sound[:at] + new + sound[at + removed :])
    if found is None or reader == "pickle":  # the pickle has the pinned hash behind it
        return
    if isinstance(found, models.Model):
        found, expected = ((model.parameters,) for model in (found, expected))
    for left, right in zip(found, expected, strict=True):
        assert np.array_equal(left, right)
