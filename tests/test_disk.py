"""Disks that are full, read-only or not ours, at every output of every stage."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage_runner import INPUTS, OUTPUTS, STAGES, flags, run_stage

PAIRS = [(stage, path) for stage in STAGES for path in OUTPUTS[stage]]
NOBODY = 65534


def state(stage: str) -> dict[str, bytes | None]:
    """Return each output's content, None where it is absent."""
    return {
        path: Path(path).read_bytes() if Path(path).exists() else None for path in OUTPUTS[stage]
    }


def expect_failure(stage: str, path: str, *reasons: str) -> None:
    """Expect one line that names the output, or one beside it that comes first, and the reason."""
    outcome = run_stage(stage, *flags(stage))
    beside = [other for other in OUTPUTS[stage] if Path(path).parent in Path(other).parents]
    lines = [line for line in outcome.output.splitlines() if "cannot be written" in line]
    assert len(lines) == 1, outcome.output
    assert any(f"{stage}: {other} cannot be written: " in lines[0] for other in beside)
    assert any(reason in lines[0] for reason in reasons), lines
    assert outcome.status == 1
    assert "Traceback" not in outcome.output


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def own_file_system(folder: Path, size: str) -> Iterator[None]:
    """Put a small file system in a folder's place, with the folder's files."""
    copy = shutil.copytree(folder, folder.with_name(f"{folder.name}.copy"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_are_replaced_not_written_into(stage: str, small: Path) -> None:
    """DVC's cache may be linked to them, and a reader never sees half a file."""
    complete = state(stage)
    for path in OUTPUTS[stage]:
        Path(path).unlink()
        Path(path).write_bytes(b"before")
        os.link(path, f"{path}.linked")
    assert run_stage(stage, *flags(stage)).status == 0
    assert state(stage) == complete
    for path in OUTPUTS[stage]:
        assert Path(f"{path}.linked").read_bytes() == b"before"


@pytest.mark.parametrize("before", ["present", "absent"])
@pytest.mark.parametrize(("stage", "path"), PAIRS)
def test_a_file_larger_than_allowed(stage: str, path: str, before: str, small: Path) -> None:
    complete = state(stage)
    if before == "absent":
        for output in OUTPUTS[stage]:
            Path(output).unlink()
    with file_size_limit(len(complete[path]) - 1):
        outcome = run_stage(stage, *flags(stage))
    outcome.expect(1, " cannot be written: ", "File too large")
    # What was written before the failure is complete; the rest is as it was.
    for output, content in state(stage).items():
        assert content == complete[output] or (before == "absent" and content is None)
    assert not list(small.rglob("*.part"))


@pytest.mark.parametrize(("stage", "path"), PAIRS)
def test_a_full_disk(stage: str, path: str, small: Path) -> None:
    complete, folder = state(stage), Path(path).parent
    with own_file_system(folder, "2m"):
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        expect_failure(stage, path, "No space left on device")
        assert state(stage) == complete
        assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize(("stage", "path"), PAIRS)
def test_a_read_only_disk(stage: str, path: str, small: Path) -> None:
    complete, folder = state(stage), Path(path).parent
    with own_file_system(folder, "2m"):
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        expect_failure(stage, path, "Read-only file system")
        assert state(stage) == complete


@contextlib.contextmanager
def without_privileges(folder: Path) -> Iterator[None]:
    """Act as a user whom permissions bind, owner of all in the folder."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.mark.parametrize(("stage", "path"), PAIRS)
def test_a_folder_without_permission(
    stage: str, path: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIKIT_LEARN_DATA", "scikit_learn_data")  # above it we may not look
    complete, folder = state(stage), Path(path).parent
    folder.chmod(0o555)
    try:
        with without_privileges(small):
            expect_failure(stage, path, "Permission denied")
    finally:
        folder.chmod(0o755)
    assert state(stage) == complete


@pytest.mark.parametrize(
    ("stage", "path"),
    [  # a folder that holds an input as well would fail for that
        (stage, path)
        for stage, path in PAIRS
        if not any(Path(path).parent in Path(other).parents for other in INPUTS[stage])
    ],
)
def test_a_folder_that_cannot_be_made(stage: str, path: str, small: Path) -> None:
    folder = Path(path).parent
    shutil.rmtree(folder)
    folder.write_text("a file stands in its place")
    expect_failure(stage, path, "File exists", "Not a directory")
    assert folder.read_text() == "a file stands in its place"


@pytest.mark.parametrize(("stage", "path"), PAIRS)
def test_a_folder_in_the_outputs_place(stage: str, path: str, small: Path) -> None:
    Path(path).unlink()
    Path(path).mkdir()
    expect_failure(stage, path, "Is a directory")
    assert not list(small.rglob("*.part"))


@pytest.mark.parametrize(
    ("stage", "path"), [(stage, path) for stage in STAGES for path in INPUTS[stage]]
)
def test_an_input_without_permission(stage: str, path: str, small: Path) -> None:
    Path(path).chmod(0)
    with without_privileges(small):
        outcome = run_stage(stage, *flags(stage))
    outcome.expect(1, f"{stage}: {path} cannot be read: Permission denied")
