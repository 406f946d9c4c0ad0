"""Damage and bad parameters under the real `dvc`: what is printed helps, and all comes back."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from src.common import files
from tests.support import clones
from tests.support.clones import Run

FILE = "data/predicted/test.safetensors"


def lock_of(folder: Path) -> Any:
    """Return the stages of a dvc.lock."""
    return files.parse_yaml((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]


def test_the_remedy_for_a_copy_that_is_damaged_in_dvcs_cache_heals_it_in_a_path_with_a_space(
    reproduced: Path, tmp_path: Path, run: Run
) -> None:
    clone = clones.clone(tmp_path / "a clone", reproduced, run)
    (md5,) = (out["md5"] for out in lock_of(clone)["evaluate"]["outs"] if out["path"] == FILE)
    content = (clone / FILE).read_bytes()
    # A cache of its own, as other tests read the one that the clone shares.
    shutil.copytree(reproduced / ".dvc" / "cache", clone / "its own cache")
    run(clone, "dvc", "cache", "dir", "--local", "its own cache")
    cached = clone / "its own cache" / "files" / "md5" / md5[:2] / md5[2:]
    clones.tamper(cached, content[:-1] + bytes([content[-1] ^ 1]))
    (clone / FILE).unlink()
    run(clone, "dvc", "checkout", FILE)
    assert (clone / FILE).read_bytes() != content
    result = run(clone, "dvc", "repro", "--force", "--single-item", "report", check=False)
    assert result.returncode
    remedy = re.search(rf"report: {FILE} is damaged \(.*\); `(.+)` restores it", result.stdout)
    assert remedy
    # The environment is the tests' own: make takes none of its stamps for missing.
    printed = run(clone, "sh", "-c", remedy[1], env={"MAKEFLAGS": "RUN="}).stdout
    assert (clone / FILE).read_bytes() == cached.read_bytes() == content, printed
    assert run(clone, "git", "status", "--porcelain", "--untracked-files=no").stdout == ""


def test_repro_with_a_bad_parameter_says_so_runs_no_shell_command_and_recovers(
    workspace: Path, run: Run
) -> None:
    params = workspace / "params.yaml"
    committed = params.read_text(encoding="utf-8")
    hostile = committed.replace("epochs: 5", "epochs: '5; touch x $(touch x)'")
    params.write_text(hostile, encoding="utf-8")
    result = run(workspace, "dvc", "repro", "train", check=False)
    assert result.returncode
    assert "train.epochs: must be an integer from 1 to 10000 (given: '5; touch" in result.stdout
    assert "Traceback" not in result.stdout
    params.write_text(committed, encoding="utf-8")
    run(workspace, "dvc", "repro")
    assert run(workspace, "git", "status", "--porcelain").stdout == ""  # no x, and all is back


def test_two_clones_that_share_both_caches_finish_at_once(
    reproduced: Path, environment: dict[str, str], run: Run, tmp_path: Path
) -> None:
    # Both caches are empty at first, so that both write each entry at about one time; the wheel
    # is not downloaded again.
    home = tmp_path / "home"
    shutil.copytree(Path(environment["SCIKIT_LEARN_DATA"]) / "pypi", home / "pypi")

    def repro(name: str) -> None:
        run(tmp_path / name, "dvc", "repro", "prepare", env={"SCIKIT_LEARN_DATA": str(home)})

    for name in ("one", "two"):
        run(tmp_path, "git", "clone", "--quiet", reproduced, name)
        run(tmp_path / name, "dvc", "cache", "dir", "--local", tmp_path / "cache")
    with ThreadPoolExecutor() as pool:
        assert [*pool.map(repro, ("one", "two"))] == [None, None]
    for name in ("one", "two"):
        assert lock_of(tmp_path / name)["prepare"]["outs"] == lock_of(reproduced)["prepare"]["outs"]
        assert "up to date" in run(tmp_path / name, "dvc", "status", "prepare").stdout
