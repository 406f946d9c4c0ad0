"""Make a damaged file anew that a stage writes, in the project and in DVC's cache."""

import argparse
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from src.common import command, files

LOCK = "dvc.lock"
DVC = (sys.executable, "-m", "dvc")


def outputs() -> set[str]:
    """Return the paths that stages write, as dvc.lock records them.

    Raises:
        OSError: dvc.lock is missing or may not be read.
        UsageError: it is no YAML, as after a merge with conflicts.
    """
    try:
        lock: Any = files.parse_yaml(Path(LOCK).read_text(encoding="utf-8"))
        return {out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])}
    except OSError as error:
        raise OSError(f"{LOCK} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise command.UsageError(
            f"{LOCK} cannot be used, maybe for a merge's conflict ({error}). Take either side: "
            f"`git checkout --ours {LOCK}`, then `dvc repro`."
        ) from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.restore", description=__doc__)
    parser.add_argument("file", metavar="FILE", help="the path of a file that a stage writes")
    path = Path(os.path.normpath(parser.parse_args().file))
    if path.as_posix() not in outputs():
        raise command.UsageError(
            f"FILE must be what a stage writes, and not {path.as_posix()}; "
            f"those are {', '.join(sorted(outputs()))}"
        )
    # DVC takes a read-only file in its cache for sound, and would hand out a damaged one for ever.
    answer = subprocess.run([*DVC, "cache", "dir"], check=False, stdout=subprocess.PIPE, text=True)
    for cached in Path(answer.stdout.strip(), "files").rglob("*"):
        cached.chmod(cached.stat().st_mode | stat.S_IWUSR)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return subprocess.run([*DVC, "repro"], check=False).returncode


if __name__ == "__main__":
    command.run("restore", main)
