"""`python -m tools.compare`: a table that fits, a picture, and no look at the test rows unasked."""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.clones import REPOSITORY, Run
from tools import compare

PARAMETERS = """\
train:
  model: mlp
  learning_rate: 0.5
  seed: 1
prepare:
  validation: true
machine:
  threads: 1
"""
STAGES = """\
stages:
  evaluate:
    cmd: python score.py
    params: [train, prepare]
    deps: [score.py]
    metrics:
    - metrics/evaluate.json:
        cache: false
"""
# The scores are plain functions of the parameters, so that a test can say what is right.
SCORE = """\
import json, os
from ruamel.yaml import YAML
train, prepare = (YAML(typ="safe").load(open("params.yaml"))[name] for name in ("train", "prepare"))
accuracy = 0.5 + train["learning_rate"] / 10 + train["seed"] ** 2 / 1000
scores = {"test": {"loss": 7.25, "accuracy": 0.375}}
if prepare["validation"]:
    scores["validation"] = {"loss": 1 - accuracy, "accuracy": accuracy}
os.makedirs("metrics", exist_ok=True)
json.dump(scores, open("metrics/evaluate.json", "w"))
"""
RATES, SEEDS = (0.2, 1.0), (1, 2, 4)


def accuracy(rate: float, seed: int) -> float:
    return 0.5 + rate / 10 + seed**2 / 1000


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Return a DVC repository with experiments of an older commit, and one in the queue."""
    folder = tmp_path_factory.mktemp("project")
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "dvc", "init", "--quiet")
    for name, text in (
        ("params.yaml", PARAMETERS),
        ("dvc.yaml", STAGES),
        ("score.py", SCORE),
        (".gitignore", "/metrics/compare/\nmatplotlibrc\n"),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    run(folder, "dvc", "repro", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=the first")

    def experiment(name: str, *settings: str) -> None:
        given = [part for setting in settings for part in ("-S", setting)]
        run(folder, "dvc", "exp", "run", "--quiet", "--name", name, *given)
        run(folder, "git", "checkout", "--quiet", "HEAD", ".")

    for rate in RATES:
        for seed in SEEDS:
            experiment(f"r{rate}-{seed}", f"train.learning_rate={rate}", f"train.seed={seed}")
    experiment("without", "prepare.validation=false")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "--message=the second")
    run(folder, "dvc", "exp", "run", "--queue", "--name", "waits", "-S", "train.seed=9")
    return folder


def compared(run: Run, folder: Path, *arguments: str, status: int = 0, **env: str) -> str:
    """Run the tool; return what it printed, in lines that fit."""
    command = (sys.executable, "-m", "tools.compare", *arguments)
    result = run(folder, *command, env={"PYTHONPATH": str(REPOSITORY)} | env, check=False)
    printed: str = result.stdout
    assert result.returncode == status, printed
    assert status or max(map(len, printed.splitlines())) <= 80, printed
    return printed


def test_runs_that_differ_by_the_seed_are_a_row(run: Run, project: Path) -> None:
    printed = compared(run, project)
    rows = [line.split() for line in printed.splitlines() if line.startswith("r")]
    assert [row[0] for row in rows] == ["r1.0-1", "r0.2-1"]  # the best is first
    for rate, (_, _, *found) in zip((1.0, 0.2), rows, strict=True):
        scores = np.array([accuracy(rate, seed) for seed in SEEDS])
        percents = 100 * scores.mean(), 100 * scores.std(ddof=1)
        assert [*map(float, found[:2])] == [rate, len(SEEDS)]
        assert [*map(float, found[2:4])] == pytest.approx(percents, abs=0.006)
        losses = (1 - scores).mean(), scores.std(ddof=1)
        assert [*map(float, found[4:6])] == pytest.approx(losses, abs=6e-5)
    assert "threads" not in printed
    assert "model" not in printed  # one for all
    assert "Left out, as they have no scores of validation rows: waits, without." in printed


def test_test_rows_are_shown_when_asked_for_alone(run: Run, project: Path) -> None:
    data = project / "metrics" / "compare" / "compare.csv"
    assert not {"test", "37.50", "7.2500"} & set(compared(run, project).split())
    assert "test" not in data.read_text(encoding="utf-8")
    assert {"test", "37.50"} <= set(compared(run, project, "--test").split())
    assert "test accuracy" in data.read_text(encoding="utf-8")


def test_the_picture_has_its_data_and_no_surroundings(run: Run, project: Path) -> None:
    folder = project / "metrics" / "compare"
    compared(run, project)
    drawn = (folder / "compare.png").read_bytes()
    with Image.open(folder / "compare.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 3
    with (folder / "compare.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(RATES) * len(SEEDS)
    for row in rows:
        rate, seed = float(row["train.learning_rate"]), int(row["train.seed"])
        assert row["name"] == f"r{rate}-{seed}"
        assert float(row["validation accuracy"]) == pytest.approx(accuracy(rate, seed))
    (project / "matplotlibrc").write_text("lines.markersize: 40\n", encoding="utf-8")
    compared(run, project, MPLBACKEND="module://not_there")
    (project / "matplotlibrc").unlink()
    assert (folder / "compare.png").read_bytes() == drawn


def test_names_patterns_and_commits(run: Run, project: Path) -> None:
    printed = compared(run, project, "r1.0-2", "r0.2-*")
    named = [line.split()[0] for line in printed.splitlines() if line.startswith("r")]
    assert named == ["r1.0-2", "r0.2-1"]
    commit = run(project, "git", "rev-parse", "HEAD").stdout.strip()
    for name in ("main", commit):
        assert f"{accuracy(0.5, 1):.2%}"[:-1] in compared(run, project, name)


def test_without_validation_rows_it_says_what_a_choice_would_be(run: Run, project: Path) -> None:
    printed = " ".join(compared(run, project, "without").split())
    assert "37.50" in printed
    assert "A choice by these scores is a choice by test rows" in printed
    assert "choice" not in compared(run, project)


def test_failures_are_a_line(run: Run, project: Path, tmp_path: Path) -> None:
    unknown = compared(run, project, "r1.0-1", "nobody", status=2)
    assert unknown.startswith("compare: no experiment is named nobody; there are: ")
    assert compared(run, project, "waits", status=2).splitlines()[1:] == [
        "compare: none of these experiments has scores"
    ]
    outside = compared(run, tmp_path, status=1)
    assert outside.startswith("compare: DVC cannot show the experiments: you are not inside of a")
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    assert "no commit yet" in compared(run, tmp_path, status=2)
    run(tmp_path, "git", "commit", "--quiet", "--allow-empty", "--message=empty")
    none = compared(run, tmp_path, status=2)
    assert none.startswith("compare: there are no experiments yet")
    for printed in (unknown, outside, none):
        assert len(printed.splitlines()) == 1


def shown(**parameters: object) -> dict[str, object]:
    """Return what DVC says of a run."""
    scores = {"accuracy": 0.9, "loss": 0.3}
    return {
        "params": {"params.yaml": {"data": {"train": parameters, "machine": {"threads": 1}}}},
        "metrics": {"metrics/evaluate.json": {"data": {"validation": scores}}},
        "deps": {"src/learning": {"hash": "0"}, "src/report": {"hash": "0"}},
        "outs": {},
    }


def frame(*runs: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(
        compare.record({"rev": f"{at:040}", "data": data}, f"run-{at}", True)
        for at, data in enumerate(runs)
    )


def test_many_parameters_with_long_names_and_values_fit() -> None:
    names = [f"a_parameter_of_some_length_{number}" for number in range(12)]
    runs = frame(*(shown(**{name: f"{at} of many words" for name in names}) for at in range(3)))
    runs["name"] = ["x" * 300, "y" * 21, "z"]
    settings = compare.differing(runs)
    columns = {"validation accuracy": "accuracy", "validation loss": "loss"}
    text = compare.table(runs, settings, columns).to_string(line_width=compare.WIDTH)
    assert max(map(len, text.splitlines())) <= 80
    assert [name for name in names if name not in text] == []


def test_other_code_is_a_row_of_its_own_and_another_machine_is_not() -> None:
    other, page, machine = shown(seed=2), shown(seed=3), shown(seed=4)
    other["deps"] = {"src/learning": {"hash": "1"}}
    page["deps"] = {"src/learning": {"hash": "0"}, "src/report": {"hash": "1"}}
    machine["params"]["params.yaml"]["data"]["machine"]["threads"] = 2  # type: ignore[index]
    assert compare.differing(frame(shown(seed=1), page, machine)) == []
    assert compare.differing(frame(shown(seed=1), other)) == ["code"]


def test_a_run_that_is_there_twice_counts_once() -> None:
    runs = frame(shown(seed=1), shown(seed=1), shown(seed=2))
    table = compare.table(runs, [], {"validation accuracy": "accuracy"})
    assert [*table["runs"]] == [2]


def test_numbers_are_alike_as_dvc_takes_them_and_a_missing_one_differs() -> None:
    assert compare.differing(frame(shown(rate=1), shown(rate=1.0))) == []
    assert compare.differing(frame(shown(rate=1), shown())) == ["train.rate"]
    short = {"train.a": "train.a", "fetch.a": "fetch.a", "train.b": "b"}
    assert compare.shortened([*short]) == short
