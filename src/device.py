"""The device that torch computes on."""

import torch


def choose(name: str) -> torch.device:
    """Turn a device's name into a device that is there, and make it torch's; `auto`: the best.

    Raises:
        ValueError: no such device here; lists those that are.
    """
    present = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        present.append("mps")
    present.append("cpu")
    wanted = {"auto": present[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in present:
        raise ValueError(f"{name!r} is not on this machine, which has: {', '.join(present)}")
    device = torch.device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs are made on the current one
    return device


def float_type(device: torch.device) -> torch.dtype:
    """float64, in which the saved bits do not depend on the machine; mps has float32 only."""
    return torch.float32 if device.type == "mps" else torch.float64
