"""Training by several processes: the same bits as by one, and nothing left when one dies."""

import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from src import distributed, tensors
from tests.conftest import REPOSITORY, Run
from tests.test_stages import command_of

ROWS, BATCH = 1003, 50  # the last batch has 3 rows: the first of 4 processes gets none of them
OUTPUTS = ("model", "recipe", "metrics", "learning_curve")
TORCHRUN = ("torchrun", "--nproc-per-node=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write a small data set; return it as flags."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 10, ROWS)
    images = generator.random((ROWS, 784), np.float32) / 2
    images[np.arange(ROWS), labels * 78] += 0.5
    tensors.write(str(folder / "data"), images=images, labels=labels)
    return [f"--train_data={folder / 'data'}", f"--test_data={folder / 'data'}"]


def train(data: list[str], folder: Path, **settings: object) -> list[str]:
    """Return the stage's module and flags, with its outputs in `folder`."""
    flags = {"device": "cpu", "threads": 1, "processes": 1, "seed": 7, "init": "normal"}
    flags |= {"epochs": 2, "batch_size": BATCH, "learning_rate": 0.5} | settings
    flags |= {name: folder / name for name in OUTPUTS}
    command = [f"--{name}={value}" for name, value in flags.items()]
    return ["-m", "stages.train", "--shuffle", "--no-drop_last", *command, *data]


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


def start(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen:
    """Start a command in the background; what it prints goes to `log` in `folder`."""
    with open(folder / "log", "w", encoding="utf-8") as log:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def workers_of(agent: subprocess.Popen, number: int) -> list[psutil.Process]:
    """Wait until an agent has started its workers; return them in the order of their ranks."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and agent.poll() is None:
        workers = psutil.Process(agent.pid).children()
        if len(workers) == number:
            return sorted(workers, key=lambda worker: worker.pid)
        time.sleep(0.01)
    raise AssertionError(f"no {number} workers; exit status {agent.poll()}")


def wait_for(text: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while text not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.01)


@pytest.mark.parametrize("size", range(1, 9))
def test_each_row_of_a_batch_is_in_one_share_and_shares_are_even(size: int) -> None:
    for rows in range(25):
        shares = [
            range(ROWS)[
                distributed.Group.share(SimpleNamespace(rank=r, size=size), slice(7, 7 + rows))
            ]
            for r in range(size)
        ]
        assert [row for share in shares for row in share] == list(range(7, 7 + rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_several_processes_give_the_bits_of_one(data: list[str], run: Run, tmp_path: Path) -> None:
    found = {}
    for processes in (1, 2, 3, 4):
        folder = tmp_path / str(processes)
        run(REPOSITORY, "python", *train(data, folder, processes=processes))
        assert sorted(path.name for path in folder.iterdir()) == sorted(OUTPUTS)
        found[processes] = digests(folder)
    assert found == dict.fromkeys(found, found[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"init": "normal"},
        {"learning_rate": "0.1", "epochs": "15", "shuffle": True, "drop_last": True},
    ],
    ids=["default", "normal", "shuffled"],
)
def test_two_processes_give_the_bits_of_one_in_the_tutorials_recipes(
    settings: dict, reproduced: Path, run: Run, tmp_path: Path
) -> None:
    found = []
    for processes in ("1", "2"):
        command = command_of(reproduced, "train")
        for name, value in {**settings, "processes": processes}.items():
            if value is True:
                command[command.index(f"--no-{name}")] = f"--{name}"
            else:
                command[command.index(f"--{name}") + 1] = value
        for name in OUTPUTS:
            command[command.index(f"--{name}") + 1] = str(tmp_path / processes / name)
        run(reproduced, *command)
        found.append(digests(tmp_path / processes))
    assert found[0] == found[1]


@pytest.fixture
def nodes() -> Iterator[list[tuple[str, list[str]]]]:
    """Return an address and the start of a command for each of two machines.

    They are two network namespaces with a cable between them; where those are not allowed, both
    are this machine.
    """
    names = [f"train-{os.getpid()}-{index}" for index in (0, 1)]
    cables = [f"t{os.getpid()}-{index}" for index in (0, 1)]
    addresses = ["10.201.77.1", "10.201.77.2"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "netns", names[0], "type", "veth",
           "peer", "name", cables[1], "netns", names[1])  # fmt: skip
        for name, cable, address in zip(names, cables, addresses, strict=True):
            ip("-netns", name, "address", "add", f"{address}/24", "dev", cable)
            ip("-netns", name, "link", "set", cable, "up")
            ip("-netns", name, "link", "set", "lo", "up")
        # gloo would take the address of the machine's name, which leads nowhere in there
        starts = [
            ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={cable}"]
            for name, cable in zip(names, cables, strict=True)
        ]
        yield list(zip(addresses, starts, strict=True))
    except (OSError, subprocess.CalledProcessError):  # no iproute2, or no right to use it
        yield [("127.0.0.1", ["env"]), ("127.0.0.1", ["env"])]
    finally:
        for name in names:
            if Path("/run/netns", name).exists():
                ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def test_two_machines_give_the_bits_of_one(
    nodes: list, data: list[str], environment: dict[str, str], run: Run, tmp_path: Path
) -> None:
    agents = []
    for node, (address, command) in enumerate(nodes):
        folder = tmp_path / str(node)
        folder.mkdir()
        command = [
            *command, "torchrun", "--nnodes=2", "--nproc-per-node=1", f"--local-addr={address}",
            "--rdzv-backend=c10d", f"--rdzv-endpoint={nodes[0][0]}:29417", "--rdzv-id=test",
            f"--rdzv-conf=is_host={1 - node},join_timeout=60",
            *train(data, folder),
        ]  # fmt: skip
        agents.append(start(command, environment, folder))
    for node, agent in enumerate(agents):
        assert agent.wait(timeout=120) == 0, (tmp_path / str(node) / "log").read_text()
    run(REPOSITORY, "python", *train(data, tmp_path / "alone"))
    wrote, other = sorted(("0", "1"), key=lambda node: not (tmp_path / node / "model").exists())
    assert digests(tmp_path / wrote) == digests(tmp_path / "alone")
    assert not any((tmp_path / other / name).exists() for name in OUTPUTS)


@pytest.mark.parametrize("attempt", range(5))
def test_a_killed_process_ends_the_training_with_one_error_and_no_model(
    attempt: int, data: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    victim, delay = random.choice((0, 1)), random.uniform(0, 4)
    agent = start(
        [sys.executable, *train(data, tmp_path, processes=2, epochs=10_000)], environment, tmp_path
    )
    workers = workers_of(agent, 2)
    time.sleep(delay)
    workers[victim].kill()
    status = agent.wait(timeout=60)
    where = f"rank {victim} killed after {delay} s"
    lines = (tmp_path / "log").read_text().splitlines()
    # "[": gloo's own, if it was just connecting
    errors = [line for line in lines if not line.startswith(("epoch", "[/", "[E", "[W"))]
    assert status == 1, where
    assert errors.pop() == f"train: SIGKILL ended process {victim} of 2, and the training with it"
    lost = ("train: another process is gone", "train: the other processes were not reached")
    assert not errors or (len(errors) == 1 and errors[0].startswith(lost)), (where, errors)
    assert [path.name for path in tmp_path.iterdir()] == ["log"], where
    assert not any(worker.is_running() for worker in workers), where


def test_processes_without_their_agent_end(
    data: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    agent = start(
        [sys.executable, *train(data, tmp_path, processes=2, epochs=10_000)], environment, tmp_path
    )
    workers = workers_of(agent, 2)
    wait_for("epoch     1/", tmp_path / "log")
    agent.kill()
    agent.wait()
    _, left = psutil.wait_procs(workers, timeout=60)
    for worker in left:
        worker.kill()
    assert not left
    assert not any((tmp_path / name).exists() for name in OUTPUTS)


def test_torchrun_starts_over_after_a_death_and_ends_with_the_same_bits(
    data: list[str], environment: dict[str, str], run: Run, tmp_path: Path
) -> None:
    command = [*TORCHRUN, "--max-restarts=1", *train(data, tmp_path, epochs=30)]
    agent = start(command, environment, tmp_path)
    workers = workers_of(agent, 2)
    wait_for("epoch  1/", tmp_path / "log")
    workers[1].kill()
    assert agent.wait(timeout=120) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_text().count("epoch  1/") == 2
    run(REPOSITORY, "python", *train(data, tmp_path / "alone", epochs=30))
    assert digests(tmp_path) == digests(tmp_path / "alone")


def test_a_batch_that_cannot_feed_the_processes_is_refused(
    data: list[str], run: Run, tmp_path: Path
) -> None:
    result = run(REPOSITORY, "python", *train(data, tmp_path, processes=51), check=False)
    assert result.returncode == 2
    assert "--batch_size: 50 is less than the 51 processes" in result.stdout


def by_hand(rank: int, port: int) -> dict[str, str]:
    """Return the variables by which torchrun tells a process its place, for one of two."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in place.items()}


def test_processes_that_were_told_different_things_do_not_train(
    data: list[str], environment: dict[str, str], run: Run, tmp_path: Path
) -> None:
    first = start(
        [sys.executable, *train(data, tmp_path, learning_rate=0.1)],
        environment | by_hand(0, 29418),
        tmp_path,
    )
    second = run(REPOSITORY, "python", *train(data, tmp_path), env=by_hand(1, 29418), check=False)
    assert first.wait(timeout=60) == 1
    assert second.returncode == 1
    message = "train: all processes need the same learning_rate: it is {} in process {} and {} in"
    assert message.format(0.1, 0, 0.5) in (tmp_path / "log").read_text()
    assert message.format(0.5, 1, 0.1) in second.stdout
    assert not any((tmp_path / name).exists() for name in OUTPUTS)


def test_a_process_that_loses_another_says_so_and_writes_no_model(
    data: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, *train(data, tmp_path, epochs=10_000)]
    (tmp_path / "second").mkdir()
    first = start(command, environment | by_hand(0, 29420), tmp_path)
    second = start(command, environment | by_hand(1, 29420), tmp_path / "second")
    wait_for("epoch     1/", tmp_path / "log")
    second.kill()
    second.wait()
    assert first.wait(timeout=60) == 1
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last == "train: another process is gone, or silent for 120 s; no model was written"
    assert not any((tmp_path / name).exists() for name in OUTPUTS)


def test_a_process_that_does_not_reach_the_others_says_so(run: Run) -> None:
    code = """
import datetime, torch
from src import distributed
distributed.TIMEOUT = datetime.timedelta(seconds=1)
try:
    distributed.Group(torch.device("cpu"))
except OSError as error:
    print("refused:", error)
"""
    printed = run(REPOSITORY, "python", "-c", code, env=by_hand(0, 29419)).stdout
    assert "refused: the other processes were not reached: " in printed


def test_one_process_imports_nothing_of_torch_distributed_but_what_torch_does(
    data: list[str], run: Run, tmp_path: Path
) -> None:
    def imported(*arguments: str) -> set[str]:
        printed = run(REPOSITORY, "python", "-X", "importtime", *arguments).stdout
        modules = set(re.findall(r"^import time:.*\| +(\S+)$", printed, re.MULTILINE))
        return {name for name in modules if "distributed" in name}

    assert imported(*train(data, tmp_path)) == imported("-c", "import torch")
