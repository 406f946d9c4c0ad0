"""Ctrl-C, SIGTERM and kills of real processes: a line at most, and nothing is left or lost."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support.clones import Run
from tests.support.stages import small_parameters, start

Environment = dict[str, str]


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
