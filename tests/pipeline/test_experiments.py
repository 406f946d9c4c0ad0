"""`dvc exp run`: beside the work or in it, each experiment runs its own code and is kept."""

import csv
import io
import json
import re
import time
from pathlib import Path

from tests.support.clones import Run

MODEL, METRICS = "models/model.safetensors", "metrics/evaluate.json"


def experiments(folder: Path, run: Run) -> dict[str, dict[str, str]]:
    """Return the rows of `dvc exp show --csv` by the experiment's name, or the revision's."""
    text = run(folder, "dvc", "exp", "show", "--csv").stdout
    return {row["Experiment"] or row["rev"]: row for row in csv.DictReader(io.StringIO(text))}


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / METRICS).read_bytes(), (folder / MODEL).read_bytes()


def test_an_experiment_is_shown_put_aside_and_applied_again(workspace: Path, run: Run) -> None:
    before = results(workspace)
    setting = ("-S", "train.learning_rate=1", "-S", "train.epochs=1")
    run(workspace, "dvc", "exp", "run", "--name", "hot", *setting)
    changed = run(workspace, "git", "diff", "--name-only").stdout.split()
    assert changed == ["dvc.lock", METRICS, "params.yaml"]
    found = results(workspace)
    row = experiments(workspace, run)["hot"]
    assert [float(row[f"train.{name}"]) for name in ("learning_rate", "epochs")] == [1, 1]
    assert float(row["accuracy"]) == json.loads(found[0])["accuracy"]

    run(workspace, "git", "checkout", "--quiet", ".")
    run(workspace, "dvc", "checkout")
    assert results(workspace) == before
    run(workspace, "dvc", "exp", "apply", "hot")
    assert results(workspace) == found
    assert run(workspace, "dvc", "status").stdout == "Data and pipelines are up to date.\n"


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


def test_experiments_beside_the_work_run_their_own_code_and_leave_the_work_alone(
    workspace: Path, run: Run
) -> None:
    before = results(workspace)
    # Not committed: an experiment takes it along, and must not run it from here.
    module = workspace / "src" / "training.py"
    module.write_text(f"{module.read_text(encoding='utf-8')}\nprint('runs', __file__)\n")
    temporary = ("--temp", "--name", "aside", "-S", "train.epochs=1")
    printed = run(workspace, "dvc", "exp", "run", *temporary).stdout
    [ran] = re.findall(r"^runs (.+)$", printed, re.MULTILINE)
    assert Path(ran).is_relative_to(workspace / ".dvc" / "tmp" / "exps")

    queued = ("--queue", "--name", "queued", "-S", "train.epochs=2")
    assert "Queued" in run(workspace, "dvc", "exp", "run", *queued).stdout
    module.write_text("raise RuntimeError('the code as it was edited since')\n")
    try:
        # The worker inherits the pipe: `run` returns when it has ended, its queue done.
        run(workspace, "dvc", "queue", "start")
        status = run(workspace, "dvc", "queue", "status").stdout
    finally:
        run(workspace, "dvc", "queue", "stop", "--kill", check=False)
        for _ in range(100):
            if not (left := processes_in(workspace)):
                break
            time.sleep(0.1)
    assert left == []
    assert re.search(r"queued .*Success", status), status
    rows = experiments(workspace, run)
    assert [rows[name]["train.epochs"] for name in ("aside", "queued")] == ["1", "2"]
    assert rows["aside"]["loss"] != rows["queued"]["loss"]
    assert results(workspace) == before
    assert run(workspace, "git", "status", "--porcelain").stdout == " M src/training.py\n"
