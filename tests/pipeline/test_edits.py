"""What a stranger would change first keeps the fast tests green."""

import sys
from pathlib import Path

from tests.support import clones
from tests.support.clones import Run

STAGE = '''"""Count the rows that train."""

from src.common import command, dataset, files

TRAIN_DATA = "data/prepared/train.safetensors"
COUNT = "metrics/plots/count.csv"


def main() -> None:
    rows = dataset.read(TRAIN_DATA, "np")
    files.write_csv(COUNT, ("rows",), [(len(rows.labels),)])


if __name__ == "__main__":
    command.run_stage("count", main)
'''
IN_DVC_YAML = """\
  count:
    cmd: python -m stages.count
    params:
      - pins.yaml: [numpy, safetensors]
    deps:
      - data/prepared/train.safetensors
      - src/__init__.py
      - src/common
      - stages/__init__.py
      - stages/count.py
    outs:
      - metrics/plots/count.csv

metrics:
"""
MODEL = '''

def deep(shape: Shape, classes: int) -> nn.Module:
    """Two hidden layers."""
    first = nn.Linear(math.prod(shape), 64)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(64, classes))


MODELS["deep"] = deep
'''
# A file, a piece of it, and what stands there afterwards.
EDITS = [
    ("src/learning/settings.py", "    patience: ", "    smoothing: Number = 0.0\n    patience: "),
    (
        "dvc.yaml",
        "metrics:\n  - metrics/evaluate.json\n",
        IN_DVC_YAML + "  - metrics/evaluate.json\n",
    ),
    ("params.yaml", "  # Passes over", "  # We take few.\n  # Passes over"),
    ("params.yaml", "# Where to compute: ", "# Which device computes: "),
    ("params.yaml", "  epochs: 5", "  epochs: 3"),
    ("params.yaml", "  learning_rate: 0.5", "  learning_rate: 0.1"),
    ("params.yaml", "  model: softmax_regression", "  model: mlp"),
    ("params.yaml", "  dataset: mnist_784", "  dataset: Fashion-MNIST"),
]
NEW_FILES = {
    "stages/count.py": STAGE,
    "src/learning/mynet.py": "WIDTH = 64\n",
    "src/report/legend.js": "// Nothing yet.\n",
    "recipes/deep.yaml": None,  # a copy of another recipe
}


def test_what_a_stranger_changes_first_keeps_the_fast_tests_green(tmp_path: Path, run: Run) -> None:
    """A parameter with a default, a stage, a model, files, comments and other settings."""
    copy = clones.copy_of_project(tmp_path / "copy", run)
    for name, old, new in EDITS:
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r} any more: change EDITS in this file"
        (copy / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    with (copy / "src/learning/models.py").open("a", encoding="utf-8") as models:
        models.write(MODEL)
    for name, text in NEW_FILES.items():
        other = (copy / "recipes/mlp.yaml").read_text(encoding="utf-8").replace("mlp", "deep")
        (copy / name).write_text(text or other, encoding="utf-8")
    run(copy, "git", "add", "--all")
    run(copy, "git", "commit", "--quiet", "--message=my own")
    # src/exact imports nothing of what was edited, and neither do the slow tests of handwriting.
    apart = ["--ignore=tests/exact", "--ignore=tests/tools/test_handwriting.py"]
    options = ["-m", "fast", "-q", "-p", "no:cacheprovider", "--no-cov", *apart]
    run(copy, sys.executable, "-m", "pytest", *options)
