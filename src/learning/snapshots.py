"""The model as it was during training, in 8 bits: the page shows by it how a model learns."""

import math

import numpy as np
import torch
from torch import nn

EPOCHS = 4  # with the start and three early steps: eight snapshots at most
PARAMETERS = 2_000_000  # a larger model is too large for a page, and is not kept

Snapshot = dict[str, torch.Tensor]  # see `take`


def snapshot_steps(steps: int, epochs: int) -> set[int]:
    """Return after how many steps of a training there is a snapshot: early ones lie close.

    They are the start, three steps of the first epoch, and ends of epochs before the last one,
    after which there is the model itself.
    """
    root = math.isqrt(steps)
    early = {math.isqrt(root), root, root * math.isqrt(root)}
    share = EPOCHS + 1
    ends = {max(1, epochs * part // share) for part in range(1, share)} - {epochs}
    return {0} | {step for step in early if step < steps} | {end * steps for end in ends}


def take(model: nn.Module, step: int) -> Snapshot:
    """Copy a model's floats after so many steps.

    Returns:
        by "STEP/KEY" for each key of the state_dict: a tensor of two dimensions or more as int8,
        and by "scale/STEP/KEY" the float32 (1,) to multiply it with; others as float32.
        Nothing of a model of more than PARAMETERS.
    """
    if sum(parameter.numel() for parameter in model.parameters()) > PARAMETERS:
        return {}
    taken = {}
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        name, value = f"{step}/{key}", value.detach().float().cpu()
        if value.dim() > 1:
            scale = value.abs().max()[None] / 127
            taken[f"scale/{name}"] = scale
            value = (value / scale.where(scale > 0, 1)).round().to(torch.int8)
        taken[name] = value.clone()
    return taken


def arrays(snapshots: list[Snapshot]) -> dict[str, np.ndarray]:
    """Put snapshots together for a file."""
    return {name: tensor.numpy() for taken in snapshots for name, tensor in taken.items()}
