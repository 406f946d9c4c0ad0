"""The snapshots that train writes for the page: when, how near, and in which bits."""

import torch
from torch import nn

from src.learning import snapshots


def test_there_are_eight_at_most_and_early_ones_lie_close() -> None:
    assert sorted(snapshots.snapshot_steps(600, 5)) == [0, 4, 24, 96, 600, 1200, 1800, 2400]
    assert sorted(snapshots.snapshot_steps(600, 1)) == [0, 4, 24, 96]
    for steps in range(1, 40):
        for epochs in range(1, 40):
            moments = snapshots.snapshot_steps(steps, epochs)
            assert 0 in moments
            assert len(moments) <= 8
            assert all(0 <= moment < steps * epochs for moment in moments)


def test_one_is_within_half_of_a_127th_of_the_largest_weight() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 5), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    nn.init.zeros_(model[3].weight)
    taken = snapshots.take(model, 9)
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            assert f"9/{key}" not in taken
        elif value.dim() < 2:
            assert torch.equal(taken[f"9/{key}"], value)
        else:
            packed, scale = taken[f"9/{key}"], taken[f"scale/9/{key}"]
            assert packed.dtype == torch.int8
            assert (packed * scale - value).abs().max() <= value.abs().max() / 253
    assert snapshots.take(nn.Linear(2000, 1001), 0) == {}
