"""The numbers that train and evaluate write are those of other programs.

Log-probabilities and the learning curve are held to torch's own layers and autograd, in plain
float64, on the prepared rows; metrics and tables to scikit-learn. Once for each model on small
data, and once for the default one on the real rows.
"""

import json
import math
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file
from sklearn import metrics
from torch import nn

from tests.support import stages

RATES = {  # learning rate, momentum, decay
    "softmax_regression": (0.5, 0, "none"),
    "mlp": (0.1, 0.9, "linear"),
    "cnn": (0.1, 0.9, "linear"),
}


@pytest.fixture(params=RATES)
def model(request: pytest.FixtureRequest, small: Path) -> str:
    """Change to a folder where a model was trained and evaluated on small data."""
    name: str = request.param
    rate, momentum, decay = RATES[name]
    changes = {"learning_rate": rate, "momentum": momentum, "decay": decay, "batch_size": 25}
    stages.small_data(*((14, 20) if name == "cnn" else ()))  # patches of 5 x 5, twice
    stages.small_parameters(
        **{"train.model": name}, **{f"train.{key}": value for key, value in changes.items()}
    )
    for stage in ("prepare", "train", "evaluate"):
        stages.run_stage(stage).expect(0)
    return name


@pytest.fixture
def default(reproduced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to the reproduced checkout; for reading only."""
    monkeypatch.chdir(reproduced)


def recipe() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path("models/recipe.json").read_text(encoding="utf-8"))
    return record


def rows(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    found = load_file(f"data/prepared/{split}.safetensors")
    return found["images"].double(), found["labels"]


def network(parameters: str) -> nn.Sequential:
    """Build what the recipe describes of torch's own layers, with saved parameters, in float64."""
    images, _ = rows("test")
    side = math.isqrt(images.shape[1])
    shape, layers = images[:1].shape, []
    for layer in recipe()["layers"]:
        built = {
            "Linear": lambda inputs, layer: nn.Linear(inputs[1], layer["outputs"]),
            "Convolution": lambda inputs, layer: nn.Conv2d(
                inputs[1], layer["channels"], layer["kernel"], layer["stride"]
            ),
            "Relu": lambda *_: nn.ReLU(),
            "Flatten": lambda *_: nn.Flatten(),
            "Unflatten": lambda *_: nn.Unflatten(1, (1, side, side)),
        }[layer["kind"]](shape, layer)
        shape = built(torch.zeros(shape)).shape
        layers.append(built)
    net = nn.Sequential(*layers)
    net.load_state_dict(OrderedDict(load_file(parameters)))  # strict: same names, same shapes
    return net.double()


def check_log_probabilities(tolerance: float) -> None:
    images, _ = rows("test")
    with torch.no_grad():
        expected = nn.functional.log_softmax(network("models/model.safetensors")(images), dim=1)
    found = load_file("data/predicted/test.safetensors")["log_probabilities"]
    np.testing.assert_allclose(found, expected, atol=tolerance)


def check_metrics_and_tables() -> None:
    _, labels = rows("test")
    predictions = load_file("data/predicted/test.safetensors")
    log_probabilities = predictions["log_probabilities"].numpy()
    predicted, actual = log_probabilities.argmax(axis=1), labels.numpy()
    found = json.loads(Path("metrics/evaluate.json").read_text(encoding="utf-8"))
    accuracy = metrics.accuracy_score(actual, predicted)
    with warnings.catch_warnings(action="ignore"):  # they add up to 1 within 3e-5
        loss = metrics.log_loss(actual, np.exp(log_probabilities))
    assert found == {
        "loss": pytest.approx(loss, abs=1e-6),
        "accuracy": accuracy,
        "error_rate": pytest.approx(1 - accuracy, abs=1e-6),
        "macro_f1": pytest.approx(metrics.f1_score(actual, predicted, average="macro"), abs=1e-6),
        "correct": (actual == predicted).sum(),
        "total": len(actual),
    }
    curve = pandas.read_csv("metrics/plots/learning_curve.csv")
    last = curve[curve.split == "test"].iloc[-1]
    assert [last.epoch, last.loss, last.accuracy] == [
        recipe()["epochs"],
        found["loss"],
        found["accuracy"],
    ]

    pairs = pandas.read_csv("metrics/plots/confusion.csv")
    assert pairs.actual.tolist() == actual.tolist()
    assert pairs.predicted.tolist() == predicted.tolist()
    matrix = metrics.confusion_matrix(actual, predicted)
    assert predictions["confusion"].tolist() == matrix.tolist()
    table = pandas.read_csv("metrics/plots/per_class.csv")
    expected = metrics.precision_recall_fscore_support(actual, predicted, zero_division=0)
    assert table.columns.tolist() == ["label", "precision", "recall", "f1", "support"]
    assert table.label.tolist() == list(range(len(matrix)))
    np.testing.assert_allclose(table.iloc[:, 1:].T, expected, atol=1e-6)


def check_learning_curve() -> None:
    """Train as the recipe says, in autograd's float64, from the saved start.

    A row whose classes are all but equally likely may count as right in one and not in the other.
    """
    told = recipe()
    (images, labels), (test_images, test_labels) = rows("train"), rows("test")
    net = network("models/start.safetensors")
    parameters = list(net.parameters())
    velocity = [torch.zeros_like(parameter) for parameter in parameters]
    count = -(-len(labels) // told["batch_size"])
    steps, expected = told["epochs"] * count, []

    def score(losses: float, logits: torch.Tensor, targets: torch.Tensor) -> list[float]:
        hits = (logits.argmax(dim=1) == targets).double()
        return [losses / len(targets), float(hits.mean())]

    for epoch in range(told["epochs"]):
        losses, all_logits = 0.0, []
        for at, (x, y) in enumerate(
            zip(images.split(told["batch_size"]), labels.split(told["batch_size"]), strict=True)
        ):
            logits = net(x)
            loss = nn.functional.cross_entropy(logits, y)
            part = 1 - (epoch * count + at) / steps if told["decay"] == "linear" else 1
            with torch.no_grad():
                for parameter, v, gradient in zip(
                    parameters, velocity, torch.autograd.grad(loss, parameters), strict=True
                ):
                    v.mul_(told["momentum"]).add_(gradient)
                    parameter.sub_(told["learning_rate"] * part * v)
            losses += loss.item() * len(y)
            all_logits.append(logits.detach())
        expected.append(score(losses, torch.cat(all_logits), labels))
        with torch.no_grad():
            logits = net(test_images)
            test = nn.functional.cross_entropy(logits, test_labels, reduction="sum")
        expected.append(score(test.item(), logits, test_labels))
    curve = pandas.read_csv("metrics/plots/learning_curve.csv")
    assert curve.epoch.tolist() == [epoch for epoch in range(1, told["epochs"] + 1) for _ in "ab"]
    assert curve.split.tolist() == ["train", "test"] * told["epochs"]
    np.testing.assert_allclose(curve.loss, [loss for loss, _ in expected], atol=1e-3)
    one_row = 1.5 / len(test_labels)
    np.testing.assert_allclose(curve.accuracy, [share for _, share in expected], atol=one_row)


def test_the_models_log_probabilities_are_those_of_torchs_layers(model: str) -> None:
    check_log_probabilities(1e-4 if model == "softmax_regression" else 1e-3)


def test_the_metrics_and_the_tables_are_those_of_scikit_learn(model: str) -> None:
    check_metrics_and_tables()


def test_the_learning_curve_is_that_of_a_plain_float64_loop(model: str) -> None:
    check_learning_curve()


@pytest.mark.usefixtures("default")
def test_the_same_holds_on_the_real_rows() -> None:
    check_log_probabilities(1e-4)
    check_metrics_and_tables()
    check_learning_curve()
