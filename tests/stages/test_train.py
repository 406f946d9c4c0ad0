"""What train takes for a stopped training of its own, and what it shows."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from src.learning import checkpoint
from src.learning.scores import Meter
from stages import train
from tests.support import stages
from tests.support.clones import REPOSITORY


@pytest.mark.parametrize("changed", ["nothing", "rate", "data", "models.py", "pins"])
def test_a_checkpoint_of_another_training_is_not_used(
    changed: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("src", "stages"):
        shutil.copytree(REPOSITORY / name, small / "code" / name)
    shutil.copy(REPOSITORY / "pins.yaml", small / "code")
    monkeypatch.setattr(checkpoint, "__file__", str(small / "code/src/learning/checkpoint.py"))
    with monkeypatch.context() as patch:  # as one that was killed before it removed its checkpoint
        patch.setattr(checkpoint.Checkpoint, "remove", lambda self: None)
        stages.run_stage("train").expect(0)
    if changed == "rate":
        stages.small_parameters(**{"train.learning_rate": 0.4})
    elif changed == "data":
        stages.small_data(contrast=31)
        stages.run_stage("prepare").expect(0)
    elif changed != "nothing":
        path = {"models.py": "src/learning/models.py", "pins": "pins.yaml"}[changed]
        with (small / "code" / path).open("a") as file:
            file.write("# changed\n")
    found = stages.run_stage("train").expect(0).output
    goes_on = "train: goes on after epoch 2, the last one\n" in found
    assert goes_on is (changed == "nothing")
    assert found.count("epoch 1/2") == (changed != "nothing")


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "log"])
def test_a_terminal_has_a_bar_and_a_log_a_line_every_30_s_of_an_epoch(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two epochs of four steps: a step takes 12 s in the first one, 8 s in the second."""
    clock = SimpleNamespace(now=0.0)
    for name in ("time.monotonic", "tqdm.std.time"):
        monkeypatch.setattr(name, lambda: clock.now)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    progress = train.Progress(SimpleNamespace(epochs=2, batch_size=120))  # type: ignore[arg-type]
    meter = Meter(torch.tensor([2**23, 1, 1]))
    for epoch, seconds in ((1, 12), (2, 8)):
        for step in (1, 2, 3, 4):
            progress(epoch, step, 4, meter)
            clock.now += seconds
        progress.close()
    printed, bars = capsys.readouterr()
    if is_terminal:
        shown = re.findall(r"(epoch \S+) \|.*?\| (\S+ steps.*? left)", bars)
        assert shown[2] == ("epoch 1/2", "4/4 steps, loss 0.5000, 10 rows/s, 00:00 left")
        assert shown[3] == ("epoch 2/2", "2/4 steps, loss 0.5000, 15 rows/s, 00:16 left")
        assert re.search(r"\r +\r$", bars)
    else:
        assert printed == "train: epoch 1/2, step 4 of 4, loss 0.5000, 10 rows/s\n"
        assert not bars
