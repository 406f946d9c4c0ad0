"""dvc.yaml lists exactly what the stages import, read, write and take as parameters.

DVC cannot notice a module that a stage imports and dvc.yaml does not list: the stage would stay "up
to date" when that module changes. A failure here names the lines to add or to delete.
"""

import ast
import modulefinder
import re
from pathlib import Path
from typing import Any

import pytest

from src.common import files
from tests.support.clones import REPOSITORY

PIPELINE = files.parse_yaml((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
SCRIPTS = sorted(file.stem for file in (REPOSITORY / "stages").glob("[!_]*.py"))
# A stage without a script, of any other command, is its author's to describe.
STAGES: dict[str, dict[str, Any]] = {stage: PIPELINE["stages"][stage] for stage in SCRIPTS}
METRICS = "metrics/evaluate.json"  # the one result that Git holds, to be read in a diff


def listed(entries: list[Any]) -> set[str]:
    """Return the paths among deps, outs, metrics or plots, which may carry options."""
    return {path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)}


def modules_of(stage: str) -> set[str]:
    """Return the project's files that run when a stage is imported, by Python's own finder."""
    finder = modulefinder.ModuleFinder(path=[str(REPOSITORY)])
    finder.import_hook(f"stages.{stage}")
    found_files = {Path(found.__file__) for found in finder.modules.values() if found.__file__}
    return {str(file.relative_to(REPOSITORY)) for file in found_files if file.stat().st_size}


def paths_of(tree: ast.Module) -> set[str]:
    """Return the paths that are constants of a script."""
    values = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    texts = {str(value.value) for value in values if isinstance(value, ast.Constant)}
    return {text for text in texts if "/" in text}


def parameters_of(tree: ast.Module) -> list[str]:
    """Return what a script reads of params.yaml: a section, or one key of it."""
    found = []
    for node in ast.walk(tree):
        for value in ast.iter_child_nodes(node):
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "parameters.read":
                section = ast.literal_eval(value.args[0])
                is_key = isinstance(node, ast.Attribute)
                found.append(f"{section}.{node.attr}" if is_key else section)
    return found


def edits(stage: str, key: str, wanted: set[str], present: set[str]) -> list[str]:
    """Name the lines of dvc.yaml that are missing, and those that are too many."""
    return [f"add '- {line}' to {key} of {stage}" for line in sorted(wanted - present)] + [
        f"delete '- {line}' from {key} of {stage}" for line in sorted(present - wanted)
    ]


def test_every_script_is_a_stage_and_runs_as_a_module() -> None:
    python = {stage: "python" for stage in SCRIPTS} | {"train": "${launcher}"}
    for stage in SCRIPTS:
        assert STAGES[stage]["cmd"] == f"{python[stage]} -m stages.{stage}"


@pytest.mark.parametrize("stage", SCRIPTS)
def test_dvc_yaml_lists_what_the_stage_imports_reads_and_writes(stage: str) -> None:
    tree = ast.parse((REPOSITORY / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    made = {name: listed([*s.get("outs", []), *s.get("metrics", [])]) for name, s in STAGES.items()}
    others = set().union(*(made[name] for name in STAGES if name != stage))
    paths = paths_of(tree)
    # What another stage writes, or the project has in src, is read here.
    read = {path for path in paths if path in others or path.startswith("src/")}
    # What comes from outside, the stage's author knows.
    deps = listed(STAGES[stage]["deps"])
    outside = {path for path in deps - others if not path.startswith(("src/", "stages/"))}
    wanted = modules_of(stage) | read | outside
    if stage != "fetch":  # a digest pins its result; any other may change with a package
        wanted.add("requirements.lock")
    faults = edits(stage, "deps", wanted, deps)
    faults += edits(stage, "outs", paths - read, made[stage])
    faults += edits(stage, "params", set(parameters_of(tree)), listed(STAGES[stage]["params"]))
    assert not faults, "dvc.yaml: " + "; ".join(faults)


def test_every_result_is_cached_but_the_metrics() -> None:
    # A stage with an output that is not cached is not carried by the run-cache to other machines.
    for stage, settings in STAGES.items():
        options = [out for out in settings["outs"] if not isinstance(out, str)]
        assert not options, f"dvc.yaml: delete the options of {options} from outs of {stage}"
        assert settings.keys() <= {"desc", "cmd", "params", "deps", "outs", "metrics"}, stage
    assert [s["metrics"] for s in STAGES.values() if "metrics" in s] == [
        [{METRICS: {"cache": False}}]
    ]


def test_what_is_shown_and_published_is_made_by_a_stage() -> None:
    folder = PIPELINE["artifacts"]["model"]["path"]
    shown = {f"{folder}/model.safetensors", f"{folder}/recipe.json", *PIPELINE["metrics"]}
    for plot in PIPELINE["plots"]:
        shown |= {plot} if isinstance(plot, str) else listed([next(iter(plot.values()))["y"]])
    assert shown <= listed([out for s in STAGES.values() for out in s["outs"]]) | {METRICS}


def test_a_run_writes_the_outputs_and_nothing_else(small_outputs: Path) -> None:
    outs = listed([o for s in STAGES.values() for o in (*s["outs"], *s.get("metrics", []))])
    written = {str(f.relative_to(small_outputs)) for f in small_outputs.rglob("*") if f.is_file()}
    assert written - {"params.yaml", "src/report/page.html"} == outs


def test_no_import_is_hidden_from_this_file() -> None:
    hidden = re.compile(r"\b(importlib|runpy|pkgutil|__import__)\b|\b(exec|eval)\(")
    for file in [*REPOSITORY.glob("src/*.py"), *REPOSITORY.glob("stages/*.py")]:
        assert not hidden.search(file.read_text(encoding="utf-8")), file
