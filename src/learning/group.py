"""The processes that train together: one alone, or several that torchrun started.

Each computes the gradient of its share of a batch; one all_reduce a step adds them up. Every sum is
exact, so the parameters are the same bits for any number of processes.
"""

import atexit
import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.rendezvous import rendezvous

# How long a process waits for the others when it joins them.
TIMEOUT = timedelta(minutes=2)
# How long it waits for them in each all_reduce: the first one may be checking the data or scoring
# many rows. That a process has died shows at once, as its connection ends.
SILENCE = timedelta(minutes=30)


class Group:
    """One process, which has all rows.

    Attributes:
        rank: this process's number, from 0; the first one scores, prints and writes.
        local_rank: its number on this machine.
        size: how many processes there are.
    """

    rank = local_rank = 0
    size = 1

    def agree(self, **settings: object) -> None:
        """Check that all processes were given the same.

        Raises:
            OSError: names the first that differs, or says that a process is gone.
        """

    def share(self, batch: slice) -> slice:
        """Return the rows of a batch that are this process's: maybe none, never another's."""
        rows = batch.stop - batch.start
        return slice(
            batch.start + rows * self.rank // self.size,
            batch.start + rows * (self.rank + 1) // self.size,
        )

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over the processes.

        Raises:
            OSError: another process, or the agent that started this one, is gone.
        """

    def share_object(self, found: Any) -> Any:
        """Return what the first process found, in every process."""
        return found

    def first_says(self, answer: bool, device: torch.device) -> bool:
        """Return the first process's answer, in every process."""
        if self.size == 1:
            return answer
        flag = torch.tensor(int(answer and self.rank == 0), device=device)
        self.add_up(flag)
        return bool(flag.item())


class DistributedGroup(Group):
    """Several processes, as the environment variables that torchrun sets say."""

    def __init__(self, device: torch.device) -> None:
        """Join the others.

        Raises:
            OSError: they are not there within TIMEOUT.
        """
        self.agent = os.getppid()
        cuda = device.type == "cuda"
        try:
            store, self.rank, self.size = next(rendezvous("env://", timeout=TIMEOUT))
            # The agent's store keeps the addresses of processes that died, and would hand them
            # out after a restart (PyTorch issue 135712). Agents of several machines count
            # restarts differently; docs/scale.md has the remedy for them.
            if os.environ.get("GROUP_WORLD_SIZE") == "1":
                restart = os.environ["TORCHELASTIC_RESTART_COUNT"]
                store = dist.PrefixStore(restart, store)  # type: ignore[attr-defined]
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",  # scores are added up on the CPU
                store=store,
                rank=self.rank,
                world_size=self.size,
                timeout=SILENCE,
                device_id=device if cuda else None,
            )
        except (RuntimeError, ValueError) as error:
            raise OSError(
                f"the other processes were not reached: {str(error).partition(chr(10))[0]}"
            ) from error
        atexit.register(dist.destroy_process_group)  # else gloo's threads abort the exit
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))

    def agree(self, **settings: object) -> None:
        everyone: list[dict[str, object]] = [settings] * self.size
        self.together(dist.all_gather_object, everyone, settings)
        for rank, theirs in enumerate(everyone):
            for name, value in settings.items():
                if theirs.get(name) != value:
                    raise OSError(
                        f"all processes need the same {name}: it is {value!r} in process "
                        f"{self.rank} and {theirs.get(name)!r} in process {rank}"
                    )

    def add_up(self, tensor: torch.Tensor) -> None:
        self.together(dist.all_reduce, tensor)

    def share_object(self, found: Any) -> Any:
        shared = [found]
        self.together(dist.broadcast_object_list, shared)
        return shared[0]

    def together(self, collective: Callable[..., object], *arguments: object) -> None:
        """Call what all processes call, or raise OSError if they do not."""
        if os.getppid() != self.agent:  # a process without its agent would be left behind
            raise OSError("the agent that started this process is gone; no model was written")
        try:
            collective(*arguments)
        except RuntimeError as error:
            raise OSError(
                f"another process is gone, or silent for {SILENCE.seconds} s; no model was written"
            ) from error


def is_under_torchrun() -> bool:
    """Say whether torchrun, or whatever sets its variables, started this process."""
    return os.environ.keys() >= {"RANK", "WORLD_SIZE"}


def start_processes(count: int, module: str) -> NoReturn:
    """Become torchrun, with so many processes of a module on this machine, and end as they end.

    Each process prints what is wrong. torchrun's own log and traceback would bury that.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, with a banner about it
    logging.disable()
    # Without the address torchrun hangs where the machine's own name does not resolve.
    here = ["--standalone", "--local-addr", "127.0.0.1"]
    try:
        run.main([*here, "--nproc-per-node", str(count), "-m", module])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # a signal, of which it could say nothing
            raise OSError(f"process {rank} was ended by signal {-failure.exitcode}") from error
        sys.exit(failure.exitcode)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    sys.exit(0)


def join(device: torch.device) -> Group:
    """Return the group that this process is in; raises as DistributedGroup."""
    return DistributedGroup(device) if is_under_torchrun() else Group()
