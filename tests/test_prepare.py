"""The tensors that prepare writes, read back by safetensors' own reader."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from src import raw, tensors
from stages import prepare


def test_rows_are_scaled_and_split_in_order(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 784), np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    raw.write(str(tmp_path / "raw.npz"), images, labels)
    paths = {name: str(tmp_path / name) for name in ("train", "test")}
    flags = ["--train_size", "20", "--pixel_max", "255", "--raw", str(tmp_path / "raw.npz")]
    prepare.main([*flags, "--train_data", paths["train"], "--test_data", paths["test"]])
    for name, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        written = load_file(paths[name])
        assert written["images"].dtype == np.float32
        assert written["labels"].dtype == np.int64
        # In float64 the quotient is within half a float32's last place of the exact one.
        np.testing.assert_allclose(written["images"], images[rows] / 255, rtol=2**-24)
        assert np.array_equal(written["labels"], labels[rows])
    assert written["images"].max() <= 1


def test_arrays_in_fortran_order_are_not_scrambled(tmp_path) -> None:
    array = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    tensors.write(str(tmp_path / "x.safetensors"), values=array)
    assert np.array_equal(load_file(tmp_path / "x.safetensors")["values"], array)


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_what_is_read_is_what_was_written(tmp_path, framework: str) -> None:
    array = np.random.default_rng(0).random((5, 7), np.float32)
    tensors.write(str(tmp_path / "x.safetensors"), values=array)
    found = tensors.read(str(tmp_path / "x.safetensors"), framework, values="float32")
    assert np.array_equal(np.asarray(found["values"]), array)
