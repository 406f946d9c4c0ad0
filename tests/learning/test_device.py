"""Which device a parameter's value stands for; what is not here is refused with what is."""

from typing import Any

import pytest
import torch

from src.common.command import UsageError
from src.learning import device


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Let torch count two GPUs, and return the devices that were made the current one."""
    found: list[torch.device] = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    return found


@pytest.mark.parametrize(
    ("gpus", "name", "local_rank", "expected"),
    [
        (2, "cpu", None, "cpu"),
        (2, "auto", None, "cuda:0"),
        (2, "auto", "1", "cuda:1"),
        (2, "cuda", "1", "cuda:1"),
        (2, "cuda:0", "1", "cuda:0"),
        (1, "auto", None, "cuda:0"),
        (0, "auto", None, "cpu"),
    ],
)
def test_each_process_of_a_machine_takes_its_own_gpu_or_the_cpu_where_there_is_none(
    gpus: int, name: str, local_rank: str | None, expected: str, chosen: list, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if local_rank:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert device.choose("train.device", name) == torch.device(expected)
    assert chosen == ([] if expected == "cpu" else [torch.device(expected)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", r"mps has no float64, .* use cpu \(given: 'mps'\)$"),
        ("cuda:2", r"not on this machine, which has cuda:0, cuda:1, cpu \(given: 'cuda:2'\)$"),
    ],
)
@pytest.mark.usefixtures("chosen")
def test_a_device_that_is_not_here_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"^train\.device: {message}"):
        device.choose("train.device", name)
