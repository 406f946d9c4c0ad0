"""Data, models and whole runs travel through a folder that others can reach."""

import re
from pathlib import Path

from tests.support.clones import Run, stages_run

MODEL = "models/model.safetensors"


def push(workspace: Path, run: Run, *options: str) -> None:
    """Push to a folder beside the workspace, which the commit names as the remote."""
    store = workspace.with_name("store")
    run(workspace, "dvc", "remote", "add", "--default", "store", store)
    run(workspace, "git", "commit", "--quiet", "--message=Name the remote", ".dvc/config")
    assert "pushed" in run(workspace, "dvc", "push", *options).stdout


def test_another_clone_pulls_all_and_the_model_comes_by_its_tag(
    workspace: Path, tmp_path: Path, run: Run
) -> None:
    push(workspace, run)
    # The tag must be annotated: DVC does not see others.
    run(workspace, "git", "tag", "--annotate", "--message=First", "model@v1.0.0")
    second = tmp_path / "second"
    run(tmp_path, "git", "clone", "--quiet", workspace, second)
    run(second, "dvc", "pull")
    assert stages_run(run(second, "dvc", "repro").stdout) == []
    assert run(second, "git", "status", "--porcelain").stdout == ""
    get = ("dvc", "artifacts", "get", second, "model", "--rev", "v1.0.0")
    run(tmp_path, *get, "--out", "by_tag.safetensors")
    model = (workspace / MODEL).read_bytes()
    assert model == (second / MODEL).read_bytes() == (tmp_path / "by_tag.safetensors").read_bytes()


def test_a_training_that_no_commit_knows_is_taken_from_the_run_cache(
    workspace: Path, tmp_path: Path, run: Run
) -> None:
    def train_shorter(folder: Path, *options: str) -> str:
        parameters = folder / "params.yaml"
        text, count = re.subn(r"(?m)^  epochs: .*$", "  epochs: 1", parameters.read_text("utf-8"))
        assert count == 1
        parameters.write_text(text, "utf-8")
        return run(folder, "dvc", "repro", *options).stdout

    assert "Running stage 'train'" in train_shorter(workspace)
    push(workspace, run, "--run-cache")
    second = tmp_path / "second"
    run(tmp_path, "git", "clone", "--quiet", workspace, second)
    printed = train_shorter(second, "--pull")
    assert "Stage 'train' is cached - skipping run" in printed
    assert "Running stage 'train'" not in printed, "train needs cached outputs only, in dvc.yaml"
    assert (second / MODEL).read_bytes() == (workspace / MODEL).read_bytes()
    assert (
        run(second, "git", "diff", "params.yaml", "dvc.lock", "metrics").stdout
        == run(workspace, "git", "diff", "params.yaml", "dvc.lock", "metrics").stdout
    )
