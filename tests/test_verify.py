"""`make verify` agrees with an honest commit, and names every output that was tampered with."""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import Run
from tools import verify


def verified(workspace: Path, run: Run) -> tuple[int, dict[str, str], str]:
    """Run it; return its exit status, what it says of each output, and all that it prints."""
    result = run(workspace, "python", "-m", "tools.verify", check=False)
    lines = re.findall(r"^(\S+) +((?:agrees|DIFFERS): .*)", result.stdout, re.MULTILINE)
    return result.returncode, dict(lines), result.stdout


def times(workspace: Path) -> dict[Path, int]:
    """Map every path to when it last changed, but Git's objects, which clones link and touch."""
    paths = (path for path in workspace.rglob("*") if "objects" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.mark.slow
def test_an_honest_commit_agrees_and_the_workspace_stays_as_it_is(
    workspace: Path, run: Run
) -> None:
    lock = yaml.safe_load((workspace / "dvc.lock").read_text())
    outputs = {out["path"] for stage in lock["stages"].values() for out in stage["outs"]}
    # Outputs that were never made, or thrown away, are no fault.
    (workspace / "data" / "raw" / "mnist_784.npz").unlink()
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 5", "epochs: 6"))
    before = times(workspace)
    status, said, printed = verified(workspace, run)
    assert status == 0
    assert "not your uncommitted changes:\n M params.yaml\n" in printed
    assert said.keys() == outputs
    assert all(verdict.startswith("agrees") for verdict in said.values())
    assert times(workspace) == before


@pytest.mark.slow
def test_every_changed_bit_is_named_wherever_it_hides(workspace: Path, run: Run) -> None:
    def replace(name: str, old: str, new: str) -> None:
        text = (workspace / name).read_text()
        assert old in text
        (workspace / name).write_text(text.replace(old, new))

    # In the code: a metric, committed without what comes of it.
    replace("stages/train.py", '"loss": loss', '"loss": loss + 1e-6')
    # In the lock alone: another md5 for the raw data.
    raw = verify.md5(workspace / "data/raw/mnist_784.npz")
    replace("dvc.lock", raw, raw[::-1])
    # In a committed file alone: the last digit of the curve.
    curve = workspace / "metrics/plots/learning_curve.csv"
    curve.write_text(curve.read_text()[:-2] + "1\n")
    # In a committed file and in the lock to match, so that DVC sees nothing to run again.
    before = verify.md5(workspace / "metrics/evaluate.json")
    replace("metrics/evaluate.json", "0.297092", "0.297093")
    replace("dvc.lock", before, verify.md5(workspace / "metrics/evaluate.json"))
    run(workspace, "git", "commit", "--quiet", "--all", "--message=tampered")
    # In the workspace alone: the last bit of a pixel and of a weight.
    for name in ("data/prepared/test.safetensors", "models/model.safetensors"):
        content = bytearray((workspace / name).read_bytes())
        content[-1] ^= 1
        (workspace / name).unlink()  # it is linked to a cache, which stays as it is
        (workspace / name).write_bytes(content)

    status, said, printed = verified(workspace, run)
    assert status == 1
    assert printed.count("DIFFERS") == len(re.findall("^  .+/", printed, re.MULTILINE)) == 6
    assert {path for path, verdict in said.items() if verdict.startswith("DIFFERS")} == {
        "metrics/train.json",
        "data/raw/mnist_784.npz",
        "metrics/plots/learning_curve.csv",
        "metrics/evaluate.json",
        "data/prepared/test.safetensors",
        "models/model.safetensors",
    }


def test_a_folder_is_digested_as_dvc_does(tmp_path: Path, run: Run) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for name in ("b", "a.txt", "sub/a", "sub-a"):
        (tmp_path / "folder" / name).write_text(name)
    run(tmp_path, "dvc", "init", "--no-scm")
    run(tmp_path, "dvc", "add", "folder")
    tracked = yaml.safe_load((tmp_path / "folder.dvc").read_text())
    assert verify.md5(tmp_path / "folder") == tracked["outs"][0]["md5"]
