"""Real checkouts with the real `dvc`: a reproduced one to read, and clones of it to change."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

# run(folder, *command, env={...}, check=False): stderr comes back in stdout.
Run = Callable[..., subprocess.CompletedProcess[str]]


def stages_run(printed: str) -> list[str]:
    """Return the stages that `dvc repro` ran, or took from its cache of runs, in their order."""
    return re.findall(r"(?:Running s|S)tage '(\w+)'(?=:| is cached)", printed)


def copy_files(folder: Path) -> None:
    """Copy the files under test, as they are now, without what Git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for name in listed.stdout.rstrip("\0").split("\0"):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


def copy_of_project(folder: Path, run: Run) -> Path:
    """Commit the files under test, as they are now, to a new Git repository in `folder`."""
    copy_files(folder)
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=the files under test")
    return folder


def tamper(cached: Path, content: bytes) -> None:
    """Change a file of DVC's cache, which takes what may not be written for sound."""
    cached.chmod(0o644)
    cached.write_bytes(content)
    cached.chmod(0o444)


def clone(folder: Path, source: Path, run: Run) -> Path:
    """Clone a reproduced checkout, up to date; it reads that one's DVC cache and adds to it."""
    run(folder.parent, "git", "clone", "--quiet", source, folder)
    # What the reproduction changed is committed here: one test tells of it, the others go on.
    if changed := run(source, "git", "diff", "--name-only").stdout.split():
        for name in changed:
            shutil.copy2(source / name, folder / name)
        run(folder, "git", "commit", "--quiet", "--all", "--message=the results of these files")
    (folder / ".dvc" / "config.local").write_text(
        f"[cache]\n    dir = {source / '.dvc' / 'cache'}\n    type = hardlink\n", encoding="utf-8"
    )
    run(folder, "dvc", "checkout", "--quiet")
    return folder
