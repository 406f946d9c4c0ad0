"""Kill the pipeline at random moments, and check that the next `dvc repro` mends everything.

Each round forces one stage in a clone of this repository and kills the stage, DVC or both, or
presses Ctrl-C, at a random moment. Then `dvc repro` must succeed, with all files as committed.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

TARGETS = ("stage", "dvc", "both", "ctrl-c")


class Clone:
    """A reproduced clone of a reproduced repository, with a DVC cache of its own."""

    def __init__(self, repository: Path, folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder, self.env, self.cut_locks = folder, env, 0
        subprocess.run(["git", "clone", "--quiet", repository, folder], env=env, check=True)
        shutil.copytree(repository / ".dvc" / "cache", folder / ".dvc" / "cache")
        self.run("dvc", "config", "--local", "cache.type", "hardlink")
        self.run("dvc", "checkout")
        self.stages = list(yaml.safe_load((folder / "dvc.yaml").read_text())["stages"])
        self.check()

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command in the clone, in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> str:
        """Run a command to its end and return what it printed; AssertionError if it fails."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, f"{command} exited {process.returncode}:\n{output}"
        return output

    def force(self, stage: str) -> tuple[subprocess.Popen, psutil.Process | None]:
        """Have DVC run a stage; return both processes as soon as the stage's is there."""
        dvc = self.start("dvc", "repro", "--force", "--single-item", stage)
        while dvc.poll() is None:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(dvc.pid).children(recursive=True):
                    if f"stages.{stage}" in child.cmdline():
                        return dvc, child
            time.sleep(0.005)
        return dvc, None

    def seconds(self, stage: str) -> float:
        """Time from a stage's start to DVC's end."""
        dvc, _ = self.force(stage)
        started = time.monotonic()
        output, _ = dvc.communicate()
        assert dvc.returncode == 0, output
        return time.monotonic() - started

    def strike(self, stage: str, target: str, delay: float) -> float | None:
        """Kill the target `delay` seconds after the stage started, then check the recovery.

        Returns:
            Seconds until all had ended; None if the stage and DVC were done before the blow.

        Raises:
            AssertionError: says what is not as committed.
        """
        dvc, child = self.force(stage)
        time.sleep(delay)
        in_time = dvc.poll() is None
        struck = time.monotonic()
        if in_time and target == "ctrl-c":
            os.killpg(dvc.pid, signal.SIGINT)
        if in_time and target in ("dvc", "both"):
            dvc.kill()
            dvc.wait()  # DVC's lock stays taken as long as its process, or a zombie, is there
        if target in ("stage", "both"):
            with contextlib.suppress(psutil.Error, AttributeError):
                child.kill()
        if target == "dvc":
            self.check()  # the stage that lost its DVC may still be running beside this one
        output, _ = dvc.communicate()
        ended = time.monotonic() - struck
        # While Python itself starts (before half a second) or ends, it reports a Ctrl-C at length;
        # in between, no traceback may lead to a file of the project.
        ours = "Traceback" in output and str(self.folder) in output
        assert delay < 0.5 or not ours, output
        self.check()
        return ended if in_time else None

    def check(self) -> None:
        """Run `dvc repro`, which re-runs what is not as locked; all must then be as committed.

        DVC writes its list of locks in place: a kill in that moment leaves it cut short, and DVC
        refuses to start until the file is removed (see docs/faults.md), which is done and counted.
        """
        locks = self.folder / ".dvc" / "tmp" / "rwlock"
        try:
            json.loads(locks.read_text() if locks.exists() else "{}")
        except ValueError:
            locks.unlink()
            self.cut_locks += 1
        self.run("dvc", "repro")
        changed = self.run("git", "status", "--porcelain", "--untracked-files=no")
        assert not changed, f"not as committed:\n{changed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="a stage")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--stages", nargs="+", help="all, if not given")
    arguments = parser.parse_args()
    print(f"torture: seed {arguments.seed}, {arguments.kills} kills a stage", flush=True)
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(__file__).parent.parent, Path(folder) / "clone")
        for stage in arguments.stages or clone.stages:
            duration = clone.seconds(stage)
            counts, stops = collections.Counter(), []
            while counts.total() < arguments.kills:
                target = TARGETS[counts.total() % len(TARGETS)]
                delay = draw.uniform(0, duration)
                try:
                    ended = clone.strike(stage, target, delay)
                except AssertionError as error:
                    sys.exit(f"torture: {stage}, {target} after {delay:.3f} s: {error}")
                if ended is None:
                    duration = delay  # the machine is less busy than when it was measured
                    continue
                counts[target] += 1
                if target == "ctrl-c":
                    stops.append(ended)
            print(
                f"torture: {stage}: survived {dict(counts)};"
                f" Ctrl-C took {max(stops, default=0):.1f} s at most",
                flush=True,
            )
        print(f"torture: DVC's list of locks was cut short {clone.cut_locks} times")


if __name__ == "__main__":
    main()
