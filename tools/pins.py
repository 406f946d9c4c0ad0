"""Write pins.yaml: the versions in requirements.lock of the packages that dvc.yaml asks for.

A stage depends on the versions of the packages that compute what it writes, not on the whole lock.
"""

import argparse
from pathlib import Path

from src.common import command, files

PINS, LOCK, PIPELINE = "pins.yaml", "requirements.lock", "dvc.yaml"
HEAD = """\
# The versions of the packages that compute what a stage writes, from requirements.lock.
# `make lock` writes this file; dvc.yaml says which stage depends on which.
"""


def wanted() -> list[str]:
    """Return the packages that are parameters of a stage in dvc.yaml."""
    stages = files.parse_yaml(Path(PIPELINE).read_text(encoding="utf-8"))["stages"].values()
    entries = [entry for stage in stages for entry in stage.get("params", [])]
    return sorted({name for entry in entries if isinstance(entry, dict) for name in entry[PINS]})


def main() -> None:
    argparse.ArgumentParser(prog="python -m tools.pins", description=__doc__).parse_args()
    lines = Path(LOCK).read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if "==" in line)
    if missing := [name for name in wanted() if name not in locked]:
        raise command.UsageError(f"{PIPELINE} asks for {', '.join(missing)}, which {LOCK} lacks")
    files.write(PINS, HEAD + "".join(f"{name}: '{locked[name]}'\n" for name in wanted()))


if __name__ == "__main__":
    command.run("pins", main)
