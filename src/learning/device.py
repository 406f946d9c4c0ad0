"""The device that torch computes on, and its memory."""

import ctypes
import os
import sys

import torch

from src.common.parameters import ParameterError


def choose(key: str, name: str, is_exact: bool = True) -> torch.device:
    """Return the device that a parameter names, and make it torch's; `auto`: a GPU if there is one.

    Under torchrun, `cuda` and `auto` give each process of a machine its own GPU.

    Args:
        key: the parameter, section.key.
        name: its value.
        is_exact: exact sums need float64; without them CUDA takes deterministic algorithms.

    Raises:
        UsageError: no such device here; lists those that are.
    """
    present = [f"cuda:{index}" for index in range(torch.cuda.device_count())] + ["cpu"]
    own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    wanted = {"auto": own if len(present) > 1 else "cpu", "cuda": own}.get(name, name)
    if wanted == "mps" and is_exact:
        raise ParameterError(key, "mps has no float64, which exact sums need; use cpu", name)
    if torch.backends.mps.is_available():
        present.append("mps")
    if wanted not in present:
        raise ParameterError(key, f"not on this machine, which has {', '.join(present)}", name)
    device = torch.device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if not is_exact:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
    return device


def keep_memory() -> None:
    """Tell glibc to keep what a step gives back, as the next step asks for as much again.

    Where the C library has no mallopt, nothing happens. A step of the cnn takes a tenth less time.
    Tensors above 32 MB, the most that mallopt takes here, go back to the system as before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
        mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**30)
