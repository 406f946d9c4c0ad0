"""A training's whole state on disk, so that it can stop and go on.

The file is no output of a stage: DVC removes those before a run. It lies in `.checkpoints` of the
main checkout, under a key of everything that decides the training's bits. Equal keys hold equal
bytes, so there is no lock. To go on elsewhere, copy the file to the same folder there.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from src.common import files
from src.learning.group import Group

KEPT = 5  # abandoned checkpoints that stay
STEPS = 25  # between two times that several processes ask the first one
MAGIC = b"checkpoint 1 "


def folder() -> Path:
    """Return the folder of checkpoints: DVC_ROOT is the main checkout, in --temp too."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints"


def key(**what: object) -> str:
    """Return the name of a training: 32 hexadecimal digits for all that decides its bits."""
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def code() -> str:
    """Digest the source of what trains, and the pins of what computes."""
    whole = hashlib.sha256()
    root = Path(__file__).parents[2]
    paths = [root / "pins.yaml", root / "stages" / "train.py"]
    for name in ("common", "exact", "learning"):
        paths += sorted((root / "src" / name).rglob("*.py"))
    for path in paths:
        whole.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


class Checkpoint:
    """The checkpoint of one training."""

    def __init__(self, name: str, seconds: float, device: torch.device) -> None:
        """Name the training by its `key`, and say how many seconds may pass unsaved.

        The processes agree through tensors on a device.
        """
        self.device = device
        self.path = folder() / f"{name}.checkpoint"
        self.seconds = seconds
        self.written = time.monotonic()

    def is_due(self, group: Group, step: int) -> bool:
        """Say whether to write within an epoch; all processes get the first one's answer."""
        if group.size > 1 and (step + 1) % STEPS:
            return False
        is_late = group.rank == 0 and time.monotonic() - self.written >= self.seconds
        return group.first_says(is_late, self.device)

    def write(self, group: Group, state: dict[str, Any]) -> None:
        """Replace the file, by the first process; a full disk is a warning."""
        if group.rank:
            return
        packed = io.BytesIO()
        torch.save(state, packed)
        content = packed.getvalue()
        digest = hashlib.sha256(content).hexdigest().encode()
        try:
            files.write(str(self.path), MAGIC + digest + b"\n" + content)
        except OSError as error:
            tqdm.write(f"train: no checkpoint: {error}", file=sys.stderr)  # above the bar
        self.written = time.monotonic()

    def read(self, group: Group | None = None) -> dict[str, Any] | None:
        """Return the state that was written, or None; says its `place`, or what is wrong.

        The first process reads, and gives what it found to the others.
        """
        group = group or Group()
        return group.share_object(self._read() if group.rank == 0 else None)

    def _read(self) -> dict[str, Any] | None:
        try:
            head, _, content = self.path.read_bytes().partition(b"\n")
            if head != MAGIC + hashlib.sha256(content).hexdigest().encode():
                raise ValueError("it is damaged, or of another version")
            # It may come from a machine with a GPU.
            found: dict[str, Any] = torch.load(
                io.BytesIO(content), map_location="cpu", weights_only=True
            )
        except FileNotFoundError:
            return None
        except Exception as error:  # arbitrary bytes make torch.load raise almost anything
            reason = " ".join(str(error).split())[:200]
            print(f"train: starts anew: {self.path} is not used: {reason}", file=sys.stderr)
            return None
        print(f"train: goes on after {found['place']}", flush=True)
        return found

    def remove(self) -> None:
        """Remove the file of a training that has ended, and all but the newest others."""
        others = []
        for path in folder().glob("*.checkpoint"):
            with contextlib.suppress(FileNotFoundError):  # another training may remove it
                others.append((path.stat().st_mtime, path))
        others = [entry for entry in sorted(others, reverse=True) if entry[1] != self.path]
        for path in (self.path, *(path for _, path in others[KEPT:])):
            with contextlib.suppress(OSError):  # a file that stays does no harm
                path.unlink()
