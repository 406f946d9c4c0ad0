"""Prove that this machine computes the committed results: clone, reproduce, compare.

The current commit is cloned into a temporary folder and everything is reproduced there with an
empty DVC cache, so that nothing computed before can stand in. Each output in the committed
dvc.lock is compared with what was computed, with the file in the commit and with the file here.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml


def main() -> int:
    """Print a line for each output and a verdict; return the exit status."""
    # Set inside a Git hook: they would turn every command below to the hook's repository.
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("GIT_")}
    # Optional locks would write to the user's .git folder.
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "PYTHONDONTWRITEBYTECODE": "1"}

    def git(folder: Path, *arguments: str | Path) -> bytes:
        command = ["git", "-C", folder, *arguments]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout

    workspace = Path(git(Path(), "rev-parse", "--show-toplevel").decode().rstrip("\n"))
    commit = git(workspace, "rev-parse", "--short", "HEAD").decode().strip()
    committed = outputs(git(workspace, "show", f"{commit}:dvc.lock").decode())
    print(f"verify: reproducing commit {commit} in a temporary folder")
    if changed := git(workspace, "status", "--porcelain", "--untracked-files=no").decode():
        print(f"verify: the commit is verified, not your uncommitted changes:\n{changed.rstrip()}")
    with tempfile.TemporaryDirectory(prefix="verify-") as temporary:
        folder = Path(temporary)
        clone = folder / "clone"
        git(workspace, "clone", "--quiet", "--no-checkout", workspace, clone)
        git(clone, "checkout", "--quiet", "--detach", commit)
        in_commit = {path: md5(clone / path) for path in committed if (clone / path).exists()}
        # A cache of its own, whatever the project or the user has set up.
        config = "[cache]\n    dir = cache\n    type = hardlink,copy\n"
        (clone / ".dvc" / "config.local").write_text(config, encoding="utf-8")
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(folder / "config"),
            "DVC_SYSTEM_CONFIG_DIR": str(folder / "config"),
        }
        # Metrics and plots come with the clone: only --force computes them once more.
        command = [sys.executable, "-m", "dvc", "repro", "--force"]
        sys.stdout.flush()
        if subprocess.run(command, cwd=clone, env=environment, check=False).returncode:
            print("verify: dvc repro failed in the clone, see above; nothing was compared")
            return 1
        computed = outputs((clone / "dvc.lock").read_text(encoding="utf-8"))
        stale = git(clone, "diff", "--name-only", "--", "dvc.lock")
    here = {path: md5(workspace / path) for path in committed if (workspace / path).exists()}
    recorded_here = outputs((workspace / "dvc.lock").read_text(encoding="utf-8"))

    print()
    width = max(map(len, committed.keys() | computed.keys()))
    differing = []
    for path in sorted(committed.keys() | computed.keys()):
        expected = committed.get(path)
        faults = []
        if computed.get(path) != expected:
            faults.append(f"computed {computed.get(path)}")
        if in_commit.get(path, expected) != expected:
            faults.append(f"the committed file {in_commit[path]}")
        # An experiment in progress has changed dvc.lock along with its outputs.
        if path in here and here[path] != recorded_here.get(path):
            faults.append(f"the file in this workspace {here[path]}")
        if faults:
            differing.append(path)
            print(f"{path:{width}}  DIFFERS: committed {expected}, {', '.join(faults)}")
        else:
            print(f"{path:{width}}  agrees: {expected}")
    if stale and not differing:
        print("verify: the committed dvc.lock is out of date; run `dvc repro` and commit it")
    if differing:
        print(f"verify: {len(differing)} of {len(committed)} outputs differ from commit {commit}:")
        print("".join(f"  {path}\n" for path in differing), end="")
        return 1
    print(f"verify: all {len(committed)} outputs agree with commit {commit}")
    return 0


def outputs(lock: str) -> dict[str, str]:
    """Map each output's path to its md5, for all stages of a dvc.lock."""
    stages = yaml.safe_load(lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}


def md5(path: Path) -> str:
    """Digest a file, or a folder as DVC does: over the JSON list of its files."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listed = json.dumps([{"md5": md5(path / name), "relpath": name} for name in names])
    return hashlib.md5(listed.encode()).hexdigest() + ".dir"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, subprocess.CalledProcessError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"verify: {str(error) or 'interrupted'}")
