"""Disks that are full, read-only or not ours, for both kinds of writers and for reading."""

import contextlib
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from src.common import dataset, files, tensors
from tests.support import stages
from tests.support.clones import REPOSITORY

WRITERS: dict[str, Callable[[int], None]] = {
    "files.write": lambda value: files.write("out/file", bytes([value]) * 1_000_000),
    "data.write_raw": lambda value: dataset.write_raw(
        "out/file", np.full((1000, 1, 25, 40), value, np.uint8), np.zeros(1000, np.uint8)
    ),
}
each_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a file of before in its folder `out`."""
    monkeypatch.chdir(tmp_path)
    files.write("out/file", b"before")
    return Path("out")


def expect_failure(write: Callable[[int], None], reason: str) -> None:
    """Expect an error that names the file, which stands as before, and nothing beside it."""
    with pytest.raises(OSError, match=rf"^out/file cannot be written: {reason}$"):
        write(1)
    assert Path("out/file").read_bytes() == b"before"
    assert not list(Path("out").glob("*.part"))


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[None]:
    """Mount a file system of 64 kB, with a file of before."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        (folder / "file").write_bytes(b"before")
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Act as a user whom permissions bind, who owns all that is in the present folder."""
    is_root = os.geteuid() == 0
    if is_root:
        for path in (Path(), *Path().rglob("*")):
            shutil.chown(path, 65534, 65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@each_writer
def test_a_file_larger_than_allowed(write: Callable[[int], None]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        expect_failure(write, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    write(1)


@each_writer
def test_a_full_disk_and_a_read_only_one(write: Callable[[int], None], out: Path) -> None:
    with small_file_system(out):
        expect_failure(write, "No space left on device")
        subprocess.run(["mount", "-o", "remount,ro", out], check=True)
        expect_failure(write, "Read-only file system")


def test_a_full_disk_under_the_checkpoints_is_a_warning_and_the_training_goes_on(
    small: Path,
) -> None:
    model, folder = Path("models/model.safetensors").read_bytes(), small / ".checkpoints"
    with small_file_system(folder):
        (folder / "file").write_bytes(bytes(60_000))
        warnings = stages.run_stage("train").expect(0, "all epochs are done").errors
    pattern = (
        r"train: no checkpoint: .checkpoints/\w{32}.checkpoint cannot be written: No space .*\n"
    )
    assert re.fullmatch(pattern * 2, warnings)
    assert Path("models/model.safetensors").read_bytes() == model


@each_writer
def test_a_folder_without_permission(write: Callable[[int], None], out: Path) -> None:
    out.chmod(0o555)
    with without_privileges():
        expect_failure(write, "Permission denied")


@each_writer
def test_a_folder_in_the_files_place_and_a_file_in_the_folders(
    write: Callable[[int], None], out: Path
) -> None:
    (out / "file").unlink()
    (out / "file").mkdir()
    with pytest.raises(OSError, match=r"^out/file cannot be written: Is a directory$"):
        write(1)
    assert [path.name for path in out.iterdir()] == ["file"]
    shutil.rmtree(out)
    out.write_bytes(b"a file")
    with pytest.raises(OSError, match=r"^out/file cannot be written: File exists$"):
        write(1)
    assert out.read_bytes() == b"a file"


@pytest.mark.parametrize(
    "read",
    [files.read_json, dataset.read_raw, dataset.read, lambda path: files.read_csv(path, a=int)],
)
def test_a_file_that_may_not_be_read_or_is_a_folder(read: Callable[[str], object]) -> None:
    Path("out/file").chmod(0)
    with (
        without_privileges(),
        pytest.raises(OSError, match=r"^out/file cannot be read: Permission denied$"),
    ):
        read("out/file")
    with pytest.raises(OSError, match=r"^out cannot be read: Is a directory$"):
        read("out")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (files.read_json, "Input/output error"),
        (lambda path: files.read_csv(path, a=int), "Input/output error"),
        (tensors.read, "No such device"),  # it cannot be mapped
    ],
)
def test_an_error_of_the_system_amid_reading_is_not_called_damage(
    read: Callable[[str], object], reason: str
) -> None:
    with pytest.raises(OSError, match=rf"^/proc/self/mem cannot be read: {reason}$"):
        read("/proc/self/mem")


@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_amid_a_write_leaves_a_whole_file_and_the_next_write_clears_up(
    name: str, environment: dict[str, str]
) -> None:
    write, part, file = WRITERS[name], Path("out/file.part"), Path("out/file")
    whole = []
    for value in (1, 2):
        write(value)
        whole.append(file.read_bytes())
    code = "import sys\nfrom tests.faults.test_disk import WRITERS\n"
    code += "while True: [WRITERS[sys.argv[1]](value) for value in (1, 2)]"
    draw = random.Random(name)
    for _ in range(3):
        file.unlink()
        writer = subprocess.Popen(
            [sys.executable, "-c", code, name], env=environment | {"PYTHONPATH": str(REPOSITORY)}
        )
        while not file.exists():
            assert writer.poll() is None
        time.sleep(draw.uniform(0, 0.1))
        while not part.exists():
            assert writer.poll() is None
        writer.kill()
        writer.wait()
        assert file.read_bytes() in whole
    write(1)
    assert not part.exists()
