"""The Makefile, in a folder with a space in its path: when it makes the environment, and verify."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import clones
from tests.support.clones import REPOSITORY, Run

METRICS = "metrics/evaluate.json"


@pytest.fixture
def checkout(reproduced: Path, tmp_path: Path, run: Run) -> Path:
    """Return an up-to-date clone for `make`, which finds an environment that it takes for its own.

    The programs come from the one that runs the tests.
    """
    folder = tmp_path / "a folder"
    folder.mkdir()
    clone = clones.clone(folder / "clone", reproduced, run)
    (clone / ".venv").mkdir()
    (clone / stamp(clone, run)).touch()
    (tmp_path / "tmp").mkdir()
    return clone


def stamp(folder: Path, run: Run, python: str = sys.executable) -> str:
    """Return the file that stands for the environment, once `make` has made it."""
    planned = run(
        folder, "make", "--dry-run", "--always-make", "install", f"PYTHON={python}"
    ).stdout
    return re.findall(r"^touch (.*)$", planned, re.MULTILINE)[0]


def test_the_environment_is_made_anew_for_another_python_place_or_lock(
    tmp_path: Path, run: Run
) -> None:
    def is_made(folder: Path, python: str = sys.executable) -> bool:
        command = ("make", "--question", "install", f"PYTHON={python}")
        return not run(folder, *command, check=False).returncode

    folder = tmp_path / "a folder"
    (folder / ".venv").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock"):
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    assert not is_made(folder)
    (folder / stamp(folder, run)).touch()
    assert is_made(folder)
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho another Python\n")
    other.chmod(0o755)
    assert not is_made(folder, str(other))
    moved = folder.rename(tmp_path / "moved")
    assert not is_made(moved)
    folder = moved.rename(folder)
    os.utime(folder / "requirements.lock", (time.time() + 9, time.time() + 9))
    assert not is_made(folder)


def test_report_prints_an_address_that_a_terminal_can_open(checkout: Path, run: Run) -> None:
    printed = run(checkout, "make", "report", f"PYTHON={sys.executable}").stdout
    address = printed.split()[-1]
    assert address == (checkout / "metrics/report/index.html").as_uri()
    assert "a%20folder" in address


def test_verify_fails_and_shows_a_committed_result_that_is_not_computed(
    checkout: Path, tmp_path: Path, run: Run
) -> None:
    metrics = json.loads((checkout / METRICS).read_text(encoding="utf-8"))
    false = json.dumps(metrics | {"accuracy": 0.9999}, indent=2) + "\n"
    (checkout / METRICS).write_text(false, encoding="utf-8")
    run(checkout, "git", "commit", "--quiet", "--all", "--message=a result that nobody computed")
    command = ("make", "verify", f"PYTHON={sys.executable}")
    result = run(checkout, *command, env={"TMPDIR": str(tmp_path / "tmp")}, check=False)
    assert "verify] Error 1" in result.stdout
    assert result.stdout.count("Running stage") == 5
    assert '-  "accuracy": 0.9999,\n+  "accuracy": ' in result.stdout
    assert list((tmp_path / "tmp").iterdir()) == []


def test_verify_leaves_nothing_behind_when_it_is_ended(
    checkout: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    with subprocess.Popen(
        ["make", "verify", f"PYTHON={sys.executable}"],
        cwd=checkout,
        env=environment | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as verify:
        assert verify.stdout
        assert any("python -m stages.fetch" in line for line in verify.stdout)
        started = time.monotonic()
        verify.send_signal(signal.SIGTERM)
        assert verify.wait(timeout=60)
        took = time.monotonic() - started
    assert list((tmp_path / "tmp").iterdir()) == []
    assert took < 30  # it does not wait for the stages
