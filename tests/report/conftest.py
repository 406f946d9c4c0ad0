"""Fixtures of the page's tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import clones, stages
from tests.support import reports as files_of


@pytest.fixture
def own(here: Path) -> Callable[[], Path]:
    """Change to an empty folder; return a function that runs `report` there, for its page."""
    shutil.copytree(clones.REPOSITORY / "src/report", "src/report")
    stages.parameters()

    def page_of() -> Path:
        stages.run_stage("report").expect(0)
        return files_of.html_of(here)

    return page_of
