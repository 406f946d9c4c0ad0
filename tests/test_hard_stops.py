"""Stages, DVC or both killed at random moments, and Ctrl-C: the next `dvc repro` mends all."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.stage_runner import STAGES
from tools.torture import TARGETS, Clone

SEED = 20


@pytest.fixture(scope="module")
def clone(reproduced: Path, environment: dict[str, str], tmp_path_factory) -> Clone:
    return Clone(reproduced, tmp_path_factory.mktemp("torture") / "clone", environment)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_after_kills_at_five_random_moments_the_lock_is_as_committed(
    stage: str, clone: Clone
) -> None:
    draw = random.Random(f"{SEED} {stage}")
    duration = clone.seconds(stage)
    targets = [*draw.sample(TARGETS[:3], 3), *draw.sample(TARGETS[:3], 2)]
    ended = [clone.strike(stage, target, draw.uniform(0, duration)) for target in targets]
    assert sum(seconds is not None for seconds in ended) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_says_so_in_one_line(stage: str, clone: Clone) -> None:
    dvc, child = clone.force(stage)
    # From the first import inside main() on; before, Python itself is starting.
    while not any("numpy" in mapped.path for mapped in child.memory_maps()):
        time.sleep(0.01)
    os.killpg(dvc.pid, signal.SIGINT)
    output, _ = dvc.communicate()
    assert dvc.returncode, output
    assert f"\n{stage}: interrupted\n" in output
    assert "Traceback" not in output
    clone.check()


@pytest.mark.slow
def test_dvc_names_its_list_of_locks_where_a_kill_cut_it_short(workspace: Path, run: Run) -> None:
    locks = workspace / ".dvc" / "tmp" / "rwlock"
    locks.write_text("")
    result = run(workspace, "dvc", "repro", "--force", "--single-item", "evaluate", check=False)
    assert result.returncode
    assert "Unable to read RWLock-file '.dvc/tmp/rwlock'" in result.stdout
    locks.unlink()
    run(workspace, "dvc", "repro", "--force", "--single-item", "evaluate")
    assert run(workspace, "git", "status", "--porcelain").stdout == ""
