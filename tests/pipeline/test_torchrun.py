"""The real stage under the real torchrun: the files of one process, and nothing when one dies."""

import csv
import os
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
    "models/start.safetensors",
]
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


def start(folder: Path, environment: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
    """Start a command in the background; what it prints goes to `log`."""
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment | ENVIRONMENT, stdout=log, stderr=log
        )


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


@pytest.mark.parametrize("folder", [{"train.epochs": 10_000}], indirect=True)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_one_line_and_no_model(
    victim: int, folder: Path, environment: dict[str, str]
) -> None:
    agent = start(folder, environment, *torchrun(2))
    wait_for("epoch     1/", folder / "log")
    workers = sorted(psutil.Process(agent.pid).children(), key=lambda worker: worker.pid)
    workers[victim].kill()
    assert agent.wait(timeout=300) == 1
    lines = (folder / "log").read_text(encoding="utf-8").splitlines()
    ours = [line for line in lines if line.startswith("train: ")]
    # The agent may end the other process before that has noticed.
    lost = "train: another process is gone, or silent for 120 s; no model was written"
    assert ours in ([lost], []), ours
    assert sum("Signal 9 (SIGKILL)" in line for line in lines) >= 1  # torchrun says which one
    assert contents(folder) == {}
    assert not any(worker.is_running() for worker in workers)


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
    printed = (folder / "log").read_text(encoding="utf-8")
    assert "agent that started this process is gone" in printed or "process is gone" in printed
    assert "Traceback" not in printed
    assert contents(folder) == {}


def test_after_a_death_torchrun_starts_over_and_ends_with_the_same_bits(
    small_outputs: Path, folder: Path, environment: dict[str, str], run: Run
) -> None:
    stages.small_parameters(**{"train.epochs": 300})
    run(folder, "python", "-m", "stages.train", env=ENVIRONMENT)
    alone = contents(folder)
    agent = start(folder, environment, *torchrun(2, "--max-restarts=1"))
    wait_for("epoch   1/", folder / "log")
    psutil.Process(agent.pid).children()[1].kill()
    printed = folder / "log"
    assert agent.wait(timeout=300) == 0, printed.read_text(encoding="utf-8")
    assert printed.read_text(encoding="utf-8").count("epoch   1/") == 2
    assert contents(folder) == alone


@pytest.mark.parametrize("folder", [{"train.batch_size": 2}], indirect=True)
def test_a_batch_that_cannot_feed_the_processes_is_refused(folder: Path, run: Run) -> None:
    result = run(folder, *torchrun(3), env=ENVIRONMENT, check=False)
    assert result.returncode == 1
    refusal = "train: train.batch_size: must be from 3 to the 150 rows that train (given: 2)"
    assert refusal in result.stdout.splitlines()
    assert contents(folder) == {}


def test_processes_that_were_told_different_things_do_not_train(
    folder: Path, environment: dict[str, str], run: Run
) -> None:
    """Two started by hand, as on two machines, with another learning rate in each params.yaml."""
    other = shutil.copytree(folder, folder.with_name("other"))
    os.chdir(other)
    stages.small_parameters(**{"train.learning_rate": 0.1})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = ("python", "-m", "stages.train")
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    first = start(folder, environment | place | ranks[0], *command)
    second = run(other, *command, env=ENVIRONMENT | place | ranks[1], check=False)
    assert (first.wait(timeout=300), second.returncode) == (1, 1)
    message = "train: all processes need the same learning_rate: it is {} in process {} and {} in"
    assert message.format(0.5, 0, 0.1) in (folder / "log").read_text(encoding="utf-8")
    assert message.format(0.1, 1, 0.5) in second.stdout
    assert contents(folder) == contents(other) == {}


def test_dvc_takes_torchrun_as_the_launcher(workspace: Path, reproduced: Path, run: Run) -> None:
    launcher = "launcher='torchrun --standalone --nproc-per-node 2'"
    run(workspace, "dvc", "exp", "run", "-S", launcher, "-S", "train.epochs=1", "train")
    curves = []
    for folder in (workspace, reproduced):
        with open(folder / OUTPUTS[0], encoding="utf-8") as file:
            curves.append(list(csv.DictReader(file))[:2])
    assert curves[0] == curves[1]
    assert "cmd: torchrun" in (workspace / "dvc.lock").read_text(encoding="utf-8")
