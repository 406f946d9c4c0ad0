"""Prove in a clone with an empty cache that this machine computes the committed results."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.common import command


def call(folder: Path, *arguments: str | Path) -> None:
    """Run a program in a folder, and end it where this process is ended.

    Raises:
        OSError: it fails; it has printed why.
    """
    with subprocess.Popen(arguments, cwd=folder) as program:
        try:
            status = program.wait()
        except BaseException:
            program.kill()  # DVC would wait for its stage
            raise
    if status:
        raise OSError(f"`{' '.join(map(str, arguments[-2:]))}` failed in a clone of HEAD")


def git(*arguments: str) -> str:
    """Return what Git answers in the present folder."""
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if answer.returncode:
        raise OSError(f"git {arguments[0]} failed: {answer.stderr.strip()}")
    return answer.stdout.rstrip("\n")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards, though a stage that was left may still write to it."""
    # It removes read-only files on Windows too, as those in DVC's cache.
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    try:
        yield Path(folder.name)
    finally:
        while os.path.exists(folder.name):
            folder.cleanup()
            time.sleep(0.5 if os.path.exists(folder.name) else 0)


def main() -> None:
    argparse.ArgumentParser(prog="python -m tools.verify", description=__doc__).parse_args()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    # The project may be a folder of a larger repository.
    top, project = git("rev-parse", "--show-toplevel"), git("rev-parse", "--show-prefix")
    dvc = (sys.executable, "-m", "dvc")
    with temporary_folder() as folder:
        call(folder, "git", "clone", "--quiet", top, folder / "clone")
        clone = folder / "clone" / project
        call(clone, *dvc, "cache", "dir", "--local", folder / "cache")
        call(clone, *dvc, "repro")
        call(clone, "git", "diff", "--exit-code")
    print(f"verify: all results are those of commit {git('rev-parse', '--short', 'HEAD')}")


if __name__ == "__main__":
    os.environ["GIT_PAGER"] = "cat"
    command.run("verify", main)
