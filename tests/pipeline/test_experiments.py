"""`dvc exp run --temp`: beside the work, an experiment runs its own code; the work stays as it is.

That experiments are queued, shown, applied and pushed as the README and docs/dvc.md say is in
test_pages.py.
"""

import re
from pathlib import Path

from tests.support.clones import Run

MODEL, METRICS = "models/model.safetensors", "metrics/evaluate.json"


def test_an_experiment_beside_the_work_runs_its_own_code_and_leaves_the_work_alone(
    workspace: Path, run: Run
) -> None:
    before = [(workspace / path).read_bytes() for path in (MODEL, METRICS)]
    # Not committed: an experiment takes it along, and must not run it from here.
    module = workspace / "src" / "learning" / "training.py"
    added = (
        "from src.learning.checkpoint import folder\nprint('runs', __file__, 'keeps', folder())\n"
    )
    module.write_text(f"{module.read_text(encoding='utf-8')}\n{added}")
    printed = run(workspace, "dvc", "exp", "run", "--temp", "-S", "train.epochs=1").stdout
    [(ran, kept)] = re.findall(r"^runs (.+) keeps (.+)$", printed, re.MULTILINE)
    assert kept == str(workspace / ".checkpoints")  # the experiment's own folder goes with it
    assert Path(ran).is_relative_to(workspace / ".dvc" / "tmp" / "exps")
    assert re.search(r"^epoch 1/1 ", printed, re.MULTILINE)
    assert [(workspace / path).read_bytes() for path in (MODEL, METRICS)] == before
    assert run(workspace, "git", "status", "--porcelain").stdout == " M src/learning/training.py\n"
