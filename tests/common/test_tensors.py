"""Tensors on disk, read back by safetensors' own reader too."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save
from safetensors.torch import save_file

from src.common import tensors

pytestmark = pytest.mark.usefixtures("here")

ARRAYS = {
    "weight": np.random.default_rng(0).random((3, 4), np.float32),
    "bias": np.arange(3, dtype=np.int64),
}


def test_what_is_read_is_what_was_written_in_either_framework() -> None:
    tensors.write("x", ARRAYS)
    for found in (tensors.read("x"), tensors.read("x", "pt"), load_file("x")):
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert np.array_equal(np.asarray(found[name]), array)
    assert isinstance(tensors.read("x", "pt")["bias"], torch.Tensor)
    assert isinstance(tensors.read("x")["bias"], np.ndarray)


def test_arrays_in_fortran_order_are_not_scrambled() -> None:
    tensors.write("x", {name: np.asfortranarray(array) for name, array in ARRAYS.items()})
    assert np.array_equal(load_file("x")["weight"], ARRAYS["weight"])
    tensors.write("x", {"weight": ARRAYS["weight"].T})
    assert np.array_equal(tensors.read("x")["weight"], ARRAYS["weight"].T)


def test_the_bytes_depend_on_the_content_alone_and_carry_its_crc_32() -> None:
    tensors.write("x", ARRAYS)
    tensors.write("y", dict(reversed(ARRAYS.items())))
    assert Path("x").read_bytes() == Path("y").read_bytes()
    expected = zlib.crc32(ARRAYS["bias"].tobytes() + ARRAYS["weight"].tobytes())
    with safe_open("x", framework="np") as file:
        assert file.metadata() == {"crc32": f"{expected:08x}"}  # two keys come in random order
    assert tensors.recorded_checksum("x") == f"{expected:08x}"


def test_a_damaged_file_has_no_checksum() -> None:
    for content in (b"not a tensor", save(ARRAYS)):
        Path("x").write_bytes(content)
        with pytest.raises(OSError, match=r"^x is damaged"):
            tensors.recorded_checksum("x")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("framework", ["np", "pt"])
def test_numbers_of_a_type_that_numpy_lacks_are_refused(kind: torch.dtype, framework: str) -> None:
    save_file({"weight": torch.ones(3).to(kind)}, "x")
    with pytest.raises(OSError, match=r"^x is damaged \("):
        tensors.read("x", framework)
