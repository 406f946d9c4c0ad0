"""The device that torch computes on."""

import os

import torch

from src.common.parameters import ParameterError


def choose(key: str, name: str) -> torch.device:
    """Return the device that a parameter names, and make it torch's; `auto`: a GPU if there is one.

    Under torchrun, `cuda` and `auto` give each process of a machine its own GPU.

    Args:
        key: the parameter, section.key.
        name: its value.

    Raises:
        UsageError: no such device here; lists those that are.
    """
    present = [f"cuda:{index}" for index in range(torch.cuda.device_count())] + ["cpu"]
    own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    wanted = {"auto": own if len(present) > 1 else "cpu", "cuda": own}.get(name, name)
    if wanted == "mps":
        raise ParameterError(key, "mps has no float64, which exact sums need; use cpu", name)
    if wanted not in present:
        raise ParameterError(key, f"not on this machine, which has {', '.join(present)}", name)
    device = torch.device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs are made on the current one
    return device
