"""The numbers that evaluate writes: metrics are scikit-learn's, log-probabilities plain torch's.

Once for each model on small data, and once for the default one on the real rows, with its curve.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file
from sklearn import metrics

from src.common import files, tensors
from src.learning.models import MODELS
from tests.support import plain, stages

CURVE = "metrics/plots/learning_curve.csv"


def rows(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    found = load_file(f"data/prepared/{split}.safetensors")
    return found["images"], found["labels"]


def check_log_probabilities(tolerance: float) -> None:
    images, _ = rows("test")
    model = plain.module(
        files.read_json("models/recipe.json"), load_file("models/model.safetensors")
    ).double()
    with torch.no_grad():
        expected = torch.log_softmax(model(images.double()), dim=1)
    found = load_file("data/predicted/test.safetensors")["log_probabilities"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def check_metrics_and_tables() -> None:
    actual = rows("test")[1].numpy()
    predictions = load_file("data/predicted/test.safetensors")
    log_probabilities = predictions["log_probabilities"].numpy()
    predicted = log_probabilities.argmax(axis=1)
    accuracy = metrics.accuracy_score(actual, predicted)
    with warnings.catch_warnings(action="ignore"):  # they add up to 1 within 3e-5
        loss = metrics.log_loss(actual, np.exp(log_probabilities))
    assert list(files.read_json("metrics/evaluate.json")) == ["test"]
    found = files.read_json("metrics/evaluate.json")["test"]
    assert found == {
        "loss": pytest.approx(loss, abs=1e-6),
        "accuracy": accuracy,
        "error_rate": pytest.approx(1 - accuracy, abs=1e-6),
        "macro_f1": pytest.approx(metrics.f1_score(actual, predicted, average="macro"), abs=1e-6),
        "correct": (actual == predicted).sum(),
        "total": len(actual),
    }
    curve = pandas.read_csv(CURVE)
    last = curve[curve.split == "test"].iloc[-1]
    assert last.epoch == files.read_json("models/recipe.json")["epochs"]
    assert [last.loss, last.accuracy] == [found["loss"], found["accuracy"]]

    pairs = pandas.read_csv("metrics/plots/confusion.csv")
    assert pairs.actual.tolist() == actual.tolist()
    assert pairs.predicted.tolist() == predicted.tolist()
    matrix = metrics.confusion_matrix(actual, predicted)
    assert predictions["confusion"].tolist() == matrix.tolist()
    table = pandas.read_csv("metrics/plots/per_class.csv")
    expected = metrics.precision_recall_fscore_support(actual, predicted, zero_division=0)
    assert table.columns.tolist() == ["label", "precision", "recall", "f1", "support"]
    assert table.label.astype(str).tolist() == [str(label) for label in range(len(matrix))]
    np.testing.assert_allclose(table.iloc[:, 1:].T, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_the_numbers_are_those_of_plain_torch_and_scikit_learn(model: str, small: Path) -> None:
    if model != "softmax_regression":
        # Large enough for two convolutions of 5 x 5.
        stages.small_data(*((14, 20) if model in ("cnn", "lenet", "resnet") else ()))
        stages.small_parameters(
            **{"train.model": model, "train.learning_rate": 0.1, "train.momentum": 0.9}
        )
        for stage in ("prepare", "train", "evaluate"):
            stages.run_stage(stage).expect(0)
    assert files.read_json("metrics/evaluate.json")["test"]["accuracy"] < 1, (
        "without mistakes this shows little"
    )
    check_log_probabilities(1e-3)
    check_metrics_and_tables()


def test_so_they_are_on_the_real_rows_and_the_curve_is_a_plain_loops(
    reproduced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reproduced)
    check_log_probabilities(1e-4)
    check_metrics_and_tables()
    recipe = files.read_json("models/recipe.json")
    model = plain.module(recipe, load_file("models/start.safetensors"))
    expected = np.reshape(list(plain.train(model, recipe, rows("train"), rows("test"))), (-1, 2))
    curve = pandas.read_csv(CURVE)
    assert curve.split.tolist() == ["train", "test"] * recipe["epochs"]
    np.testing.assert_allclose(curve[["loss", "accuracy"]], expected, rtol=0, atol=1e-3)


def test_a_model_that_is_not_of_its_recipe_is_refused_in_a_line(small: Path) -> None:
    path, refused = "models/model.safetensors", "models/model.safetensors does not fit models/rec"
    model = {name: tensor.numpy() for name, tensor in load_file(path).items()}
    for other in ({}, {name: tensor[:2] for name, tensor in model.items()}):
        tensors.write(path, other)
        outcome = stages.run_stage("evaluate").expect(1, f"evaluate: {refused}")
        assert len(outcome.errors.splitlines()) == 1
