"""dvc.yaml and params.yaml list exactly what the stages import and take, and nothing else passes.

DVC cannot notice a module that a stage imports and dvc.yaml does not list: see tools/check_graph.
"""

import copy
import modulefinder
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, Run
from tools import check_graph

PIPELINE = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
STAGES = sorted(PIPELINE["stages"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the files that the check reads, for a test to break."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for name in ("stages", "src", "tools"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    return tmp_path


def errors_with(project: Path, file: str, original: dict, change: Callable) -> list[str]:
    """Check a copy whose YAML file is `original` after `change`."""
    changed = copy.deepcopy(original)
    change(changed)
    (project / file).write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    return check_graph.check(project)


def append(project: Path, file: str, text: str) -> None:
    with (project / file).open("a", encoding="utf-8") as opened:
        opened.write(f"\n{text}\n")


def test_dvc_yaml_lists_exactly_what_the_stages_import_and_take() -> None:
    assert check_graph.check(REPOSITORY) == []


@pytest.mark.parametrize("stage", STAGES)
def test_python_s_own_module_finder_sees_the_same_imports(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    finder = modulefinder.ModuleFinder(path=[str(REPOSITORY)])
    finder.run_script(f"stages/{stage}.py")
    loaded = {Path(m.__file__).resolve() for m in finder.modules.values() if m.__file__}
    loaded = {file for file in loaded if file.name != "__init__.py"}
    importers, _ = check_graph.local_modules(REPOSITORY, f"stages/{stage}.py")
    assert {REPOSITORY / path for path in [*importers, f"stages/{stage}.py"]} == loaded


@pytest.mark.parametrize("stage", STAGES)
def test_each_dep_that_is_deleted_is_asked_for(project: Path, stage: str) -> None:
    for dep in PIPELINE["stages"][stage]["deps"]:
        errors = errors_with(
            project, "dvc.yaml", PIPELINE, lambda p, d=dep: p["stages"][stage]["deps"].remove(d)
        )
        assert len(errors) == 1
        assert errors[0].startswith(f"dvc.yaml: stage {stage}: add the line '- {dep}' under deps")


@pytest.mark.parametrize("stage", STAGES)
def test_each_file_that_is_listed_for_nothing_is_refused(project: Path, stage: str) -> None:
    files = {
        file.relative_to(REPOSITORY).as_posix()
        for folder in ("src", "stages")
        for file in (REPOSITORY / folder).rglob("*.py")
    }
    files |= {"src", "requirements-dev.lock", "data/other.npz"}
    for file in sorted(files - set(PIPELINE["stages"][stage]["deps"])):
        errors = errors_with(
            project, "dvc.yaml", PIPELINE, lambda p, f=file: p["stages"][stage]["deps"].append(f)
        )
        assert len(errors) == 1
        assert errors[0].startswith(
            f"dvc.yaml: stage {stage}: delete the line '- {file}' under deps"
        )


@pytest.mark.parametrize("stage", STAGES)
def test_each_output_and_path_flag_needs_the_other(project: Path, stage: str) -> None:
    words = PIPELINE["stages"][stage]["cmd"].split()
    pairs = [(words[i], words[i + 1]) for i in range(len(words) - 1) if words[i][:2] == "--"]
    assert pairs
    for flag, path in pairs:
        errors = errors_with(
            project,
            "dvc.yaml",
            PIPELINE,
            lambda p, pair=f"{flag} {path}": p["stages"][stage].update(
                cmd=" ".join(words).replace(pair, "")
            ),
        )
        assert any(f"nothing gives {flag}:" in error for error in errors)
        assert any(f"stage {stage}: delete the line '- {path}' under" in error for error in errors)
        errors = errors_with(
            project,
            "dvc.yaml",
            PIPELINE,
            lambda p, old=path: p["stages"][stage].update(
                cmd=" ".join(words).replace(old, "elsewhere/file")
            ),
        )
        assert any(
            f"stage {stage}: add the line '- elsewhere/file' under deps" in error
            for error in errors
        )


@pytest.mark.parametrize("stage", sorted(PARAMS))
def test_each_parameter_and_flag_needs_the_other(project: Path, stage: str) -> None:
    for key in PARAMS[stage]:
        errors = errors_with(project, "params.yaml", PARAMS, lambda p, k=key: p[stage].pop(k))
        assert any(
            f"nothing gives --{key}: add the line '{key}: ...' to section {stage}" in error
            for error in errors
        )
    errors = errors_with(project, "params.yaml", PARAMS, lambda p: p[stage].update(momentum=0.9))
    assert errors == [
        f"params.yaml: stage {stage}: delete the line 'momentum: ...', "
        f"or add --momentum to stages/{stage}.py"
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda p: p["stages"]["train"]["params"].append("evaluate"),
            "dvc.yaml: stage train: make its params '[train]', its own section",
        ),
        (
            lambda p: p["stages"]["train"].pop("params"),
            "dvc.yaml: stage train: make its params '[train]', its own section",
        ),
        (
            lambda p: p["stages"]["train"].update(
                cmd=p["stages"]["train"]["cmd"].replace("${train}", "${evaluate}")
            ),
            "dvc.yaml: stage train: begin cmd with 'python -m stages.train ${train}'",
        ),
        (
            lambda p: p["stages"]["train"].update(
                cmd=p["stages"]["train"]["cmd"] + " --no-shuffle"
            ),
            "dvc.yaml: stage train: delete '--no-shuffle' from cmd: a setting belongs in section "
            "train of params.yaml",
        ),
        (
            lambda p: p["stages"]["train"].update(frozen=True),
            "dvc.yaml: stage train: delete the line 'frozen: ...': only its deps may decide when "
            "a stage runs",
        ),
        (
            lambda p: p["stages"]["train"]["metrics"][0]["metrics/train.json"].clear(),
            "dvc.yaml: stage train: add the line 'cache: false' under '- metrics/train.json:', or "
            "a fresh clone does not show it",
        ),
        (
            lambda p: p["stages"]["evaluate"]["outs"][0].update(
                {"metrics/plots/confusion.csv": {"cache": True}}
            ),
            "dvc.yaml: stage evaluate: add the line 'cache: false' under "
            "'- metrics/plots/confusion.csv:', or a fresh clone does not show it",
        ),
        (
            lambda p: p["stages"]["prepare"]["outs"].append("data/prepared"),
            "dvc.yaml: stage prepare: delete '- data/prepared/test.safetensors': it overlaps "
            "data/prepared, an output of prepare",
        ),
        (
            lambda p: p["metrics"].append("metrics/other.json"),
            "dvc.yaml: no stage writes metrics/other.json: delete it, or add it to the outputs of "
            "a stage",
        ),
        (
            lambda p: p["artifacts"]["softmax-regression"].update(path="models/other.bin"),
            "dvc.yaml: no stage writes models/other.bin: delete it, or add it to the outputs of a "
            "stage",
        ),
        (
            lambda p: p["stages"].update(test={"cmd": "python -m stages.test"}),
            "dvc.yaml: stage test: stages/test.py is missing: add it, or delete the stage",
        ),
        (
            lambda p: p["stages"].pop("evaluate"),
            "stages/evaluate.py: no stage of dvc.yaml runs it: delete it, or add a stage evaluate",
        ),
        (
            lambda p: p["stages"].pop("evaluate"),
            "params.yaml: delete section evaluate: dvc.yaml has no stage evaluate",
        ),
    ],
)
def test_a_break_in_dvc_yaml_is_named(project: Path, change: Callable, expected: str) -> None:
    assert expected in errors_with(project, "dvc.yaml", PIPELINE, change)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import importlib", "delete importlib"),
        ("from importlib import import_module", "delete importlib"),
        ("from runpy import run_module", "delete runpy"),
        ("__import__('src.tensors')", "delete __import__"),
        ("exec('import src.tensors')", "delete exec"),
    ],
)
def test_an_import_that_cannot_be_read_is_refused(project: Path, line: str, expected: str) -> None:
    append(project, "src/raw.py", line)
    assert any(error.startswith(f"src/raw.py: {expected}") for error in check_graph.check(project))


@pytest.mark.parametrize(
    "line",
    [
        "import src.scores",
        "from src import scores",
        "from src.scores import summary",
        "from src.scores import *",
        "from . import scores",
        "from .scores import summary as s",
        "from .. import src; from ..src import scores",
        "def f():\n    from src import scores",
        "if False:\n    import src.scores as s",
        "try:\n    import src.scores\nexcept ImportError:\n    pass",
    ],
)
def test_an_import_in_any_form_reaches_every_stage_behind_it(project: Path, line: str) -> None:
    append(project, "src/raw.py", line)
    assert check_graph.check(project) == [
        f"dvc.yaml: stage {stage}: add the line '- src/scores.py' under deps: src/raw.py imports it"
        for stage in ("fetch", "prepare")
    ]


def test_a_module_of_another_folder_is_a_dep_too(project: Path) -> None:
    (project / "helpers" / "deep").mkdir(parents=True)
    (project / "helpers" / "deep" / "one.py").write_text("import helpers.two\n")
    (project / "helpers" / "two.py").write_text("import helpers.deep.one\n")
    append(project, "stages/evaluate.py", "from helpers.deep import one")
    assert check_graph.check(project) == [
        "dvc.yaml: stage evaluate: add the line '- helpers/deep/one.py' under deps: "
        "stages/evaluate.py imports it",
        "dvc.yaml: stage evaluate: add the line '- helpers/two.py' under deps: "
        "helpers/deep/one.py imports it",
    ]


def test_a_package_that_runs_code_of_its_own_is_refused(project: Path) -> None:
    append(project, "src/__init__.py", "VERSION = 1")
    assert (
        "src/__init__.py: empty it: it runs with the import of any module beside it"
    ) in check_graph.check(project)


def test_a_module_that_every_stage_imports_is_refused(project: Path) -> None:
    append(project, "src/common.py", "SIZE = 784")
    for stage in STAGES:
        append(project, f"stages/{stage}.py", "from src import common")
    assert (
        "src/common.py: split it: every stage imports it, so that any edit of it re-runs them all"
    ) in check_graph.check(project)


def test_a_page_template_and_a_file_of_settings_can_be_passed_and_must_be_listed(
    project: Path,
) -> None:
    append(project, "stages/evaluate.py", "build_parser().add_argument('--template', '--params')")

    def pass_both(pipeline: dict) -> None:
        pipeline["stages"]["evaluate"]["cmd"] += " --template src/page.html --params params.yaml"

    assert [
        error.partition(": cmd passes")[0]
        for error in errors_with(project, "dvc.yaml", PIPELINE, pass_both)
    ] == [
        f"dvc.yaml: stage evaluate: add the line '- {path}' under deps"
        for path in ("params.yaml", "src/page.html")
    ]

    def pass_and_list_both(pipeline: dict) -> None:
        pass_both(pipeline)
        pipeline["stages"]["evaluate"]["deps"] += ["./src/page.html", "params.yaml"]

    assert errors_with(project, "dvc.yaml", PIPELINE, pass_and_list_both) == []


def test_the_command_names_each_break_and_fails(project: Path, run: Run) -> None:
    def check() -> tuple[int, str]:
        result = run(project, sys.executable, "-m", "tools.check_graph", check=False)
        return result.returncode, result.stdout

    assert check() == (
        0,
        "check_graph: dvc.yaml and params.yaml list exactly what the stages import and take\n",
    )
    text = (project / "dvc.yaml").read_text(encoding="utf-8")
    (project / "dvc.yaml").write_text(text.replace("      - src/wheel.py\n", ""))
    assert check() == (
        1,
        "dvc.yaml: stage fetch: add the line '- src/wheel.py' under deps: "
        "stages/fetch.py imports it\n"
        "check_graph: 1 to mend\n",
    )
    (project / "dvc.yaml").unlink()
    code, printed = check()
    assert (code, printed.count("\n")) == (1, 1)
    assert "dvc.yaml" in printed


def test_the_check_imports_neither_the_stages_nor_what_they_import(run: Run) -> None:
    program = (
        "import pathlib, sys; from tools import check_graph; check_graph.check(pathlib.Path());"
        "print(sorted({'torch', 'numpy', 'sklearn', 'dvc', 'src', 'stages'} & set(sys.modules)))"
    )
    assert run(REPOSITORY, sys.executable, "-c", program).stdout == "[]\n"
