"""Fixtures of the page's tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import clones, stages
from tests.support import reports as files_of


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Change to an empty folder; return a function that runs `report` there, for its page."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clones.REPOSITORY / "src/report", tmp_path / "src/report")
    stages.parameters()

    def page_of() -> Path:
        stages.run_stage("report").expect(0)
        return files_of.html_of(tmp_path)

    return page_of
