"""Training by several processes, on one machine or many, through torchrun and torch.distributed.

Each process computes the gradient of its share of a batch; one all_reduce a step adds them up.
"""

import atexit
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

# How long a process waits for the others when it joins them and in each all_reduce. Meanwhile
# the first one may be checking the data or scoring the test rows.
TIMEOUT = timedelta(minutes=2)


def launch(processes: int, *command: str) -> int:
    """Run Python with `command` in several processes on this machine, under torchrun's agent.

    What they wrote to stderr is shown when they have ended, each line once.

    Returns:
        0, or the highest exit status of a process.

    Raises:
        OSError: a signal ended a process, or stopped the agent; all processes have ended.
    """
    # Imported only now: the processes that train do without.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # the agent's account of a failure, some thirty lines
    with tempfile.TemporaryDirectory(prefix="torchelastic_") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="train",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",  # any free port
            local_addr="127.0.0.1",  # not this machine's name, which may not resolve
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.ERR),
        )
        try:
            elastic_launch(config, sys.executable)(*command)
            ended = {0: 0}
        except ChildFailedError as error:
            ended = {rank: failure.exitcode for rank, failure in error.failures.items()}
        except SignalException as error:
            raise OSError(f"stopped by {error.sigval.name}") from None
        shown = set()
        for log in sorted(Path(folder).rglob("stderr.log")):
            lines = log.read_text(errors="replace").splitlines(keepends=True)
            print(*(line for line in lines if line not in shown), sep="", end="", file=sys.stderr)
            shown.update(lines)
    # Of several, a kill is the cause: the agent ends the rest with SIGTERM, or they fail by it.
    rank, status = min(ended.items(), key=lambda item: (item[1] == -signal.SIGTERM, item[1]))
    if status < 0:
        name = signal.Signals(-status).name
        raise OSError(f"{name} ended process {rank} of {processes}, and the training with it")
    return max(ended.values())


def device_name(name: str) -> str:
    """Give each process of a machine its own GPU.

    Raises:
        ValueError: a device that processes cannot share.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name in ("cuda", "auto"):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    raise ValueError(f"{name!r} is not for several processes; allowed: cpu, cuda or auto")


class Group:
    """The processes that train together.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        local_rank: this process's number on its machine, from 0.
    """

    def __init__(self, device: torch.device) -> None:
        """Join the others, as the environment variables that torchrun sets say.

        Raises:
            OSError: they are not there within TIMEOUT.
        """
        self.agent = os.getppid()
        cuda = device.type == "cuda"
        try:
            store, self.rank, self.size = next(dist.rendezvous("env://", timeout=TIMEOUT))
            # The agent's store keeps the addresses of processes that died, and would hand them
            # out after a restart (PyTorch issue 135712). Agents of several machines count
            # restarts differently; docs/scale.md has the remedy for them.
            if os.environ.get("GROUP_WORLD_SIZE") == "1":
                store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                store=store,
                rank=self.rank,
                world_size=self.size,
                timeout=TIMEOUT,
                device_id=device if cuda else None,
            )
        except (RuntimeError, ValueError) as error:
            raise OSError(
                f"the other processes were not reached: {str(error).partition(chr(10))[0]}"
            ) from error
        atexit.register(dist.destroy_process_group)  # else gloo's threads abort the exit
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))

    def agree(self, **settings: object) -> None:
        """Check that all processes were given the same.

        Raises:
            OSError: names the first that differs; or as `add_up`.
        """
        everyone = [settings] * self.size
        self.together(dist.all_gather_object, everyone, settings)
        for rank, theirs in enumerate(everyone):
            for name, value in settings.items():
                if theirs[name] != value:
                    raise OSError(
                        f"all processes need the same {name}: it is {value!r} in process "
                        f"{self.rank} and {theirs[name]!r} in process {rank}"
                    )

    def share(self, batch: slice) -> slice:
        """Split the rows of a batch; each is in one process's share, which may be empty."""
        rows = batch.stop - batch.start
        return slice(
            batch.start + rows * self.rank // self.size,
            batch.start + rows * (self.rank + 1) // self.size,
        )

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over the processes, the same bits in each.

        Raises:
            OSError: another process, or the agent that started this one, is gone.
        """
        self.together(dist.all_reduce, tensor)

    def together(self, collective: Callable[..., object], *arguments: object) -> None:
        """Call what all processes call, or raise OSError if they do not."""
        if os.getppid() != self.agent:  # a process without its agent would be left behind
            raise OSError("the agent that started this process is gone; no model was written")
        try:
            collective(*arguments)
        except RuntimeError as error:
            raise OSError(
                f"another process is gone, or silent for {TIMEOUT.seconds} s; no model was written"
            ) from error
