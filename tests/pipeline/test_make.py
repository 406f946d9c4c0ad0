"""The Makefile, in a folder with a space in its path: when it makes the environment, and verify.

The pipeline is one of two quick stages: `make` asks nothing else of it. What the real one computes
in a fresh clone is in test_repro.py and, by `make repro`, on the page that test_pages.py follows.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import clones
from tests.support.clones import REPOSITORY, Run

PIPELINE = """
stages:
  count:
    cmd: mkdir -p data && echo 42 | tee data/count > metrics.json
    outs: [data/count]
    metrics: [metrics.json: {cache: false}]
  report:
    cmd: mkdir -p metrics/report && wc metrics.json > metrics/report/index.html
    deps: [metrics.json]
    outs: [metrics/report/index.html]
"""
PYTHON = f"PYTHON={sys.executable}"


def commit(folder: Path, run: Run) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=all as it is")


@pytest.fixture
def checkout(tmp_path: Path, run: Run) -> Path:
    """Return an up-to-date checkout for `make`, which takes the tests' environment for its own."""
    folder = tmp_path / "a folder"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n", encoding="utf-8")
    for name in ("Makefile", ".gitignore", "requirements.lock"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("src", "tools"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "repro")
    commit(folder, run)
    (folder / ".venv").mkdir()
    (folder / stamp(folder, run)).touch()
    (tmp_path / "tmp").mkdir()
    return folder


def stamp(folder: Path, run: Run) -> str:
    """Return the file that stands for the environment, once `make` has made it."""
    planned = run(folder, "make", "--dry-run", "--always-make", "install", PYTHON).stdout
    return re.findall(r"^touch (.*)$", planned, re.MULTILINE)[0]


def test_the_environment_is_made_anew_for_another_python_place_or_lock(
    tmp_path: Path, run: Run
) -> None:
    def is_made(folder: Path, python: str = PYTHON) -> bool:
        return not run(folder, "make", "--question", "install", python, check=False).returncode

    folder = tmp_path / "a folder"
    (folder / ".venv").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(REPOSITORY / name, folder)
    assert not is_made(folder)
    (folder / stamp(folder, run)).touch()
    assert is_made(folder)
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho another Python\n")
    other.chmod(0o755)
    assert not is_made(folder, f"PYTHON={other}")
    moved = folder.rename(tmp_path / "moved")
    assert not is_made(moved)
    folder = moved.rename(folder)
    os.utime(folder / "requirements.lock", (time.time() + 9, time.time() + 9))
    assert not is_made(folder)


def test_report_prints_an_address_that_a_terminal_can_open(checkout: Path, run: Run) -> None:
    printed = run(checkout, "make", "report", PYTHON).stdout
    address = printed.split()[-1]
    assert address == (checkout / "metrics/report/index.html").as_uri()
    assert "a%20folder" in address


def test_verify_computes_all_anew_and_fails_where_a_committed_result_is_not_what_comes_out(
    checkout: Path, tmp_path: Path, run: Run
) -> None:
    def verify() -> subprocess.CompletedProcess[str]:
        temporary = {"TMPDIR": str(tmp_path / "tmp")}
        result = run(checkout, "make", "verify", PYTHON, env=temporary, check=False)
        assert result.stdout.count("Running stage") == 2, result.stdout
        assert list((tmp_path / "tmp").iterdir()) == []
        return result

    head = run(checkout, "git", "rev-parse", "--short", "HEAD").stdout
    result = verify()
    assert result.returncode == 0
    assert result.stdout.endswith(f"\nverify: all results are those of commit {head}")

    (checkout / "metrics.json").write_text("43\n", encoding="utf-8")
    commit(checkout, run)
    result = verify()
    assert "verify] Error 1" in result.stdout
    assert "\n-43\n+42\n" in result.stdout
    assert "all results" not in result.stdout


def test_verify_leaves_nothing_behind_when_it_is_ended(
    checkout: Path, tmp_path: Path, run: Run, environment: dict[str, str]
) -> None:
    slow = PIPELINE.replace("mkdir -p data", "sleep 20 && mkdir -p data")
    (checkout / "dvc.yaml").write_text(slow, encoding="utf-8")
    commit(checkout, run)
    with subprocess.Popen(
        ["make", "verify", PYTHON],
        cwd=checkout,
        env=environment | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as verify:
        assert verify.stdout
        assert any("> sleep 20" in line for line in verify.stdout)
        [tool] = psutil.Process(verify.pid).children()
        [dvc] = tool.children()
        assert dvc.cmdline()[-1] == "repro"
        started = time.monotonic()
        verify.send_signal(signal.SIGTERM)
        assert verify.wait(timeout=60)
        took = time.monotonic() - started
        assert psutil.wait_procs([dvc], timeout=10)[0], "dvc works on, in a folder that is gone"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert took < 10  # it does not wait for the stage


def test_verify_works_where_the_project_is_a_folder_of_a_larger_repository(
    checkout: Path, tmp_path: Path, run: Run
) -> None:
    larger = tmp_path / "larger"
    larger.mkdir()
    run(larger, "git", "init", "--quiet")
    project = larger / "my project"
    ignore = shutil.ignore_patterns(".git", "tmp", "cache")
    shutil.copytree(checkout, project, ignore=ignore)
    commit(larger, run)
    result = run(project, sys.executable, "-m", "tools.verify")
    assert result.stdout.splitlines()[-1].startswith("verify: all results are those of commit ")


def test_restore_says_of_a_dvc_lock_in_conflict_what_to_do(checkout: Path, run: Run) -> None:
    lock = (checkout / "dvc.lock").read_text(encoding="utf-8")
    conflict = f"<<<<<<< HEAD\n{lock}=======\n{lock}>>>>>>> other\n"
    (checkout / "dvc.lock").write_text(conflict, encoding="utf-8")
    result = run(checkout, "make", "restore", "FILE=data/count", PYTHON, check=False)
    assert result.returncode == 2
    assert result.stdout.startswith(
        "restore: dvc.lock cannot be used, maybe for a merge's conflict"
    )
    assert "Traceback" not in result.stdout
    assert (checkout / "data" / "count").exists()


def test_restore_makes_an_output_anew_and_refuses_any_other_file(checkout: Path, run: Run) -> None:
    for name in ("Makefile", "none", "", "../x"):
        result = run(checkout, "make", "restore", f"FILE={name}", PYTHON, check=False)
        assert "FILE must be what a stage writes, and not " in result.stdout
        assert "those are data/count" in result.stdout
    digest = hashlib.md5(b"42\n").hexdigest()  # noqa: S324
    clones.tamper(checkout / ".dvc/cache/files/md5" / digest[:2] / digest[2:], b"41\n")
    run(checkout, "make", "restore", "FILE=./data/count", PYTHON)
    assert (checkout / "data" / "count").read_text(encoding="utf-8") == "42\n"


def test_repro_names_what_would_lose_experiments_with_its_cure(tmp_path: Path, run: Run) -> None:
    def check(folder: Path) -> str:
        here = {"PYTHONPATH": str(REPOSITORY)}
        return str(run(folder, sys.executable, "-m", "tools.check", env=here).stdout)

    whole = tmp_path / "a folder"
    whole.mkdir()
    assert check(whole) == ""  # no repository
    run(whole, "git", "init", "--quiet")
    for name in ("a", "b"):
        (whole / name).touch()
        commit(whole, run)
    assert check(whole) == ""
    shallow = tmp_path / "shallow"
    run(tmp_path, "git", "clone", "--quiet", "--depth=1", whole.as_uri(), shallow)
    assert check(shallow) == (
        "check: this clone is shallow: `dvc exp run --temp` and `--queue` fail, or lose their "
        "results. Cure: `git fetch --unshallow`\n"
    )
    run(shallow, "git", "fetch", "--quiet", "--unshallow")
    assert check(shallow) == ""
    for sign in ("%20", "%2F", "#", "?", "é"):
        folder = tmp_path / f"a{sign}b"
        folder.mkdir()
        assert f"has {sign!r} in it: " in check(folder)
    (tmp_path / "100%").mkdir()
    assert check(tmp_path / "100%") == ""
