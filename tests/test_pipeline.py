"""The whole pipeline on the real 70,000 rows, by the real `dvc repro`."""

import json
from pathlib import Path

import yaml

from tests.conftest import REPOSITORY, Run


def test_a_fresh_clone_reproduces_the_committed_lock_and_metrics(
    reproduced: Path, run: Run
) -> None:
    assert run(reproduced, "git", "status", "--porcelain").stdout == ""


def test_the_metrics_are_those_of_the_tutorial(reproduced: Path) -> None:
    metrics = json.loads((reproduced / "metrics" / "evaluate.json").read_text())
    assert abs(metrics["accuracy"] - 0.914) <= 0.003
    assert abs(metrics["loss"] - 0.297) <= 0.003
    assert metrics["total"] == 10_000


def test_a_second_repro_runs_no_stage(workspace: Path, run: Run) -> None:
    printed = run(workspace, "dvc", "repro").stdout
    assert "Running stage" not in printed
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    assert printed.count("didn't change, skipping") == len(stages)
