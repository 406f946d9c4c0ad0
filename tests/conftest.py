"""Fixtures, and the rule that says which tests are fast: those that use no slow fixture."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
from filelock import FileLock

from tests.support import clones, stages
from tests.support.clones import Run
from tests.support.openml_server import OpenML, redirected

# Processes, reproduced checkouts, browsers and servers: a test that uses one of these is not fast.
SLOW_FIXTURES = {"environment", "reproduced", "browser", "openml", "pip"}


def pytest_configure() -> None:
    """Keep torch to one thread, as the workers share the cores; give hypothesis its settings."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The same examples each time, however slow the machine is.
    hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use no slow fixture.

    Several workers take them in another order, in which none waits: the first reproduces, while
    the others run what needs no reproduction; short ones fill the cores to the end, and what
    measures time is the last.
    """
    fast, slow, reproduced, alone = [], [], [], []
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        is_fast = not SLOW_FIXTURES & used
        if is_fast:
            item.add_marker("fast")
        if "alone" in used:
            alone.append(item)
        elif is_fast:
            fast.append(item)
        else:
            (reproduced if "reproduced" in used else slow).append(item)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = reproduced[:2] + slow + reproduced[2:] + fast + alone


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a temporary folder that all workers of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def environment(shared_folder: Path) -> dict[str, str]:
    """Return environment variables with every cache in the temporary folder."""
    folder = shared_folder / "environment"
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    # What Git and make hand to their children would change what Git and make print here.
    foreign = ("GIT_", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SCIKIT_LEARN_DATA": str(folder / "scikit_learn_data"),
        "DVC_SITE_CACHE_DIR": str(folder / "dvc_site_cache"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc_config"),
        "DVC_SYSTEM_CONFIG_DIR": str(folder / "dvc_config"),
        "DVC_NO_ANALYTICS": "1",
        "TMPDIR": str(folder / "tmp"),
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
    """Return a function that runs a command in a folder and checks that it succeeds."""

    def run(
        folder: Path, *command: str | Path, env: dict[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
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
            clones.copy_of_project(folder, run)
            log.write_text(run(folder, "dvc", "repro").stdout, encoding="utf-8")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def alone(shared_folder: Path) -> Iterator[None]:
    """Let one test that measures time run at once; they are the last."""
    with FileLock(shared_folder / "alone.lock"):
        yield


@pytest.fixture
def workspace(reproduced: Path, tmp_path: Path, run: Run) -> Path:
    """Return a clone of the reproduced checkout, up to date, for a test to change."""
    return clones.clone(tmp_path / "workspace", reproduced, run)


@pytest.fixture(scope="session")
def small_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every stage's outputs for 200 rows, 8 x 8 pixels, 4 classes."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(clones.REPOSITORY / "src" / "report", folder / "src" / "report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stages.small_data()
        stages.small_parameters()
        for stage in stages.STAGES[1:]:
            stages.run_stage(stage).expect(0)
    return folder


@pytest.fixture
def small(small_outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a copy of that folder; `stages.run_stage` runs a stage there."""
    folder = shutil.copytree(small_outputs, tmp_path / "small")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def openml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenML]:
    """Return OpenML with 60 rows of 16 pixels, for this process, in an empty folder and cache."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 16), np.uint8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    # scikit-learn waits a second before it asks again, here and in the process that fetch starts.
    monkeypatch.setattr("sklearn.datasets._openml.time", SimpleNamespace(sleep=lambda _: None))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import time; time.sleep = lambda _: None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    server = OpenML(images, (np.arange(60) % 10).astype(np.uint8))
    with server, redirected(server.env):
        yield server
