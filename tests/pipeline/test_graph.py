"""dvc.yaml lists the folders of the modules that a stage imports, and what it reads and writes.

DVC cannot notice a module that a stage imports and dvc.yaml does not list: the stage would stay "up
to date" when that module changes. A failure here names the lines to add or to delete.
"""

import ast
import json
import modulefinder
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from src.common import files
from tests.support import stages
from tests.support.clones import REPOSITORY, Run

PIPELINE = files.parse_yaml((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
SCRIPTS = sorted(file.stem for file in (REPOSITORY / "stages").glob("[!_]*.py"))
# A stage without a script, of any other command, is its author's to describe.
STAGES: dict[str, dict[str, Any]] = {stage: PIPELINE["stages"][stage] for stage in SCRIPTS}
PARAMETERS = files.parse_yaml((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
PINS = files.parse_yaml((REPOSITORY / "pins.yaml").read_text(encoding="utf-8"))
METRICS = "metrics/evaluate.json"  # the one result that Git holds, to be read in a diff


def listed(entries: list[Any]) -> set[str]:
    """Return the paths among deps, outs, metrics or plots, which may carry options."""
    return {path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)}


def imports_of(stage: str) -> tuple[set[str], set[str]]:
    """Return what runs when a stage is imported, by Python's own finder.

    Returns:
        the paths that stand for the project's modules in dvc.yaml: the folders of src, and files.
        The names in pins.yaml of the packages among the others.
    """
    finder = modulefinder.ModuleFinder(path=[str(REPOSITORY)])
    finder.import_hook(f"stages.{stage}")
    found = {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    parts = [file.relative_to(REPOSITORY).parts for file in found]
    own = {"/".join(part[:2]) for part in parts}
    packages = {name.split(".")[0].replace("PIL", "pillow") for name in finder.badmodules}
    return own, packages & PINS.keys()


def paths_of(tree: ast.Module) -> set[str]:
    """Return the paths that are constants of a script."""
    values = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    texts = {str(value.value) for value in values if isinstance(value, ast.Constant)}
    return {text for text in texts if "/" in text}


def parameters_of(tree: ast.Module) -> list[str]:
    """Return what a script reads of params.yaml: a section, or one key of it."""
    found = []
    # A section that ignores keys depends on those that it has.
    keys = {
        node.name: [f".{line.target.id}" for line in node.body if isinstance(line, ast.AnnAssign)]
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.keywords
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "parameters.read":
            section, name = ast.literal_eval(node.args[0]), ast.unparse(node.args[1])
            found += [section + key for key in keys.get(name, [""])]
    return found


def edits(stage: str, key: str, wanted: set[str], present: set[str]) -> list[str]:
    """Name the lines of dvc.yaml that are missing, and those that are too many."""
    return [f"add '- {line}' to {key} of {stage}" for line in sorted(wanted - present)] + [
        f"delete '- {line}' from {key} of {stage}" for line in sorted(present - wanted)
    ]


def test_every_script_is_a_stage_and_runs_as_a_module() -> None:
    for stage in SCRIPTS:
        assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"


@pytest.mark.parametrize("stage", SCRIPTS)
def test_dvc_yaml_lists_what_the_stage_imports_reads_and_writes(stage: str) -> None:
    tree = ast.parse((REPOSITORY / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    made = {name: listed([*s.get("outs", []), *s.get("metrics", [])]) for name, s in STAGES.items()}
    others = set().union(*(made[name] for name in STAGES if name != stage))
    # What another stage writes, or the project has in src, is read here.
    paths = {path for path in paths_of(tree) if not path.startswith("src/")}
    read = paths & others
    # What comes from outside, the stage's author knows.
    deps = listed(STAGES[stage]["deps"])
    outside = {path for path in deps - others if not path.startswith(("src/", "stages/"))}
    modules, packages = imports_of(stage)
    faults = edits(stage, "deps", modules | read | outside, deps)
    faults += edits(stage, "outs", paths - read, made[stage])
    params = STAGES[stage]["params"]
    named = {entry for entry in params if isinstance(entry, str)}
    faults += edits(stage, "params", set(parameters_of(tree)), named)
    pins = [name for entry in params if isinstance(entry, dict) for name in entry["pins.yaml"]]
    # A digest pins what fetch writes; any other result may change with a package.
    faults += edits(stage, "pins", set() if stage == "fetch" else packages, set(pins))
    assert not faults, "dvc.yaml: " + "; ".join(faults)


def test_the_pins_are_those_of_the_lock() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert {f"{name}=={version}" for name, version in PINS.items()} < set(lock)


def test_make_lock_writes_the_pins_that_dvc_yaml_asks_for(tmp_path: Path, run: Run) -> None:
    for name in ("dvc.yaml", "pins.yaml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, tmp_path)
    here = {"PYTHONPATH": str(REPOSITORY)}
    committed = (tmp_path / "pins.yaml").read_text(encoding="utf-8")
    run(tmp_path, sys.executable, "-m", "tools.pins", env=here)
    assert (tmp_path / "pins.yaml").read_text(encoding="utf-8") == committed
    lock = (tmp_path / "requirements.lock").read_text(encoding="utf-8")
    newer = re.sub("^torch==.*$", "torch==9.9.9", lock, flags=re.MULTILINE)
    (tmp_path / "requirements.lock").write_text(newer, encoding="utf-8")
    run(tmp_path, sys.executable, "-m", "tools.pins", env=here)
    written = files.parse_yaml((tmp_path / "pins.yaml").read_text(encoding="utf-8"))
    assert written == PINS | {"torch": "9.9.9"}


def test_a_change_makes_those_stages_stale_that_can_see_it(workspace: Path, run: Run) -> None:
    def replace(name: str, old: str, new: str) -> set[str]:
        """Return the stages that are stale by themselves after a change, which is undone."""
        path = workspace / name
        text = path.read_text("utf-8") if path.exists() else ""
        assert old in text
        path.write_text(text.replace(old, new, 1) or new, encoding="utf-8")
        stale = set(json.loads(run(workspace, "dvc", "status", "--json").stdout))
        if text:
            path.write_text(text, encoding="utf-8")
        else:
            path.unlink()
        return stale

    assert replace("requirements.lock", "urllib3==", "urllib3==99.") == set()
    assert replace("pins.yaml", "torch: '", "torch: '9") == {"train", "evaluate"}
    assert replace("pins.yaml", "matplotlib: '", "matplotlib: '9") == {"report"}
    assert replace("src/learning/mynet.py", "", "A = 1\n") == {"train", "evaluate"}
    assert replace("src/report/figures.py", "import", "# A comment.\nimport") == {"report"}
    assert replace("params.yaml", "  threads: 1", "  threads: 2") == set()
    assert replace("params.yaml", "  checkpoint_seconds: 30", "  checkpoint_seconds: 5") == set()
    assert replace("params.yaml", "  learning_rate: ", "  learning_rate: 1") == {"train"}


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
    ran = [STAGES[name] for name in stages.STAGES if name != "fetch"]
    outs = listed([o for s in ran for o in (*s["outs"], *s.get("metrics", []))])
    outs.add("data/raw/dataset.safetensors")
    written = {str(f.relative_to(small_outputs)) for f in small_outputs.rglob("*") if f.is_file()}
    assert {path for path in written if not path.startswith("src/")} - {"params.yaml"} == outs


def test_no_import_is_hidden_from_this_file() -> None:
    hidden = re.compile(r"\b(importlib|runpy|pkgutil|__import__)\b|(?<![.\w])(exec|eval)\(")
    for file in [*REPOSITORY.glob("src/**/*.py"), *REPOSITORY.glob("stages/*.py")]:
        assert not hidden.search(file.read_text(encoding="utf-8")), file
