"""Warn if something about this checkout makes DVC lose experiments without a word.

`dvc exp run --temp` and `--queue` run in a clone beside. From a shallow clone, or through a path
with characters that mean something in an address, DVC cannot fetch the result and may not say so.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from src.common import command


def warnings(path: str, is_shallow: bool) -> list[str]:
    """Return a line for each trouble of a checkout in a path, with its cure."""
    lost = "`dvc exp run --temp` and `--queue` fail, or lose their results"
    found = []
    if is_shallow:
        found.append(f"this clone is shallow: {lost}. Cure: `git fetch --unshallow`")
    if sign := re.search(r"%[0-9A-Fa-f]{2}|[#?]|[^\x00-\x7f]", path):
        found.append(
            f"the path {path} has {sign[0]!r} in it: {lost}. "
            "Cure: a folder without %, #, ? and letters outside ASCII"
        )
    return found


def main() -> None:
    argparse.ArgumentParser(prog="python -m tools.check", description=__doc__).parse_args()
    ask = ["git", "rev-parse", "--is-shallow-repository"]
    is_shallow = subprocess.run(ask, capture_output=True, text=True).stdout.strip() == "true"
    for warning in warnings(str(Path.cwd()), is_shallow):
        print(f"check: {warning}", file=sys.stderr)


if __name__ == "__main__":
    command.run("check", main)
