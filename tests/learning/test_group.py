"""The processes that train together; what needs several is in tests/pipeline/test_torchrun.py."""

import atexit
import datetime
import socket
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from src.learning import group
from src.learning.group import DistributedGroup, Group

CPU = torch.device("cpu")


@given(st.integers(1, 8), st.integers(0, 100), st.integers(0, 40))
def test_each_row_of_a_batch_is_in_one_share_and_shares_are_even(
    size: int, start: int, rows: int
) -> None:
    shares = []
    for rank in range(size):
        alone = Group()
        alone.rank, alone.size = rank, size
        share = alone.share(slice(start, start + rows))
        shares.append(range(share.start, share.stop))
    assert [row for share in shares for row in share] == list(range(start, start + rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Set what torchrun tells the first of its processes, of which there is one."""
    place = {"RANK": 0, "LOCAL_RANK": 3, "WORLD_SIZE": 1}
    for name, value in (place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}).items():
        monkeypatch.setenv(name, str(value))
    yield monkeypatch
    if dist.is_initialized():
        dist.destroy_process_group()
        atexit.unregister(dist.destroy_process_group)


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    alone = group.join(CPU)
    assert type(alone) is Group
    assert alone.share(slice(3, 9)) == slice(3, 9)
    values = torch.tensor([1.0, 2.0])
    alone.add_up(values)
    alone.agree(anything=1)
    assert values.tolist() == [1, 2]


def test_under_torchrun_a_process_joins_the_others(first: pytest.MonkeyPatch) -> None:
    joined = group.join(CPU)
    assert isinstance(joined, DistributedGroup)
    assert (joined.rank, joined.local_rank, joined.size) == (0, 3, 1)
    values = torch.tensor([1.0, 2.0])
    joined.add_up(values)
    joined.agree(seed=1, model="mlp")
    assert values.tolist() == [1, 2]

    def of_older_code(everyone: list[dict[str, object]], own: dict[str, object]) -> None:
        everyone[:] = [own, {"seed": 1}]

    first.setattr(dist, "all_gather_object", of_older_code)
    with pytest.raises(OSError, match="the same shift: it is 0 in process 0 and None in process 1"):
        joined.agree(seed=1, shift=0)


def test_an_error_of_torch_s_is_told_by_its_first_line(first: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise RuntimeError("no such\nException raised from")

    first.setattr(group, "rendezvous", refuse)
    with pytest.raises(OSError, match=r"^the other processes were not reached: no such$"):
        group.join(CPU)


def test_others_who_do_not_come_are_an_error_of_one_line(first: pytest.MonkeyPatch) -> None:
    first.setenv("WORLD_SIZE", "2")
    first.setattr(group, "TIMEOUT", datetime.timedelta(seconds=1))
    with pytest.raises(OSError, match=r"^the other processes were not reached: Timed out [^\n]*$"):
        group.join(CPU)
    first.delenv("MASTER_ADDR")
    with pytest.raises(OSError, match=r"^the other processes were not reached: .*MASTER_ADDR.*$"):
        group.join(CPU)
