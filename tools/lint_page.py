"""Check the scripts of the page with ESLint, which npx brings; says so where it cannot.

The scripts share one scope, so they are checked as one text; what is found is told by file.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from src.common import command
from src.report import page

ESLINT = "eslint@9.39.1"
FOLDER, CONFIG = Path("src/report"), "tools/eslint.config.mjs"


def main() -> None:
    argparse.ArgumentParser(prog="python -m tools.lint_page", description=__doc__).parse_args()
    npx = shutil.which("npx")
    skipped = "lint: skipped: the page's scripts are not checked:"
    if not npx:
        print(f"{skipped} npx is not here, which comes with Node", file=sys.stderr)
        return
    run = [npx, "--yes", ESLINT]
    asked = subprocess.run([*run, "--version"], capture_output=True, text=True)
    if asked.returncode:
        why = [line for line in asked.stderr.splitlines() if line.strip()] or ["npx failed"]
        print(f"{skipped} npx cannot bring {ESLINT}: {why[0]}", file=sys.stderr)
        return
    texts = {f"{name}.js": (FOLDER / f"{name}.js").read_text("utf-8") for name in page.PARTS}
    options = ["--config", CONFIG, "--format", "json", "--stdin", "--stdin-filename", "page.js"]
    checked = subprocess.run(
        [*run, *options], input="".join(texts.values()), capture_output=True, text=True
    )
    if not checked.stdout:
        raise command.UsageError(f"{ESLINT} failed: {checked.stderr.strip()}")
    lines = [
        f"{FOLDER / name}:{n + 1}" for name, text in texts.items() for n in range(text.count("\n"))
    ]
    told = [
        f"{lines[each['line'] - 1]}:{each['column']}: {each['message']} ({each['ruleId']})"
        for each in json.loads(checked.stdout)[0]["messages"]
    ]
    print("\n".join([*told, f"lint: {len(texts)} scripts of the page: {len(told)} findings"]))
    if told:
        sys.exit(1)


if __name__ == "__main__":
    command.run("lint", main)
