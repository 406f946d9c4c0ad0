"""The first source on a good day, and what of OpenML's data sets it takes."""

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from src.common import dataset
from src.sources import openml
from tests.support.openml_server import REQUESTS, OpenML, arff


def fetch(
    server: OpenML, sha256: str | None = None, version: int = 1, timeout: float = 5
) -> tuple[np.ndarray, np.ndarray]:
    return openml.fetch(server.name, version, sha256, timeout)


def test_the_content_comes_as_bytes_in_c_order_and_the_second_time_from_the_cache(
    openml: OpenML,
) -> None:
    for _ in range(2):
        images, labels = fetch(openml, dataset.sha256(openml.images, openml.labels))
        assert np.array_equal(images, openml.images)
        assert np.array_equal(labels, openml.labels)
        assert type(images) is type(labels) is np.ndarray  # no frame of pandas
        assert images.dtype == labels.dtype == np.uint8
        assert images.flags.c_contiguous
        assert openml.requests == list(REQUESTS)


def test_what_scikit_learn_warns_of_is_printed_in_a_line(
    openml: OpenML, capsys: pytest.CaptureFixture[str]
) -> None:
    openml.fault = ("data", "504 twice")
    fetch(openml)
    lines = capsys.readouterr().out.splitlines()
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
    reason = r"^\w+Error: .+: pixels and labels must be whole numbers from 0 to 255$"
    with pytest.raises(OSError, match=reason):
        fetch(openml)
    assert not [path for path in Path("home").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("low", "high"), [(1, 26), (1, 255), (5, 5)])
def test_labels_that_do_not_start_at_0_are_refused(low: int, high: int, openml: OpenML) -> None:
    openml.arff = arff(openml.images, np.linspace(low, high, 60).astype(np.uint8))
    with pytest.raises(OSError, match=f"expected labels from 0 on, found {low} to {high}"):
        fetch(openml)


@pytest.mark.parametrize("text", ["255.0", "2.55e2", " 255", "0255"])
def test_a_byte_may_be_written_in_other_ways(text: str, openml: OpenML) -> None:
    openml.images[-1, 0] = 7
    openml.arff = arff(openml.images, openml.labels).replace(b"\n7,", f"\n{text},".encode())
    openml.images[openml.images[:, 0] == 7, 0] = 255
    assert np.array_equal(fetch(openml)[0], openml.images)


def test_another_version_than_openml_has_is_not_taken(openml: OpenML) -> None:
    with pytest.raises(OSError, match="version 2"):
        fetch(openml, version=2)


def test_the_process_is_left_as_it_was(openml: OpenML) -> None:
    kept = socket.getdefaulttimeout()
    socket.setdefaulttimeout(33)
    before = signal.getsignal(signal.SIGALRM)
    openml.fault = ("search", "404")
    try:
        with pytest.raises(OSError, match=r"^HTTPError: HTTP Error 404: Not Found$"):
            fetch(openml)
        assert socket.getdefaulttimeout() == 33
    finally:
        socket.setdefaulttimeout(kept)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


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
