"""docs/faults.md names a test for each fault, and each test of these suites is in it."""

import ast
import re

from tests.conftest import REPOSITORY

TABLE = (REPOSITORY / "docs" / "faults.md").read_text()
SUITES = [
    "openml_faults",
    "wheel_faults",
    "hard_stops",
    "disk",
    "damaged_files",
    "bad_parameters",
    "safety",
    "together",
]
# Tests of the tests and of what is not a fault.
NOT_FAULTS = {
    "test_every_fault_of_the_server_is_tested_here",
    "test_the_process_is_left_as_it_was",
    "test_a_wheel_like_the_real_one_is_read",
    "test_the_hostile_pickles_would_do_harm_elsewhere",
    "test_raw_data_in_fortran_order_is_read_rightly",
    "test_every_parameter_has_bad_values_here",
    "test_a_bug_still_gives_a_traceback_and_a_failure_on_request",
    "test_a_pickle_may_name_the_three_globals_only",
}


def functions_of(name: str) -> set[str]:
    tree = ast.parse((REPOSITORY / "tests" / name).read_text())
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {f"{name}::{function}" for function in functions if function.startswith("test_")}


def test_every_row_names_a_test_that_exists() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| fault |")]
    assert len(rows) > 40
    for row in rows:
        (named,) = re.findall(r"\| `(test_\w+\.py::test_\w+)` \|$", row)
        assert named in functions_of(named.split("::")[0])


def test_every_test_of_a_fault_has_a_row() -> None:
    for suite in SUITES:
        missing = {test for test in functions_of(f"test_{suite}.py") if f"`{test}`" not in TABLE}
        assert {test.split("::")[1] for test in missing} <= NOT_FAULTS
