"""The README and docs/ are gone through as a reader would: what they show is done, in order.

A console block's commands run in a clone, and the lines below each are part of what it must print:
`...` stands for anything in between, timings and hashes of commits do not count. A diff block is an
edit of the file that its @@ line names, a Python block that starts with a file's name is that file.
`<!-- not run: reason -->` before a block leaves it out; `<!-- from a fresh clone -->` starts again,
so that the parts of a long page can run side by side.
"""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.clones import REPOSITORY, Run
from tests.support.openml_server import OpenML

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
CUT = "<!-- from a fresh clone -->\n"
BLOCK = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.M)
EDIT = re.compile(r"^@@ (\S+) @@.*\n((?:[-+ ].*\n|\n)+)", re.M)


@dataclasses.dataclass
class Block:
    """A fenced block of a page."""

    place: str  # page:line
    reason: str | None  # for not running it
    language: str
    text: str


def parts(page: Path) -> list[list[Block]]:
    """Return the blocks of each part of a page that starts from a fresh clone."""
    text = page.read_text(encoding="utf-8")
    found: list[list[Block]] = [[]]
    for match in re.finditer(f"{BLOCK.pattern}|{re.escape(CUT)}", text, BLOCK.flags):
        if match[0] == CUT:
            found.append([])
        else:
            place = f"{page.name}:{text.count(chr(10), 0, match.start(2)) + 1}"
            found[-1].append(Block(place, *match.groups()))
    return [part for part in found if part]


ALL = {part[0].place: part for page in PAGES for part in parts(page)}
NOT_RUN = [block for part in ALL.values() for block in part if block.reason]


def test_no_fence_is_overlooked() -> None:
    for page in PAGES:
        fences = re.findall(r"```|~~~", page.read_text(encoding="utf-8"))
        assert len(fences) == 2 * sum(map(len, parts(page))), page


@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in NOT_RUN])
def test_left_out(block: Block) -> None:
    pytest.skip(block.reason or "")


@pytest.mark.parametrize("blocks", [pytest.param(part, id=place) for place, part in ALL.items()])
def test_a_page_can_be_followed_to_the_letter(
    blocks: list[Block], workspace: Path, tmp_path: Path, environment: dict[str, str], run: Run
) -> None:
    cache = shutil.copytree(environment["SCIKIT_LEARN_DATA"], tmp_path / "scikit_learn_data")
    origin = tmp_path / "origin.git"
    run(tmp_path, "git", "clone", "--quiet", "--bare", workspace, origin)
    run(workspace, "git", "remote", "set-url", "origin", origin)
    is_asked = any("Fashion-MNIST" in block.text for block in blocks)
    rows = np.arange(70_000 if is_asked else 10)  # so many take seconds to write
    images = np.zeros((len(rows), 784), np.uint8)
    images[rows, rows * 7 % 784] = 255
    labels = (rows % 10).astype(np.uint8)
    with OpenML(images, labels, name="Fashion-MNIST") as openml:
        changes = openml.env | {
            "SCIKIT_LEARN_DATA": str(cache),
            "MAKEFLAGS": f"RUN={tmp_path}/run DEV={tmp_path}/dev",
            "HOME": str(tmp_path),
        }
        names = {"REPOSITORY": f"file://{origin}", "/mnt/shared": str(tmp_path / "shared")}
        reader = Reader(workspace, tmp_path, run, changes, names)
        for block in blocks:
            if not block.reason:
                reader.follow(block)


class Reader:
    """Does what the blocks of a page say, one after the other."""

    def __init__(
        self, folder: Path, top: Path, run: Run, environment: dict[str, str], names: dict[str, str]
    ) -> None:
        """Start in a folder below `top`; `names` says what stands for a name of the page."""
        self.folder, self.top = folder, top
        self.run, self.environment, self.names = run, environment, names

    def follow(self, block: Block) -> None:
        """Run the block's commands, or make its edits."""
        if block.language == "console":
            commands = COMMAND.findall(block.text)
            assert commands, f"{block.place}: a console block without a command"
            for command, expected in commands:
                self.type(block.place, command, expected)
        elif block.language == "diff":
            edits = EDIT.findall(block.text)
            assert edits, f"{block.place}: start a diff block with @@ path of the file @@"
            for name, lines in edits:
                self.edit(block.place, name, lines)
        elif block.language == "python" and (path := re.match(r"# (\S+\.py)\n", block.text)):
            (self.folder / path[1]).write_text(block.text, encoding="utf-8")
        else:
            assert block.language in ("python", "text"), (
                f"{block.place}: show commands as console, edits as diff, the rest as text"
            )

    def type(self, place: str, command: str, expected: str) -> None:
        """Run a command; check its status, and what it prints if the page shows that."""
        for name, path in self.names.items():
            command = command.replace(name, path)
        # Fresh stamps tell make that there is an environment: that of this test. The next command
        # starts in the folder where this one ended.
        script = (
            f'touch run dev; exec 9>ended; cd "$0"; {command}\nstatus=$?; pwd >&9; exit $status'
        )
        result = self.run(
            self.top, "bash", "-c", script, self.folder, env=self.environment, check=False
        )
        self.folder = Path((self.top / "ended").read_text(encoding="utf-8").rstrip("\n"))
        printed = result.stdout
        for name, path in self.names.items():
            printed = printed.replace(path, name)
        told = f"{place}: $ {command}\nprinted, with exit status {result.returncode}:\n{printed}"
        if result.returncode:
            pytest.fail(told, pytrace=False)
        if not re.search(pattern(expected), plain(printed), re.M):
            pytest.fail(f"{told}\nand not as the page says:\n{expected}", pytrace=False)

    def edit(self, place: str, name: str, lines: str) -> None:
        """Make an edit: its lines with a minus or a blank are replaced by those with a plus."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        before, after = (
            "".join(line[1:] for line in lines.splitlines(keepends=True) if line[0] in kept)
            for kept in (" -\n", " +\n")
        )
        assert text.count(before) == 1 or not text, f"{place}: {name} has not once:\n{before}"
        path.write_text(text.replace(before, after) if text else after, encoding="utf-8")


def plain(printed: str) -> str:
    """Leave out what differs from run to run, blanks at the ends of lines and empty lines."""
    printed = re.sub(r"\b\d+(\.\d+)? s\b", "N s", printed)
    printed = re.sub(r"\b([0-9a-f]{40}|[0-9a-f]{7})\b", "COMMIT", printed)
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines() if line.strip())


def pattern(expected: str) -> str:
    """Return a regular expression of what a page shows."""
    lines = (
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in plain(expected).splitlines()
    )
    return "^" + "".join(lines)
