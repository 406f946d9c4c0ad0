"""`dvc repro` on the real 70,000 rows: what runs, what Git shows, and the results' bits."""

import json
import re
from pathlib import Path

import pytest

from tests.support.clones import Run, stages_run
from tests.support.stages import STAGES

METRICS = "metrics/evaluate.json"


def metrics(folder: Path) -> dict[str, float]:
    record: dict[str, float] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return record


def test_a_fresh_clone_runs_all_stages_and_leaves_git_clean(reproduced: Path, run: Run) -> None:
    printed = reproduced.with_name("reproduced.log").read_text(encoding="utf-8")
    assert stages_run(printed) == list(STAGES)
    changed = run(reproduced, "git", "diff").stdout + run(reproduced, "git", "status", "-s").stdout
    assert not changed, f"run `dvc repro` and commit what changed:\n{changed}"


def test_the_accuracy_is_that_of_the_tutorial(reproduced: Path) -> None:
    found = metrics(reproduced)
    assert found["accuracy"] == pytest.approx(0.914, abs=0.003)
    assert found["loss"] == pytest.approx(0.297, abs=0.003)
    assert found["total"] == 10_000


def test_another_learning_rate_changes_three_short_files(workspace: Path, run: Run) -> None:
    committed = metrics(workspace)
    assert stages_run(run(workspace, "dvc", "repro").stdout) == []
    parameters = workspace / "params.yaml"
    text, count = re.subn(
        r"(?m)^  learning_rate: .*$", "  learning_rate: 1e-1", parameters.read_text("utf-8")
    )
    assert count == 1
    parameters.write_text(text, "utf-8")
    assert stages_run(run(workspace, "dvc", "repro").stdout) == ["train", "evaluate", "report"]
    changed = run(workspace, "git", "diff", "--name-only").stdout.split()
    assert changed == ["dvc.lock", METRICS, "params.yaml"]
    assert run(workspace, "git", "status", "--porcelain").stdout.count("\n") == 3

    difference = {"train.learning_rate": {"old": 0.5, "new": 0.1, "diff": -0.4}}
    for command in (("diff",), ("diff", "--deps")):
        shown = run(workspace, "dvc", "params", *command, "--json").stdout
        assert json.loads(shown) == {"params.yaml": difference}
    shown = json.loads(run(workspace, "dvc", "metrics", "diff", "--json").stdout)[METRICS]
    for name in ("accuracy", "loss", "macro_f1"):
        values = [shown[name][key] for key in ("old", "new")]
        assert values == [committed[name], metrics(workspace)[name]]
    printed = run(workspace, "dvc", "plots", "diff", "HEAD").stdout
    page = Path(printed.strip().removeprefix("file://")).read_text(encoding="utf-8")
    assert {"HEAD", "workspace"} <= set(re.findall(r'"rev": "(\w+)"', page))

    # The way back: the old model comes out of the cache, and nothing runs.
    model = (workspace / "models/model.safetensors").read_bytes()
    run(workspace, "git", "checkout", "--quiet", ".")
    run(workspace, "dvc", "checkout")
    assert (workspace / "models/model.safetensors").read_bytes() != model
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


def test_neither_style_nor_language_nor_processor_changes_a_byte_of_the_report(
    workspace: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nfigure.facecolor: green\n")
    other = {
        "MATPLOTLIBRC": str(tmp_path),
        "LC_ALL": "C",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "2",
    }
    made = [*workspace.glob("metrics/plots/*.png"), workspace / "metrics/report/index.html"]
    before = {path: path.read_bytes() for path in made}
    for path in made:
        path.unlink()
    run(workspace, "python", "-m", "stages.report", env=other)
    assert {path: path.read_bytes() for path in made} == before
