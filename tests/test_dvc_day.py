"""A DVC user's day: the commands that people reach for do here what they expect of them."""

import csv
import io
import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, Run, stages_run

PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
MODEL = "models/model.safetensors"
METRICS = "metrics/evaluate.json"


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / METRICS).read_text(encoding="utf-8"))


def assert_up_to_date(folder: Path, run: Run) -> None:
    assert run(folder, "dvc", "status").stdout == "Data and pipelines are up to date.\n"


def set_learning_rate(folder: Path, value: float) -> None:
    """Edit params.yaml as a person would."""
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    text, count = re.subn(r"(?m)^  learning_rate: .*$", f"  learning_rate: {value}", text)
    assert count == 1
    (folder / "params.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def changed(workspace: Path, run: Run) -> Path:
    """Return a workspace with another learning rate, reproduced and not committed."""
    set_learning_rate(workspace, 0.125)
    assert stages_run(run(workspace, "dvc", "repro").stdout)[:2] == ["train", "evaluate"]
    return workspace


def test_repro_of_a_single_stage_leaves_the_next_for_later(workspace: Path, run: Run) -> None:
    set_learning_rate(workspace, 0.25)
    before = metrics(workspace)
    assert stages_run(run(workspace, "dvc", "repro", "-s", "train").stdout) == ["train"]
    assert metrics(workspace) == before
    assert "evaluate" in json.loads(run(workspace, "dvc", "status", "--json").stdout)
    assert stages_run(run(workspace, "dvc", "repro").stdout)[0] == "evaluate"
    assert metrics(workspace) != before


def test_diffs_against_a_revision_show_the_parameter_and_what_it_did(
    changed: Path, run: Run
) -> None:
    committed = json.loads(run(changed, "git", "show", f"HEAD:{METRICS}").stdout)
    parameters = json.loads(run(changed, "dvc", "params", "diff", "HEAD", "--json").stdout)
    assert parameters == {
        "params.yaml": {"train.learning_rate": {"old": 0.5, "new": 0.125, "diff": -0.375}}
    }
    # Only parameters that stages depend on: empty if a stage did not list its section.
    dependent = run(changed, "dvc", "params", "diff", "--deps", "HEAD", "--json").stdout
    assert json.loads(dependent) == parameters
    shown = json.loads(run(changed, "dvc", "metrics", "diff", "HEAD", "--json").stdout)
    assert shown[METRICS]["accuracy"]["old"] == committed["accuracy"]
    assert shown[METRICS]["accuracy"]["new"] == metrics(changed)["accuracy"]
    assert "accuracy" in run(changed, "dvc", "metrics", "diff", "HEAD").stdout


def test_plots_diff_draws_both_revisions(changed: Path, run: Run) -> None:
    printed = run(changed, "dvc", "plots", "diff", "HEAD").stdout
    page = Path(printed.strip().removeprefix("file://")).read_text(encoding="utf-8")
    assert {"HEAD", "workspace"} <= set(re.findall(r'"rev": "(\w+)"', page))
    assert run(changed, "git", "status", "--porcelain", "--", "dvc_plots").stdout == ""


def test_a_fresh_clone_without_a_cache_shows_metrics_and_plots(
    reproduced: Path, tmp_path: Path, run: Run
) -> None:
    run(tmp_path, "git", "clone", "--quiet", reproduced, "clone")
    clone = tmp_path / "clone"
    shown = json.loads(run(clone, "dvc", "metrics", "show", "--json").stdout)
    assert shown[""]["data"][METRICS]["data"] == metrics(reproduced)
    table = run(clone, "dvc", "metrics", "show").stdout
    assert f"{metrics(reproduced)['accuracy']:g}" in table
    printed = run(clone, "dvc", "plots", "show").stdout
    page = Path(printed.strip().removeprefix("file://")).read_text(encoding="utf-8")
    assert PIPELINE["plots"]
    for plot in PIPELINE["plots"]:
        for name, options in ({plot: {}} if isinstance(plot, str) else plot).items():
            assert options.get("title", name) in page


def test_checkout_of_an_older_revision_brings_its_model_back_without_training(
    changed: Path, run: Run
) -> None:
    newer = (changed / MODEL).read_bytes()
    run(changed, "git", "commit", "--quiet", "--all", "--message=Another learning rate")
    run(changed, "git", "checkout", "--quiet", "HEAD~1")
    assert f"M       {MODEL}" in run(changed, "dvc", "checkout").stdout
    assert (changed / MODEL).read_bytes() != newer
    assert stages_run(run(changed, "dvc", "repro").stdout) == []
    run(changed, "git", "checkout", "--quiet", "main")
    run(changed, "dvc", "checkout")
    assert (changed / MODEL).read_bytes() == newer
    assert run(changed, "git", "status", "--porcelain").stdout == ""


def experiments(folder: Path, run: Run) -> dict[str, dict[str, str]]:
    """Return the rows of `dvc exp show --csv` by the experiment's name, or the revision's."""
    text = run(folder, "dvc", "exp", "show", "--csv").stdout
    return {row["Experiment"] or row["rev"]: row for row in csv.DictReader(io.StringIO(text))}


@pytest.mark.slow
def test_an_experiment_is_shown_put_aside_and_applied_again(workspace: Path, run: Run) -> None:
    run(workspace, "dvc", "exp", "run", "--name", "slower", "-S", "train.learning_rate=0.1")
    result, model = metrics(workspace), (workspace / MODEL).read_bytes()

    rows = experiments(workspace, run)
    assert {"slower", "main", "workspace"} == set(rows)
    assert float(rows["slower"]["train.learning_rate"]) == 0.1
    assert float(rows["main"]["train.learning_rate"]) == 0.5
    assert float(rows["slower"][f"{METRICS}:accuracy"]) == result["accuracy"]
    assert rows["main"][f"{METRICS}:accuracy"] != rows["slower"][f"{METRICS}:accuracy"]

    run(workspace, "git", "checkout", ".")
    run(workspace, "dvc", "checkout")
    assert metrics(workspace) != result
    run(workspace, "dvc", "exp", "apply", "slower")
    assert (metrics(workspace), (workspace / MODEL).read_bytes()) == (result, model)
    assert "learning_rate: 0.1\n" in (workspace / "params.yaml").read_text(encoding="utf-8")
    assert_up_to_date(workspace, run)


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_runs_its_own_copy_of_the_code(
    workspace: Path, run: Run
) -> None:
    # Not committed: the experiment takes it along, and must not run it from here.
    module = workspace / "src" / "training.py"
    module.write_text(f"{module.read_text(encoding='utf-8')}\nprint('runs', __file__)\n")
    changes = run(workspace, "git", "status", "--porcelain").stdout
    model = (workspace / MODEL).read_bytes()
    printed = run(
        workspace, "dvc", "exp", "run", "--temp", "--name", "aside", "-S", "train.epochs=1"
    ).stdout
    [ran] = re.findall(r"^runs (.+)$", printed, re.MULTILINE)
    assert Path(ran).is_relative_to(workspace / ".dvc" / "tmp" / "exps")
    assert run(workspace, "git", "status", "--porcelain").stdout == changes
    assert (workspace / MODEL).read_bytes() == model
    assert experiments(workspace, run)["aside"]["train.epochs"] == "1"


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in a folder (Linux; else none)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended, or it is another user's
            continue
    return found


@pytest.mark.slow
def test_a_queued_grid_runs_with_the_code_it_was_queued_with_and_leaves_no_worker(
    workspace: Path, run: Run
) -> None:
    grid = ("-S", "train.learning_rate=0.2,0.4", "-S", "train.epochs=1")
    assert run(workspace, "dvc", "exp", "run", "--queue", *grid).stdout.count("Queued") == 2
    module = workspace / "src" / "training.py"
    module.write_text("raise RuntimeError('the code of the main workspace')\n")
    before = metrics(workspace)
    try:
        # The worker inherits the pipe: `run` returns when it has ended, its queue done.
        assert "Started '1'" in run(workspace, "dvc", "queue", "start").stdout
        queue = run(workspace, "dvc", "queue", "status").stdout
    finally:
        run(workspace, "dvc", "queue", "stop", "--kill", check=False)
        for _ in range(100):
            if not (left := processes_in(workspace)):
                break
            time.sleep(0.1)
    assert left == []
    assert queue.count("Success") == 2
    assert "Worker status: 0 active, 0 idle" in queue
    assert metrics(workspace) == before
    rows = [row for row in experiments(workspace, run).values() if row["train.epochs"] == "1"]
    assert sorted(row["train.learning_rate"] for row in rows) == ["0.2", "0.4"]
    assert len({row[f"{METRICS}:loss"] for row in rows}) == 2


@pytest.fixture
def pushed(workspace: Path, tmp_path: Path, run: Run) -> Path:
    """Return a workspace whose outputs are in a folder remote that its config names."""
    run(workspace, "dvc", "remote", "add", "--default", "store", tmp_path / "store")
    run(workspace, "git", "commit", "--quiet", "--all", "--message=Name the remote")
    assert "files pushed" in run(workspace, "dvc", "push").stdout
    return workspace


def test_what_is_wiped_is_pulled_from_a_folder_remote(
    pushed: Path, tmp_path: Path, run: Run
) -> None:
    outs = [out for stage in PIPELINE["stages"].values() for out in stage.get("outs", [])]
    outs = [out for out in outs if isinstance(out, str)]
    before = {out: (pushed / out).read_bytes() for out in outs}
    for out in outs:
        (pushed / out).unlink()
    run(pushed, "dvc", "cache", "dir", "--local", tmp_path / "an empty cache")
    assert set(json.loads(run(pushed, "dvc", "status", "--json").stdout))
    run(pushed, "dvc", "pull")
    assert {out: (pushed / out).read_bytes() for out in outs} == before
    assert_up_to_date(pushed, run)


def test_a_second_clone_pulls_instead_of_running(pushed: Path, tmp_path: Path, run: Run) -> None:
    run(tmp_path, "git", "clone", "--quiet", pushed, "second")
    second = tmp_path / "second"
    assert stages_run(run(second, "dvc", "repro", "--pull").stdout) == []
    assert (second / MODEL).read_bytes() == (pushed / MODEL).read_bytes()
    assert_up_to_date(second, run)
    assert run(second, "git", "status", "--porcelain").stdout == ""


def test_the_model_can_be_fetched_by_its_name_and_version_or_by_its_path(
    pushed: Path, tmp_path: Path, run: Run
) -> None:
    # The tag must be annotated: DVC does not see others.
    run(pushed, "git", "tag", "--annotate", "--message=First", "softmax-regression@v1.0.0")
    run(tmp_path, "git", "clone", "--quiet", pushed, "published")
    get = ("dvc", "artifacts", "get", tmp_path / "published", "softmax-regression")
    run(tmp_path, *get, "--rev", "v1.0.0", "--out", "by_version.safetensors")
    run(tmp_path, *get, "--out", "newest.safetensors")
    run(tmp_path, "dvc", "get", tmp_path / "published", MODEL, "--out", "by_path.safetensors")
    model = (pushed / MODEL).read_bytes()
    for name in ("by_version", "newest", "by_path"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == model


def test_a_checkout_that_moved_runs_nothing(workspace: Path, tmp_path: Path, run: Run) -> None:
    moved = tmp_path / "another place" / "project"
    moved.parent.mkdir()
    workspace.rename(moved)
    assert stages_run(run(moved, "dvc", "repro").stdout) == []
    assert_up_to_date(moved, run)


def test_a_second_repro_at_the_same_time_is_refused_and_nothing_is_damaged(
    workspace: Path, environment: dict[str, str], run: Run
) -> None:
    script = workspace / "stages" / "train.py"
    text = script.read_text(encoding="utf-8")
    head = "def main(argv: list[str] | None = None) -> None:\n"
    waits = (
        "    import pathlib, time\n"
        "    pathlib.Path('started').touch()\n"
        "    while not pathlib.Path('go on').exists():\n"
        "        time.sleep(0.1)\n"
    )
    assert head in text
    script.write_text(text.replace(head, head + waits), encoding="utf-8")
    before = {name: (workspace / name).read_bytes() for name in (MODEL, METRICS)}

    with subprocess.Popen(
        ["dvc", "repro"], cwd=workspace, env=environment, stdout=subprocess.DEVNULL
    ) as first:
        try:
            while first.poll() is None and not (workspace / "started").exists():
                time.sleep(0.1)
            second = run(workspace, "dvc", "repro", check=False)
        finally:
            (workspace / "go on").touch()
        assert first.wait(timeout=300) == 0
    assert second.returncode
    assert "is busy, it is being blocked by" in second.stdout
    assert "Traceback" not in second.stdout

    assert_up_to_date(workspace, run)
    assert stages_run(run(workspace, "dvc", "repro").stdout) == []
    assert {name: (workspace / name).read_bytes() for name in before} == before
    assert list(workspace.rglob("*.part")) == []
