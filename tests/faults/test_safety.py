"""Whatever the bytes of a file are, its reader refuses them or reads them, and executes nothing."""

import contextlib
import gzip
import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from src.common import command, dataset, files, parameters, tensors
from src.learning import models
from src.learning.settings import Train
from src.sources import wheel

pytestmark = pytest.mark.usefixtures("here")


class Exploit:
    """Pickles into a call that leaves a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch executed",)


def header(**tensor: object) -> bytes:
    """Return a safetensors file of 8 bytes that says this of its one tensor."""
    text = json.dumps({"images": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} | tensor})
    return struct.pack("<Q", len(text)) + text.encode() + bytes(8)


def read_model(path: str) -> object:
    shape, name = (1, 2, 2), "softmax_regression"
    recipe = {"model": name, "shape": shape, "classes": 5, "exact": True, "from_pictures": False}
    files.write_json("recipe", recipe | {"module": repr(models.build(name, shape, 5))})
    return models.load(path, "recipe")


def read_parameters(path: str) -> object:
    Path("params.yaml").write_bytes(Path(path).read_bytes())
    return parameters.read("train", Train)


READERS: dict[str, Callable[[str], object]] = {
    "raw": dataset.read_raw,
    "data": dataset.read,
    "tensors": tensors.read,
    "model": read_model,
    "record": files.read_json,
    "table": lambda path: files.read_csv(path, epoch=int, split=str, loss=float),
    "pickle": lambda path: wheel.read(io.BytesIO(Path(path).read_bytes())),
    "parameters": read_parameters,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=60, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=300))
@example(content=pickle.dumps(Exploit()))
@example(content=b"\x93NUMPY\x01\x00")
@example(content=struct.pack("<Q", 2**63) + b"{}")
@example(content=struct.pack("<Q", 2) + b"{}")
@example(content=header(shape=[2**40], data_offsets=[0, 2**40]))
@example(content=header(data_offsets=[4, 2**63]))
@example(content=header(dtype="O"))
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
