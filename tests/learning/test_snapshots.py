"""The snapshots that train writes for the page: when, how near, and in which bits."""

import numpy as np
import pytest
import torch
from torch import nn

from src import exact
from src.learning import checkpoint, models, snapshots, training
from tests.learning.test_training import CLASSES, SHAPE, rows, train_settings


def test_there_are_eight_at_most_and_early_ones_lie_close() -> None:
    assert sorted(snapshots.moments(600, 5)) == [0, 4, 24, 96, 600, 1200, 1800, 2400]
    assert sorted(snapshots.moments(600, 1)) == [0, 4, 24, 96]
    for steps in range(1, 40):
        for epochs in range(1, 40):
            moments = snapshots.moments(steps, epochs)
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


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_a_stop_does_not_show_in_them(
    name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    settings = train_settings(model=name, epochs=3)

    def train(stop: int = 99, **options: object) -> list[snapshots.Snapshot]:
        way: list[snapshots.Snapshot] = []
        model = exact.convert(
            models.start(name, SHAPE, CLASSES, init="default", seed=7, is_exact=True)
        )

        def stop_after(epoch: int, step: int, steps: int, _: object) -> None:
            if (epoch - 1) * steps + step == stop:
                raise KeyboardInterrupt

        given = {"progress": stop_after, "way": way} | options
        for _ in training.train(model, rows(), settings, **given):  # type: ignore[arg-type]
            pass
        return way

    expected = snapshots.arrays(train())
    steps = {name.split("/")[0] for name in expected} - {"scale"}
    assert steps == {"0", "1", "2", "4", "8"}
    kept = checkpoint.Checkpoint("key", 1e-9, torch.device("cpu"))
    for stop in (1, 5, 9):
        with pytest.raises(KeyboardInterrupt):
            train(stop, checkpoint=kept)
    found = snapshots.arrays(train(checkpoint=kept))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
