"""The real stage under the real torchrun: the files of one process, and nothing when one dies."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import stages
from tests.support.clones import REPOSITORY, Run

OUTPUTS = [
    "metrics/plots/learning_curve.csv",
    "models/model.safetensors",
    "models/recipe.json",
    "models/snapshots.safetensors",
    "models/start.safetensors",
]
LOST = "train: another process is gone, or silent for 1800 s; no model was written"
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def torchrun(processes: int, *options: str) -> list[str]:
    command = ["torchrun", "--standalone", f"--nproc-per-node={processes}", *options]
    return [*command, "-m", "stages.train"]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}


@pytest.fixture
def folder(
    small_outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Path:
    """Return a folder to train in: the small data and changed parameters, no outputs of train."""
    copied = shutil.copytree(small_outputs / "data", tmp_path / "small" / "data").parent
    monkeypatch.chdir(copied)
    stages.small_parameters(**getattr(request, "param", {}))
    return copied


def start(
    folder: Path, environment: dict[str, str], *command: str, log: str = "log"
) -> subprocess.Popen[bytes]:
    """Start a command in the background; what it prints goes to a file."""
    with (folder / log).open("wb") as file:
        return subprocess.Popen(
            command, cwd=folder, env=environment | ENVIRONMENT, stdout=file, stderr=file
        )


def start_two(environment: dict[str, str], *folders: Path) -> list[subprocess.Popen[bytes]]:
    """Start two processes by hand, as on two machines; what they print goes to `log0`, `log1`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(
            folder,
            environment | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            *("python", "-m", "stages.train"),
            log=f"log{rank}",
        )
        for rank, folder in enumerate(folders)
    ]


def messages(log: Path) -> list[str]:
    """Return what was printed besides the lines of epochs and the warnings of torchrun."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not re.match(r"epoch |W\d{4} |\*{9}", line)]


def wait_for(text: str, log: Path) -> None:
    deadline = time.monotonic() + 300
    while text not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.01)


def test_one_of_three_processes_writes_the_files_of_a_process_alone(
    small_outputs: Path, folder: Path, run: Run
) -> None:
    """Batches of 20 rows and a last one of 10: shares differ by a row."""
    printed = run(folder, *torchrun(3), env=ENVIRONMENT).stdout
    assert contents(folder) == contents(small_outputs)
    assert len(contents(folder)) == len(OUTPUTS)
    assert printed.count("epoch 1/2") == 1


def test_two_processes_stop_by_patience_and_keep_the_best_epoch_of_one(
    folder: Path, run: Run
) -> None:
    choice = {"train.keep": "best", "train.patience": 2, "train.epochs": 50}
    choice |= {"train.model": "resnet", "train.learning_rate": 0.3}
    rows = {"prepare.test_rows": [150, 170], "prepare.validation_rows": [170, 200]}
    stages.small_parameters(**choice | rows)
    stages.run_stage("prepare").expect(0)
    stages.run_stage("train").expect(0, "so it ends early")
    alone = contents(folder)
    for name in OUTPUTS:
        (folder / name).unlink()
    assert "so it ends early; keeps" in run(folder, *torchrun(2), env=ENVIRONMENT).stdout
    assert contents(folder) == alone
    recipe = json.loads(alone["models/recipe.json"])
    assert recipe["epoch"] == recipe["epochs_run"] - 2 < 48


@pytest.mark.parametrize("folder", [{"train.epochs": 10_000}], indirect=True)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_one_line_and_no_model(
    victim: int, folder: Path, environment: dict[str, str]
) -> None:
    """Without torchrun, which might end the other process before that has noticed."""
    processes = start_two(environment, folder, folder)
    wait_for("epoch     1/", folder / "log0")
    processes[victim].kill()
    assert processes[1 - victim].wait(timeout=300) == 1
    assert messages(folder / f"log{1 - victim}") == [LOST]
    assert contents(folder) == {}
    processes[victim].wait()


@pytest.mark.parametrize("folder", [{"train.epochs": 10_000}], indirect=True)
def test_processes_whose_agent_is_killed_end_with_one_line_and_no_model(
    folder: Path, environment: dict[str, str]
) -> None:
    agent = start(folder, environment, *torchrun(2))
    wait_for("epoch     1/", folder / "log")
    workers = psutil.Process(agent.pid).children()
    agent.kill()
    agent.wait()
    _, left = psutil.wait_procs(workers, timeout=300)
    for worker in left:
        worker.kill()
    assert not left
    without_agent = "train: the agent that started this process is gone; no model was written"
    printed = messages(folder / "log")
    # The end of the first may be what the second sees.
    assert sorted(printed) in ([without_agent] * 2, [LOST, without_agent])
    assert contents(folder) == {}


def test_after_a_death_torchrun_starts_over_and_ends_with_the_same_bits(
    folder: Path, environment: dict[str, str]
) -> None:
    stages.small_parameters(**{"train.epochs": 300})
    stages.run_stage("train").expect(0)
    alone = contents(folder)
    for name in OUTPUTS:
        (folder / name).unlink()
    agent = start(folder, environment, *torchrun(2, "--max-restarts=1"))
    wait_for("epoch   1/", folder / "log")
    psutil.Process(agent.pid).children()[1].kill()
    printed = folder / "log"
    assert agent.wait(timeout=300) == 0, printed.read_text(encoding="utf-8")
    text = printed.read_text(encoding="utf-8")
    assert text.count("epoch   1/") == 1  # the second start goes on from the checkpoint
    assert "train: goes on after epoch " in text
    assert contents(folder) == alone


@pytest.mark.parametrize("folder", [{"train.batch_size": 1}], indirect=True)
def test_a_batch_that_cannot_feed_the_processes_is_refused(
    folder: Path, environment: dict[str, str]
) -> None:
    refusal = "train: train.batch_size: must be from 2 to the 150 rows that train (given: 1)"
    for rank, process in enumerate(start_two(environment, folder, folder)):
        assert process.wait(timeout=300) == 2
        assert messages(folder / f"log{rank}") == [refusal]
    assert contents(folder) == {}


def test_processes_that_were_told_different_things_do_not_train(
    folder: Path, environment: dict[str, str]
) -> None:
    """Another learning rate in each params.yaml."""
    other = shutil.copytree(folder, folder.with_name("other"))
    os.chdir(other)
    stages.small_parameters(**{"train.learning_rate": 0.1})
    processes = start_two(environment, folder, other)
    assert [process.wait(timeout=300) for process in processes] == [1, 1]
    message = "train: all processes need the same learning_rate: it is {} in process {} and {} in"
    assert message.format(0.5, 0, 0.1) in (folder / "log0").read_text(encoding="utf-8")
    assert message.format(0.1, 1, 0.5) in (other / "log1").read_text(encoding="utf-8")
    assert contents(folder) == contents(other) == {}
