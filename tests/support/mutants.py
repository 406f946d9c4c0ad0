"""mutmut, told of a package that is called src, and of what a session's fixture runs.

`make mutants` starts it. mutmut takes src for a folder of packages, and asks of each function which
tests call it: for what `small_outputs` calls, that would be the first test that uses it alone.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mutmut.__main__ as program
import pytest
from mutmut.mutation import file_mutation, trampoline
from mutmut.runners.harness import PytestRunner
from mutmut.state import state


def name(path: Path, method: str) -> str:
    """Name a mutant by its module, src included, as the tests import it."""
    return f"{'.'.join(Path(path).with_suffix('').parts)}.{method}".replace(".__init__.", ".")


def record(name: str, caller: str | None = None) -> None:
    """Note that the test that runs has called a function."""
    state()._stats.add(name)


class SharedFixture:
    """Has every test that uses `small_outputs` call what that fixture calls."""

    def __init__(self) -> None:
        self.called: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before = set(state()._stats)
        result = yield
        if fixturedef.argname == "small_outputs":
            self.called = state()._stats - before
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if "small_outputs" in getattr(item, "fixturenames", ()):
            state()._stats |= self.called


def in_order(self: PytestRunner, tests: Iterable[str]) -> list[str]:
    """Return pytest's arguments, the shortest tests first: the first failure ends a run."""
    seconds = state().duration_by_test
    return [
        "-x",
        "-q",
        *(
            sorted(tests, key=lambda test: seconds.get(test, 0))
            or self._pytest_add_cli_args_test_selection
        ),
    ]


def execute(self: PytestRunner, params: list[str], plugins: Any = ()) -> int:
    """Run pytest with one plugin more."""
    return int(plain(self, params, plugins=[*plugins, SharedFixture()]))


plain = PytestRunner.execute_pytest
PytestRunner.execute_pytest = execute
PytestRunner._pytest_args_regular_run = in_order
trampoline.record_trampoline_hit = record
program.get_mutant_name = file_mutation.get_mutant_name = name

if __name__ == "__main__":
    program.cli()
