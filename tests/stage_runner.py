"""Runs a stage's own `__main__` in this process: exit status and messages, but no second start.

Commands, inputs and outputs are those that `dvc.lock` holds.
"""

import contextlib
import dataclasses
import hashlib
import io
import runpy
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml

from tests.openml_server import OpenML, environment

REPOSITORY = Path(__file__).parent.parent
STAGES = list(yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"])
LOCK = yaml.safe_load((REPOSITORY / "dvc.lock").read_text())["stages"]
OUTPUTS = {stage: [out["path"] for out in LOCK[stage]["outs"]] for stage in STAGES}
MADE = {path for paths in OUTPUTS.values() for path in paths}
INPUTS = {stage: [dep["path"] for dep in LOCK[stage].get("deps", [])] for stage in STAGES}
INPUTS = {stage: [path for path in paths if path in MADE] for stage, paths in INPUTS.items()}

ROWS = 200
generator = np.random.default_rng(0)
IMAGES = generator.integers(0, 256, (ROWS, 784), np.uint8)
LABELS = np.arange(ROWS, dtype=np.uint8) % 10
SHA256 = hashlib.sha256(IMAGES.tobytes() + LABELS.tobytes()).hexdigest()
# What the 200 rows need, after the flags of dvc.lock: of two flags of a name the last one counts.
CHANGES = {
    "fetch": ["--sha256", SHA256, "--timeout", "5", "--sources", "openml"],
    "prepare": ["--train_size", "150"],
    "report": ["--template", str(REPOSITORY / "src" / "page.html")],
}


@dataclasses.dataclass
class Outcome:
    """How a stage ended."""

    status: int
    output: str
    errors: str

    def expect(self, status: int, *parts: str) -> None:
        """Check the status, and for an error of two lines at most; the parts are in the output.

        Lines in which fetch says why it goes on to the next source do not count.
        """
        trying = ("fetch: openml: ", "fetch: pypi: ")
        lines = [line for line in self.errors.splitlines() if not line.startswith(trying)]
        assert self.status == status, self.output
        assert all(part in self.output for part in parts), (parts, self.output)
        assert "Traceback" not in self.output, self.output
        assert len(lines) <= 2, self.output


def flags(stage: str) -> list[str]:
    """Return the stage's flags for the 200 rows."""
    words = shlex.split(LOCK[stage]["cmd"])
    return words[words.index(f"stages.{stage}") + 1 :] + CHANGES.get(stage, [])


def run_stage(stage: str, *arguments: str) -> Outcome:
    """Run `python -m stages.STAGE ARGUMENTS` in this process and the present folder."""
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", [f"stages.{stage}", *arguments]))
        stack.enter_context(mock.patch.object(sys, "path", [str(REPOSITORY), *sys.path]))
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(errors))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", RuntimeWarning)  # runpy: the module is imported already
        try:
            runpy.run_module(f"stages.{stage}", run_name="__main__")
        except SystemExit as end:
            status = 1 if isinstance(end.code, str) else end.code or 0
            errors.write(f"{end.code}\n" if isinstance(end.code, str) else "")
    return Outcome(status, output.getvalue() + errors.getvalue(), errors.getvalue())


@pytest.fixture(scope="session")
def openml_200() -> Iterator[OpenML]:
    """Return a server that answers as OpenML does, with 200 rows."""
    with OpenML(IMAGES, LABELS) as server:
        yield server


@pytest.fixture(scope="session")
def reproduced_200(openml_200: OpenML, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every stage's outputs for 200 rows, and a scikit_learn_data beside."""
    folder = tmp_path_factory.mktemp("reproduced_200")
    home = {"SCIKIT_LEARN_DATA": str(folder / "scikit_learn_data")}
    with contextlib.chdir(folder), environment(openml_200.env | home):
        for stage in STAGES:
            outcome = run_stage(stage, *flags(stage))
            assert outcome.status == 0, outcome.output
    return folder


@pytest.fixture
def small(
    reproduced_200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openml_200: OpenML
) -> Path:
    """Change to a copy of that folder, with the server that it came from in the environment."""
    openml_200.fault = None
    folder = shutil.copytree(reproduced_200, tmp_path / "small")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(folder / "scikit_learn_data"))
    with environment(openml_200.env):
        yield folder
