"""DVC re-runs exactly the stages that a change concerns: for every parameter and every file.

What is expected comes from the imports, as Python's own module finder sees them, and from the
sections of params.yaml; dvc.yaml's deps, which these tests are about, are not asked.
"""

import json
import modulefinder
import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, Run, stages_run

PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]

# Settings whose other values no rule could guess.
OTHERS = {"cpu": "auto", "uniform": "zeros"}


def another(value: object) -> object:
    """Return another value of the same type, valid for every setting there is so far."""
    match value:
        case bool():
            return not value
        case int():
            return value - 1 if value > 1 else value + 1
        case float():
            return value / 2
        case list():
            return value[::-1] if len(set(value)) > 1 else [*value, "other"]
        case str():
            return OTHERS.get(value, value[::-1] if value[::-1] != value else value + "2")
        case _:
            return "0" * 64


def leaves(branch: dict, *above: str) -> list[tuple[str, ...]]:
    """Return the path of keys to every value that is no mapping."""
    return [
        leaf
        for key, value in branch.items()
        for leaf in (leaves(value, *above, key) if isinstance(value, dict) else [(*above, key)])
    ]


def files() -> list[str]:
    """Return every file of the code and every lock file of pip's."""
    found = [*REPOSITORY.glob("*.lock")]
    found += [file for folder in ("src", "stages") for file in (REPOSITORY / folder).rglob("*")]
    names = [file.relative_to(REPOSITORY).as_posix() for file in found if file.is_file()]
    return sorted(name for name in names if name != "dvc.lock" and "__pycache__" not in name)


def used(stage: str) -> set[str]:
    """Return the files that a stage's result depends on, its data and parameters aside."""
    finder = modulefinder.ModuleFinder(path=[str(REPOSITORY)])
    finder.run_script(str(REPOSITORY / "stages" / f"{stage}.py"))
    modules = [Path(module.__file__) for module in finder.modules.values() if module.__file__]
    # Nobody can depend on a file that must stay empty: check_graph sees to it.
    found = {file.relative_to(REPOSITORY).as_posix() for file in modules if file.stat().st_size}
    passed = set(STAGES[stage]["cmd"].split())
    # fetch's result is pinned by a digest: other packages cannot change it.
    pinned = "sha256" in PARAMS.get(stage, {})
    return found | passed | (set() if pinned else {"requirements.lock"})


def downstream(stage: str) -> list[str]:
    """Return the stage and those that read, directly or not, what it writes; in running order."""
    written: set[str] = set()
    reached = []
    for name, its in STAGES.items():  # dvc.yaml lists them in running order
        if name == stage or written & set(its["deps"]):
            reached.append(name)
            for out in its.get("outs", []) + its.get("metrics", []) + its.get("plots", []):
                written.add(out if isinstance(out, str) else next(iter(out)))
    return reached


def hashes(workspace: Path) -> dict[str, str]:
    """Return the digest of every output in dvc.lock."""
    lock = yaml.safe_load((workspace / "dvc.lock").read_text(encoding="utf-8"))
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def status(workspace: Path, run: Run) -> dict:
    return json.loads(run(workspace, "dvc", "status", "--json").stdout)


def write_params(workspace: Path, *leaf: str) -> None:
    """Write params.yaml with another value for one leaf."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    branch = params
    for key in leaf[:-1]:
        branch = branch[key]
    branch[leaf[-1]] = another(branch[leaf[-1]])
    # Another order of the keys would be another command.
    text = yaml.safe_dump(params, sort_keys=False)
    (workspace / "params.yaml").write_text(text, encoding="utf-8")


def comment(file: Path) -> None:
    """Add a line that changes the bytes and nothing else."""
    line = "<!-- a comment -->\n" if file.suffix == ".html" else "# a comment\n"
    file.write_text(file.read_text(encoding="utf-8") + line, encoding="utf-8")


@pytest.mark.slow
def test_each_parameter_concerns_its_own_stage_alone(workspace: Path, run: Run) -> None:
    assert status(workspace, run) == {}, "dvc.lock is not up to date: run dvc repro"
    concerned, expected = {}, {}
    for leaf in leaves(PARAMS):
        write_params(workspace, *leaf)
        concerned[leaf] = set(status(workspace, run))
        expected[leaf] = {leaf[0]} | {name for name in STAGES if "params.yaml" in used(name)}
    assert ("train", "learning_rate") in concerned
    assert concerned == expected


@pytest.mark.slow
def test_each_file_concerns_the_stages_that_use_it_alone(workspace: Path, run: Run) -> None:
    assert status(workspace, run) == {}, "dvc.lock is not up to date: run dvc repro"
    concerned, expected = {}, {}
    for name in files():
        original = (workspace / name).read_bytes()
        comment(workspace / name)
        concerned[name] = status(workspace, run)
        (workspace / name).write_bytes(original)
        expected[name] = {
            stage: [{"changed deps": {name: "modified"}}] for stage in STAGES if name in used(stage)
        }
    assert {"requirements.lock", "src/__init__.py", "stages/train.py"} <= concerned.keys()
    assert concerned == expected
    assert status(workspace, run) == {}


@pytest.mark.slow
def test_a_comment_in_a_stage_re_runs_it_alone_as_its_outputs_stay_the_same(
    workspace: Path, run: Run
) -> None:
    before = hashes(workspace)
    for stage in STAGES:
        comment(workspace / "stages" / f"{stage}.py")
        # Python prints each module that it imports, DVC's own and those of the stage.
        printed = run(workspace, "dvc", "repro", env={"PYTHONPROFILEIMPORTTIME": "1"}).stdout
        assert stages_run(printed) == [stage]
        loaded = set(re.findall(r"^import time: .* ((?:src|stages)\.\S+)$", printed, re.MULTILINE))
        assert {f"{name.replace('.', '/')}.py" for name in loaded} <= used(stage)
        assert loaded
    assert hashes(workspace) == before
    assert status(workspace, run) == {}


@pytest.mark.slow
def test_a_comment_in_a_shared_module_re_runs_the_stages_that_import_it(
    workspace: Path, run: Run
) -> None:
    before = hashes(workspace)
    comment(workspace / "src" / "softmax_regression.py")
    printed = run(workspace, "dvc", "repro").stdout
    assert stages_run(printed) == [s for s in STAGES if "src/softmax_regression.py" in used(s)]
    assert hashes(workspace) == before


@pytest.mark.slow
@pytest.mark.parametrize("leaf", [("prepare", "train_size"), ("train", "learning_rate")])
def test_a_parameter_that_changes_results_re_runs_all_that_follows(
    workspace: Path, leaf: tuple[str, str], run: Run
) -> None:
    write_params(workspace, *leaf)
    printed = run(workspace, "dvc", "repro").stdout
    assert stages_run(printed) == downstream(leaf[0])
    assert len(downstream(leaf[0])) >= 2
    assert status(workspace, run) == {}
