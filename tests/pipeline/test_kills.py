"""Trainings that are stopped at random moments end in the files of one that was not.

`KILLS=25 pytest tests/pipeline/test_kills.py` stops 25 trainings by kill -9, not one.
"""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from src.learning.models import MODELS
from tests.pipeline.test_torchrun import OUTPUTS, contents, start
from tests.support import stages

# 30 steps an epoch: several processes ask the first one every 25 whether a checkpoint is due.
RECIPE = {"train.batch_size": 5, "train.shuffle": True, "train.shift": 1, "train.keep": "best"}
RECIPE |= {"prepare.validation_rows": [150, 170], "prepare.test_rows": [170, 200]}
RECIPE |= {"train.learning_rate": 0.01}
EPOCHS = {"softmax_regression": 20, "mlp": 10}  # short ones; the others have 6
OPTIMIZERS = [{"train.optimizer": "adamw", "train.weight_decay": 0.01}, {"train.momentum": 0.9}]
KILL, AMID_A_WRITE = signal.SIGKILL, None


def is_stopped(process: subprocess.Popen[bytes], log: Path, how: signal.Signals | None) -> bool:
    """Stop a training after an epoch or two; say whether it had not ended before."""
    draw, parts = random.Random(), log.parent / ".checkpoints"
    lines = draw.randint(1, 2)
    while process.poll() is None and len(re.findall("^epoch ", log.read_text(), re.M)) < lines:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.2))
    while process.poll() is None and how is AMID_A_WRITE and not [*parts.glob("*.part")]:
        pass
    if process.poll() is not None:
        return False
    running = psutil.Process(process.pid)
    children = running.children()  # torchrun's
    draw.choice([running, *children]).send_signal(how or KILL)
    ended = process.wait(timeout=60)
    psutil.wait_procs(children, timeout=60)
    return ended != 0


@pytest.mark.parametrize("number", range(1 + int(os.environ.get("KILLS", "1"))))
def test_a_stopped_training_ends_in_the_files_of_one_that_was_not(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stages.small_data(side=16)
    model = [*MODELS][number % 5]
    changes = {"train.model": model, "train.epochs": EPOCHS.get(model, 6)}
    stages.small_parameters(**RECIPE | OPTIMIZERS[number // 5 % 2] | changes)
    for stage in ("prepare", "train"):
        stages.run_stage(stage).expect(0)
    expected = contents(tmp_path)
    stops = [KILL] * (1 if number % 4 else 3)
    if not number:
        stops = [AMID_A_WRITE, signal.SIGINT, signal.SIGTERM]
    while True:
        for name in OUTPUTS:
            (tmp_path / name).unlink(missing_ok=True)
        processes = 1 + (number + len(stops) + 1) % 2 if number else 1
        machine = {"MACHINE_PROCESSES": str(processes), "MACHINE_THREADS": random.choice("12")}
        machine["MACHINE_CHECKPOINT_SECONDS"] = "0.000001" if stops else "30"
        process = start(tmp_path, environment | machine, "python", "-m", "stages.train")
        if not stops:
            break
        if is_stopped(process, tmp_path / "log", stops[-1]):
            stops.pop()
    assert process.wait(timeout=300) == 0
    assert "train: goes on after epoch " in (tmp_path / "log").read_text(encoding="utf-8")
    assert len(expected) == len(OUTPUTS)
    assert contents(tmp_path) == expected
    assert not [*(tmp_path / ".checkpoints").iterdir()]
