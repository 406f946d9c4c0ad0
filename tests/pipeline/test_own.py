"""docs/own.md says what a project of one's own may delete: what is left works without it."""

import json
import re
import shutil
import sys
from pathlib import Path

from tests.support import clones
from tests.support.clones import Run

ROWS = r"  train_rows:\n  - 0\n  - 60000\n((?:.*\n)*?)  test_rows:\n  - 60000\n  - 70000\n"
FEW = r"  train_rows:\n  - 0\n  - 6\n\1  test_rows:\n  - 8\n  - 12\n"
# What the table's last column asks for: a file, a pattern, and what stands there afterwards.
EDITS = [
    # the page
    ("stages/report.py", r"from src.common.known .*\n", ""),
    ("stages/report.py", r"from src.report import figures, page", "from src.report import figures"),
    ("stages/report.py", r"PAGE = .*\n|FOLDER = .*\n|SNAPSHOTS = .*\n|START = .*\n", ""),
    ("stages/report.py", r"LEARNING_CURVE = .*\n|METRICS = .*\n|PER_CLASS = .*\n", ""),
    ("stages/report.py", r"# What the recipe has .*\nINTERNAL = .*\n", ""),
    ("stages/report.py", r"class Fetch(.|\n)*?\n\n\n", ""),
    ("stages/report.py", r"    fetched = .*\n", ""),
    ("stages/report.py", r"model, start = .*", "model = tensors.read(MODEL)"),
    ("stages/report.py", r"    snapshots = .*\n", ""),
    (
        "stages/report.py",
        r"    metrics = (.|\n)*?(?=    figures\.write\(SAMPLES)",
        '    names = recipe["names"]\n'
        '    first = figures.first_layer(model, recipe["graph"], recipe["shape"])\n',
    ),
    ("dvc.yaml", r"      - metrics/report/index.html\n", ""),
    ("dvc.yaml", r"      - fetch.dataset\n      - fetch.sources\n", ""),
    (
        "dvc.yaml",
        r"      - metrics/evaluate.json\n      - metrics/plots/learning_curve.csv\n"
        r"      - metrics/plots/per_class.csv\n",
        "",
    ),
    ("dvc.yaml", r"      - models/snapshots.*\n      - models/start.*\n(?=      - src)", ""),
    ("tests/pipeline/test_own_data.py", r"from tools import predict\n", ""),
    ("tests/pipeline/test_own_data.py", r"def test_the_page_and(.|\n)*?(?=def test_a_table)", ""),
    ("tests/stages/test_report.py", r'    "no (graph|shift|test)": .*\n', ""),
    ("tests/stages/test_report.py", r'    "accuracy in words": \((.|\n)*?\n    \),\n', ""),
    ("tests/stages/test_report.py", r', Path\("metrics/report/index.html"\)', ""),
    # OpenML and PyPI
    ("stages/fetch.py", r"import folder, home, openml, wheel", "import folder, home"),
    ("stages/fetch.py", r"FETCHERS = .*", "FETCHERS: dict[str, Any] = {}"),
    ("stages/fetch.py", r"import Annotated", "import Annotated, Any"),
    ("stages/fetch.py", r'Literal\["openml", "pypi", "folder"\]', 'Literal["folder"]'),
    ("tests/conftest.py", r"from tests.support.openml_server .*\n", ""),
    ("tests/conftest.py", r"@pytest.fixture\ndef openml\((.|\n)*", ""),
    ("tests/faults/test_safety.py", r"from src.sources import wheel\n", ""),
    ("tests/faults/test_safety.py", r'    "pickle": .*\n', ""),
    ("params.yaml", r"  - openml\n  - pypi\n", "  - folder\n"),
    ("params.yaml", r"  sha256: .*", "  sha256:"),
    # figures of speed
    ("pyproject.toml", r', "benchmarks"\]', "]"),
    # the rows of the pictures that Git holds
    ("params.yaml", ROWS, FEW),
    ("params.yaml", r"  batch_size: 100\n", "  batch_size: 2\n"),
]


def delete(folder: Path) -> None:
    """Delete the files that the table names in its second column."""
    table = (folder / "docs/own.md").read_text(encoding="utf-8").split("## What to delete")[1]
    rows = re.findall(r"^\|[^|]+\|([^|]+)\|[^|]+\|$", table, re.MULTILINE)[2:]
    assert len(rows) == 6
    for pattern in re.findall("`(.+?)`", " ".join(rows)):
        found = [*folder.glob(pattern)]
        assert found, f"docs/own.md names {pattern}, which is not there"
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_what_docs_own_md_says_may_be_deleted_and_the_rest_works(tmp_path: Path, run: Run) -> None:
    own = clones.copy_of_project(tmp_path / "own", run)
    delete(own)
    for name, pattern, new in EDITS:
        text, count = re.subn(pattern, new, (own / name).read_text(encoding="utf-8"))
        assert count, f"{name} has no {pattern!r} any more: change EDITS here, and docs/own.md"
        (own / name).write_text(text, encoding="utf-8")
    run(own, "ruff", "check", "--quiet", "--fix")  # imports that nothing needs any more
    run(own, "mypy")
    run(own, "git", "add", "--all")
    run(own, "git", "commit", "--quiet", "--message=my own")
    printed = run(own, "dvc", "repro").stdout
    assert clones.stages_run(printed) == ["fetch", "prepare", "train", "evaluate", "report"]
    scores = json.loads((own / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert scores["test"]["total"] == 4
    assert len([*own.glob("metrics/plots/*.png")]) == 4
    assert not (own / "metrics/report").exists()
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    run(own, *pytest, "--collect-only")  # every test that is left can be imported
    fast = (*pytest, "-m", "fast")
    run(own, *fast, "tests/stages/test_report.py", "tests/pipeline/test_graph.py")
