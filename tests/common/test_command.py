"""How a command ends: in words and a status, on errors, Ctrl-C and SIGTERM too."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from src.common import command
from tests.support.clones import REPOSITORY


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the handlers of signals back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def run(*command: str, folder: Path = REPOSITORY, **variables: str) -> tuple[int, str, str]:
    """Run a command; return its status and what it printed to stdout and stderr."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


python = partial(run, sys.executable)


def failing(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def end(main: Callable[[], int | None], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Return the exit status and what went to stderr."""
    with pytest.raises(SystemExit) as ended:
        command.run("name", main)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (command.UsageError("a: wrong\nb: wrong"), 2, "name: a: wrong\nname: b: wrong\n"),
        (OSError("x is missing"), 1, "name: x is missing\n"),
        (KeyboardInterrupt(), 1, "name: interrupted\n"),
        (SystemExit(7), 7, ""),
    ],
)
def test_an_error_is_its_lines_and_a_status(
    error: BaseException,
    status: int,
    lines: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRACEBACK", raising=False)
    assert end(failing(error), capsys) == (status, lines)
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(type(error)):
        command.run("name", failing(error))


def test_main_s_status_is_the_commands_and_a_bug_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert end(lambda: None, capsys) == (None, "")
    assert end(lambda: 3, capsys) == (3, "")
    with pytest.raises(ZeroDivisionError):
        command.run("name", failing(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("number", "status", "lines"),
    [(signal.SIGINT, 1, "name: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_unwinds_main_so_that_it_clears_up(
    number: int, status: int, lines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        try:
            (tmp_path / "temporary").touch()
            os.kill(os.getpid(), number)
            time.sleep(0.5)
        finally:
            (tmp_path / "temporary").unlink()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's background jobs have it
    assert end(main, capsys) == (status, lines)
    assert not any(tmp_path.iterdir())


def test_a_stage_refuses_arguments_and_names_params_yaml(tmp_path: Path) -> None:
    for script in REPOSITORY.glob("stages/[!_]*.py"):
        last = f'command.run_stage("{script.stem}", main)\n'
        assert script.read_text(encoding="utf-8").endswith(last)
    assert python("-m", "stages.prepare", "--pixel-max", "100", folder=tmp_path) == (
        *(2, ""),
        "prepare: a stage takes no arguments; its settings are in params.yaml"
        " (given: --pixel-max 100)\n",
    )
    assert not any(tmp_path.iterdir())


PRINTING = """
import sys
from src.common import command
def main():
    for number in range(20000):
        print(number, "four.png \\u00e9")
    return int(sys.argv[1])
command.run("name", main)
"""


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize(
    ("redirection", "printed"),
    [
        (" >&-", ""),
        (" >&- 2>&- <&-", ""),
        (" 2>&1 | head -n 1", "0 four.png \xe9\n"),
        (" | tail -n 1", "19999 four.png \xe9\n"),
    ],
)
def test_a_closed_output_or_an_ascii_one_changes_no_status(
    status: int, redirection: str, printed: str
) -> None:
    script = f'set -o pipefail; "$0" -c "$1" {status}{redirection}'
    ended = run("bash", "-c", script, sys.executable, PRINTING)
    assert ended == (status, printed, "")


def test_an_ascii_output_shows_other_letters_by_their_numbers() -> None:
    status, printed, errors = python("-c", PRINTING, "0", PYTHONIOENCODING="ascii")
    assert (status, errors) == (0, "")
    assert printed.startswith("0 four.png \\xe9\n")


@pytest.mark.parametrize("lines", ["20000", "1"])  # more than a buffer holds, and less
def test_a_full_disk_is_a_line_where_the_output_is_a_file(lines: str) -> None:
    script = '"$0" -c "$1" 0 >/dev/full'
    program, buffered = PRINTING.replace("20000", lines), {"PYTHONUNBUFFERED": ""}
    ended = run("bash", "-c", script, sys.executable, program, **buffered)
    assert ended == (1, "", "name: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("module", ["stages.fetch", "stages.train", "tools.restore"])
def test_without_the_environment_a_command_names_what_to_do(module: str) -> None:
    remedy = "the packages are missing: `make install` once, then `source .venv/bin/activate`\n"
    assert python("-S", "-m", module, "file") == (1, "", remedy)  # -S: without site-packages


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "none such"])
def test_a_notebook_s_variables_do_not_reach_the_stages(backend: str, tmp_path: Path) -> None:
    """`!dvc repro` inherits them."""
    (tmp_path / "rc").write_text("figure.dpi: many\n", encoding="utf-8")
    foreign = {"MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path / "rc")}
    assert python("-c", "import stages, src.report.figures", **foreign) == (0, "", "")
