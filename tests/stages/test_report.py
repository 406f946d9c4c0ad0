"""The report of a model that dvc.lock does not know, and of files that are damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from src.common import files, tensors
from src.report import figures
from tests.support import stages


def test_the_weights_of_a_convolution_are_drawn_without_the_names_of_classes(small: Path) -> None:
    stages.small_data(14, 20)
    stages.small_parameters(**{"train.model": "cnn", "train.learning_rate": 0.1})
    for stage in stages.STAGES[1:]:
        stages.run_stage(stage).expect(0)
    figure = figures.weights(load_file("models/model.safetensors")["0.weight"], (1, 14, 14))
    figures.write("expected.png", figure)
    assert Path("metrics/plots/weights.png").read_bytes() == Path("expected.png").read_bytes()


def without(path: str, key: str) -> None:
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    del record[key]
    files.write_json(path, record)


def changed(path: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a tensor, with the checksum of what is then in the file."""
    found = load_file(path)
    tensors.write(path, found | {name: change(found[name])})


def with_a_flipped_bit(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[-1000] ^= 1
    Path(path).write_bytes(content)


def scores_in(path: str) -> dict[str, float]:
    scores: dict[str, float] = json.loads(Path(path).read_text(encoding="utf-8"))["test"]
    return scores


FAULTS: dict[str, tuple[str, str, Callable[[str], None]]] = {
    "no graph": ("models/recipe.json", "'graph'", lambda path: without(path, "graph")),
    "no shift": ("models/recipe.json", "'shift'", lambda path: without(path, "shift")),
    "no test": ("metrics/evaluate.json", "expected test: dict", lambda path: without(path, "test")),
    "accuracy in words": (
        "metrics/evaluate.json",
        "",
        lambda path: files.write_json(path, {"test": scores_in(path) | {"accuracy": "good"}}),
    ),
    "predictions of other rows": (
        "data/predicted/test.safetensors",
        "it is not of the 50 rows of data/prepared/test.safetensors",
        lambda path: changed(path, "log_probabilities", lambda found: found[1:]),
    ),
    "other predictions": (
        "data/predicted/test.safetensors",
        "'confusion'",
        lambda path: tensors.write(path, {"log_probabilities": np.zeros((50, 4))}),
    ),
    "a flipped bit in the training rows": (
        "data/prepared/train.safetensors",
        "its checksum differs",
        with_a_flipped_bit,
    ),
}


@pytest.mark.parametrize(("path", "reason", "damage"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_file_is_named_with_the_command_that_restores_it(
    path: str, reason: str, damage: Callable[[str], None], small: Path
) -> None:
    outputs = [*Path().glob("metrics/plots/*.png"), Path("metrics/report/index.html")]
    before = [output.read_bytes() for output in outputs]
    damage(path)
    outcome = stages.run_stage("report").expect(1, f"report: {path} is damaged (", reason)
    assert outcome.errors.endswith(f"`make restore FILE={path}` restores it\n")
    assert len(outcome.errors.splitlines()) == 1
    assert [output.read_bytes() for output in outputs] == before
