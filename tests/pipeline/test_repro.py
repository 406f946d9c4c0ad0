"""`dvc repro` on the real 70,000 rows: what runs, what Git shows, and the results' bits."""

import json
from pathlib import Path
from typing import Any

import pytest

from src.common import files
from tests.support.clones import Run, stages_run
from tests.support.stages import STAGES

METRICS = "metrics/evaluate.json"


def metrics(folder: Path) -> dict[str, Any]:
    return files.read_json(str(folder / METRICS))


def test_a_fresh_clone_runs_all_stages_and_leaves_git_clean(reproduced: Path, run: Run) -> None:
    printed = reproduced.with_name("reproduced.log").read_text(encoding="utf-8")
    assert stages_run(printed) == list(STAGES)
    changed = run(reproduced, "git", "diff").stdout + run(reproduced, "git", "status", "-s").stdout
    assert not changed, f"run `dvc repro` and commit what changed:\n{changed}"


def test_the_accuracy_is_that_of_the_tutorial(reproduced: Path) -> None:
    found = metrics(reproduced)["test"]
    assert found["accuracy"] == pytest.approx(0.914, abs=0.003)
    assert found["loss"] == pytest.approx(0.297, abs=0.003)
    assert found["total"] == 10_000


def test_another_learning_rate_changes_three_short_files_and_the_way_back_runs_nothing(
    workspace: Path, run: Run
) -> None:
    model = (workspace / "models/model.safetensors").read_bytes()
    parameters = workspace / "params.yaml"
    text = parameters.read_text("utf-8")
    assert text.count("learning_rate: 0.5\n") == 1
    parameters.write_text(text.replace("learning_rate: 0.5", "learning_rate: 1e-1"), "utf-8")
    assert stages_run(run(workspace, "dvc", "repro").stdout) == ["train", "evaluate", "report"]
    changed = run(workspace, "git", "status", "--porcelain").stdout
    assert changed == f" M dvc.lock\n M {METRICS}\n M params.yaml\n"
    assert (workspace / "models/model.safetensors").read_bytes() != model

    run(workspace, "git", "checkout", "--quiet", ".")
    run(workspace, "dvc", "checkout")
    assert (workspace / "models/model.safetensors").read_bytes() == model
    assert stages_run(run(workspace, "dvc", "repro").stdout) == []
    assert run(workspace, "git", "status", "--porcelain").stdout == ""


def test_a_fresh_clone_shows_the_metrics_and_a_reproduced_one_each_plot_once(
    workspace: Path, tmp_path: Path, run: Run
) -> None:
    run(tmp_path, "git", "clone", "--quiet", workspace, "fresh")
    shown = json.loads(run(tmp_path / "fresh", "dvc", "metrics", "show", "--json").stdout)
    assert shown[""]["data"][METRICS]["data"] == metrics(workspace)
    printed = run(workspace, "dvc", "plots", "show").stdout
    page = Path(printed.strip().removeprefix("file://")).read_text(encoding="utf-8")
    titles = ("Accuracy after", "Loss (cross-entropy) after", "Actual against", "F1 of each class")
    pictures = [f"metrics_plots_{n}.png" for n in ("samples", "weights", "mistakes", "reliability")]
    assert {text: page.count(text) for text in (*titles, *pictures)} == dict.fromkeys(
        (*titles, *pictures), 1
    )
    assert run(workspace, "git", "status", "--porcelain").stdout == ""
