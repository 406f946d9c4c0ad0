"""The first source on a good day, and what of OpenML's data sets it takes."""

import errno
import os
import re
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest

from src.common import dataset
from src.sources import openml
from tests.support.openml_server import REQUESTS, OpenML, arff, redirected
from tests.support.stages import put_python


def fetch(
    server: OpenML, sha256: str | None = None, version: int = 1, timeout: float = 5
) -> dataset.Dataset:
    return openml.fetch(server.name, version, sha256, timeout)


def load(server: OpenML) -> dataset.Dataset:
    """Load in this process what else a process of its own does."""
    return openml.load(server.name, 1, None, Path("home/openml"))


def reason_of(server: OpenML) -> str:
    """Return what is said of a data set that cannot be loaded."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        load(server)
    return openml._failure(caught.value, Path("home"), downloaded=True)["reason"]


def test_the_content_comes_as_bytes_in_c_order_and_the_second_time_from_the_cache(
    openml: OpenML,
) -> None:
    for _ in range(2):
        images, labels, names, _ = fetch(openml, dataset.sha256(openml.images, openml.labels))
        assert np.array_equal(images, openml.images[:, None, None])
        assert names == tuple("0123456789")
        assert np.array_equal(labels, openml.labels)
        assert type(images) is type(labels) is np.ndarray  # no frame of pandas
        assert images.dtype == labels.dtype == np.uint8
        assert images.flags.c_contiguous
        assert openml.requests == list(REQUESTS)


def test_what_scikit_learn_warns_of_is_printed_in_a_line(
    openml: OpenML, capfd: pytest.CaptureFixture[str]
) -> None:
    openml.fault = ("data", "504 twice")
    fetch(openml)
    lines = capfd.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("fetch: openml: A network error") for line in lines)


@pytest.mark.parametrize("cell", ["256", "-1", "1.5", "abc", "", "?", "1e3"])
@pytest.mark.parametrize("place", [0, -2, -1])  # first pixel, last one, label
def test_what_is_not_bytes_is_refused_in_a_line_that_says_so(
    cell: str, place: int, openml: OpenML
) -> None:
    *before, row = openml.arff.splitlines()
    cells = row.split(b",")
    cells[place] = cell.encode()
    openml.arff = b"\n".join([*before, b",".join(cells)]) + b"\n"
    assert re.fullmatch(
        r"\w+Error: .+: pixels and labels must be whole numbers from 0 to 255", reason_of(openml)
    )


@pytest.mark.parametrize(("low", "high"), [(1, 26), (1, 255), (5, 6)])
def test_labels_that_do_not_start_at_0_are_names(low: int, high: int, openml: OpenML) -> None:
    numbers = np.linspace(low, high, 60).astype(np.uint8)
    openml.arff = arff(openml.images, numbers)
    found = load(openml)
    assert [found.names[label] for label in found.labels] == [str(number) for number in numbers]
    assert len(found.names) == len(set(numbers))


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_labels_that_are_text_are_names_in_openmls_order(quote: str, openml: OpenML) -> None:
    openml.classes = ["dog", "cat", "Ankle boot", "つ"]
    rows = arff(openml.images, openml.labels).decode().splitlines()
    header, rows = rows[:-60], [row.rpartition(",")[0] for row in rows[-60:]]
    texts = [openml.classes[place % 4] for place in range(60)]
    rows = [f"{row},{quote}{text}{quote}" for row, text in zip(rows, texts, strict=True)]
    openml.arff = "\n".join([*header, *rows, ""]).encode()
    images, labels, names, _ = load(openml)
    assert names == ("dog", "cat", "Ankle boot", "つ")
    assert np.array_equal(labels, np.arange(60) % 4)
    assert labels.dtype == np.uint8
    assert np.array_equal(images, openml.images[:, None, None])
    assert openml.requests == list(REQUESTS)
    shutil.rmtree("home")
    openml.arff = openml.arff.replace(b"cat", b"cow")
    assert reason_of(openml) == "ValueError: found the label 'cow', which is none of OpenML's"


def test_300_numbers_are_uint16_labels(openml: OpenML) -> None:
    openml.classes = [str(number) for number in range(300)]
    rows = [",".join(["7"] * 16 + [str(number)]) for number in range(300)]
    openml.arff = "\n".join(["@DATA", *rows, ""]).encode()
    _, labels, names, _ = load(openml)
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, np.arange(300))
    assert names == tuple(openml.classes)


def test_fashion_mnist_has_names_that_openml_has_not(openml: OpenML) -> None:
    for name, last in (("Fashion-MNIST", "Ankle boot"), ("Kuzushiji-MNIST", "を")):
        server = OpenML(openml.images, openml.labels, name, data_id=7)
        with server, redirected(server.env):
            names = load(server).names
        assert len(names) == 10
        assert names[9] == last


@pytest.mark.parametrize("text", ["255.0", "2.55e2", " 255", "0255"])
def test_a_byte_may_be_written_in_other_ways(text: str, openml: OpenML) -> None:
    openml.images[-1, 0] = 7
    openml.arff = arff(openml.images, openml.labels).replace(b"\n7,", f"\n{text},".encode())
    openml.images[openml.images[:, 0] == 7, 0] = 255
    assert np.array_equal(load(openml)[0][:, 0, 0], openml.images)


def test_another_version_than_openml_has_is_not_taken(openml: OpenML) -> None:
    with pytest.raises(OSError, match="version 2"):
        fetch(openml, version=2)


def test_it_works_beside_the_main_thread_and_leaves_the_process_as_it_was(openml: OpenML) -> None:
    def state() -> tuple[object, ...]:
        handler = signal.getsignal(signal.SIGALRM)
        return socket.getdefaulttimeout(), dict(os.environ), handler

    openml.fault, before = ("search", "404"), state()
    with ThreadPoolExecutor() as pool:
        error = pool.submit(fetch, openml).exception()
    assert str(error) == "HTTPError: HTTP Error 404: Not Found"
    assert before == state()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo reason >&2; exit 3", "its process ended with 3: reason"),
        ("kill -9 $$", "its process ended with -9: no reason given"),
    ],
)
def test_a_process_that_crashes_is_told(
    script: str, reason: str, openml: OpenML, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_python(script, monkeypatch)
    with pytest.raises(OSError, match=f"^{reason}$"):
        fetch(openml)


def test_a_full_disk_is_told_from_a_network(tmp_path: Path) -> None:
    error = ValueError("the parser's own words")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    found = openml._failure(error, tmp_path, downloaded=True)
    assert found["kind"] == "local"
    reason = "the folder for downloads: No space left on device; the fault"
    assert found["reason"].startswith(reason)
    for network in (
        HTTPError("https://www.openml.org", 404, "Not Found", Message(), None),
        URLError(OSError(errno.EACCES, "Permission denied")),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
    ):
        assert openml._failure(network, tmp_path, downloaded=True)["kind"] == "failed"


def test_a_time_out_that_is_over_at_once_is_told_like_any_other(openml: OpenML) -> None:
    with pytest.raises(OSError, match=r"^no complete answer within 1e-06 s$"):
        fetch(openml, timeout=1e-7)


def test_what_came_since_a_moment_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]" / "c" / "d"
    folder.mkdir(parents=True)
    for name, moment in {"old.gz": 99, "now.gz": 100, "new.gz": 101, "new.lock": 101}.items():
        (folder / name).touch()
        os.utime(folder / name, (moment, moment))
    (folder / "gone.gz").symlink_to("nowhere")  # as if another process had removed it meanwhile
    removed = openml.remove_since(100, tmp_path / "a[b]")
    assert sorted(removed) == [str(folder / name) for name in ("new.gz", "now.gz")]
    assert sorted(os.listdir(folder)) == ["gone.gz", "new.lock", "old.gz"]
