"""Which device a parameter's value stands for; what is not here is refused with what is."""

import pytest
import torch

from src.common.command import UsageError
from src.learning import device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Let torch count two GPUs, and return the devices that were made the current one."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("name", "local_rank", "expected"),
    [
        ("cpu", None, "cpu"),
        ("auto", None, "cuda:0"),
        ("auto", "1", "cuda:1"),
        ("cuda", "1", "cuda:1"),
        ("cuda:0", "1", "cuda:0"),
    ],
)
def test_each_process_of_a_machine_takes_its_own_gpu(
    name: str,
    local_rank: str | None,
    expected: str,
    two_gpus: list[torch.device],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    found = device.choose("train.device", name)
    assert str(found) == expected
    assert two_gpus == ([] if name == "cpu" else [found])


def test_auto_is_the_one_gpu_or_the_cpu_where_there_is_none(
    two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for gpus, expected in ((1, "cuda:0"), (0, "cpu")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert device.choose("train.device", "auto") == torch.device(expected)
    assert two_gpus == [torch.device("cuda:0")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", r"mps has no float64, .* use cpu \(given: 'mps'\)$"),
        ("cuda:2", r"not on this machine, which has cuda:0, cuda:1, cpu \(given: 'cuda:2'\)$"),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_a_device_that_is_not_here_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"^train\.device: {message}"):
        device.choose("train.device", name)
