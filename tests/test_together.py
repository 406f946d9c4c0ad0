"""Two pipelines on one machine at once, sharing scikit-learn's cache and DVC's cache."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.mark.slow
def test_two_clones_that_share_both_caches_finish_with_the_committed_bits(
    reproduced: Path, environment: dict[str, str], run: Run, tmp_path: Path
) -> None:
    # Both caches are empty at first, so that both pipelines write each entry at about one time.
    env = environment | {"SCIKIT_LEARN_DATA": str(tmp_path / "scikit_learn_data")}
    clones = [tmp_path / "one", tmp_path / "two"]
    for clone in clones:
        run(tmp_path, "git", "clone", "--quiet", reproduced, clone)
        run(clone, "dvc", "cache", "dir", "--local", tmp_path / "dvc_cache")
    started = [
        subprocess.Popen(
            ["dvc", "repro"], cwd=clone, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for clone in clones
    ]
    for process in started:
        output = process.communicate(timeout=600)[0].decode()
        assert process.returncode == 0, output
    for clone in clones:
        assert run(clone, "git", "status", "--porcelain").stdout == ""
        assert "up to date" in run(clone, "dvc", "status").stdout
