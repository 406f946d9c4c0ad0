"""What the tests share: an environment that leaves nothing behind, and reproduced workspaces."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.stage_runner import openml_200, reproduced_200, small  # noqa: F401  (fixtures)

REPOSITORY = Path(__file__).parent.parent

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a temporary folder that all workers of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def environment(shared_folder: Path) -> dict[str, str]:
    """Return environment variables with every cache in the temporary folder."""
    folder = shared_folder / "environment"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SCIKIT_LEARN_DATA": str(folder / "scikit_learn_data"),
        "DVC_SITE_CACHE_DIR": str(folder / "dvc_site_cache"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc_config"),
        "DVC_SYSTEM_CONFIG_DIR": str(folder / "dvc_config"),
        "DVC_NO_ANALYTICS": "1",
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Run:
    """Return a function that runs a command in a folder and checks that it succeeds.

    `run(folder, "dvc", "repro", env={...}, check=False)`; text comes back in `stdout`, which
    holds stderr too.
    """

    def run(
        folder: Path, *command: str | Path, env: dict[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(f"{command} exited with {result.returncode}:\n{result.stdout}")
        return result

    return run


def stages_run(printed: str) -> list[str]:
    """Return the stages that `dvc repro` ran, or took from its cache of runs, in their order."""
    return re.findall(r"(?:Running s|S)tage '(\w+)'(?=:| is cached)", printed)


def copy_of_project(folder: Path, run: Run) -> Path:
    """Commit the files under test, as they are now, to a new Git repository in `folder`."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        text=True,
    )
    for name in listed.rstrip("\0").split("\0"):
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=the files under test")
    return folder


def command_of(folder: Path, stage: str) -> list[str]:
    """Return the command that `dvc.lock` holds for a stage."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    return shlex.split(lock["stages"][stage]["cmd"])


@pytest.fixture(scope="session")
def reproduced(shared_folder: Path, run: Run) -> Path:
    """Return a clone in which `dvc repro` ran from nothing; for reading only.

    What it printed is beside it, in `reproduced.log`.
    """
    folder = shared_folder / "reproduced"
    log = shared_folder / "reproduced.log"
    with FileLock(shared_folder / "reproduced.lock"):
        if not log.exists():
            shutil.rmtree(folder, ignore_errors=True)
            copy_of_project(folder, run)
            log.write_text(run(folder, "dvc", "repro").stdout, encoding="utf-8")
    return folder


@pytest.fixture
def workspace(reproduced: Path, tmp_path: Path, run: Run) -> Path:
    """Return a clone of the reproduced workspace, up to date, for a test to change.

    It reads the reproduced one's DVC cache by links, and adds to it.
    """
    folder = tmp_path / "workspace"
    run(tmp_path, "git", "clone", "--quiet", reproduced, folder)
    run(folder, "dvc", "cache", "dir", "--local", reproduced / ".dvc" / "cache")
    run(folder, "dvc", "config", "--local", "cache.type", "hardlink")
    run(folder, "dvc", "checkout", "--quiet")
    return folder
