"""Each stage as `dvc repro` runs it: what it imports, and the tutorials' recipes it gives."""

import re
from pathlib import Path

import pytest

from tests.conftest import Run, command_of


@pytest.mark.parametrize(
    ("stage", "kept_out"),
    [
        ("fetch", "torch"),
        ("prepare", "torch sklearn pandas matplotlib"),
        ("report", "torch sklearn pandas"),
        ("train", "sklearn pandas torch._dynamo torch.distributed.run matplotlib"),
        ("evaluate", "sklearn pandas torch._dynamo torch.distributed.run matplotlib"),
    ],
)
def test_a_stage_imports_nothing_that_it_does_not_need(
    stage: str, kept_out: str, workspace: Path, run: Run
) -> None:
    _, *arguments = command_of(workspace, stage)
    printed = run(workspace, "python", "-X", "importtime", *arguments).stdout
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", printed, re.MULTILINE))
    assert "argparse" in imported
    assert not imported & set(kept_out.split())


@pytest.mark.parametrize(
    ("settings", "accuracy", "tolerance"),
    [
        ({}, 0.914, 0.003),
        ({"init": "normal"}, 0.896, 0.010),  # its start is wide, and random
        (
            {"learning_rate": "0.1", "epochs": "15", "shuffle": True, "drop_last": True},
            0.923,
            0.003,
        ),
    ],
    ids=["default", "normal", "shuffled"],
)
def test_the_tutorials_recipes_give_the_tutorials_accuracies(
    settings: dict, accuracy: float, tolerance: float, reproduced: Path, run: Run, tmp_path: Path
) -> None:
    command = command_of(reproduced, "train")
    for name, value in settings.items():
        if value is True:
            command[command.index(f"--no-{name}")] = f"--{name}"
        else:
            command[command.index(f"--{name}") + 1] = value
    for name in ("model", "recipe", "metrics", "learning_curve"):
        command[command.index(f"--{name}") + 1] = str(tmp_path / name)
    run(reproduced, *command)
    last = (tmp_path / "learning_curve").read_text().splitlines()[-1].split(",")
    assert last[1] == "test"
    assert abs(float(last[3]) - accuracy) <= tolerance
