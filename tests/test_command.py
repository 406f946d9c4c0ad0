"""How a command ends: in words and a status, on errors, Ctrl-C and SIGTERM too."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


def test_output_that_cannot_be_written_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert end(lambda: None, capsys) == (1, "name: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("module", ["stages.fetch", "stages.train", "tools.predict"])
def test_without_the_environment_a_command_names_what_to_do(module: str) -> None:
    bare = [sys.executable, "-S", "-m", module, "four.png"]  # -S: without site-packages
    result = subprocess.run(bare, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "the packages are missing: `make install` once, then `source .venv/bin/activate`\n"
    )
