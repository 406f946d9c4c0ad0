"""The scores, by hand on a small case and against scikit-learn on a large one."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from src.learning import scores
from src.learning.group import Alone


def test_a_case_worked_by_hand() -> None:
    actual = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 2, 1])
    confusion = scores.confusion_matrix(actual, predicted, classes=4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    rows = scores.per_class(confusion)
    assert [row["label"] for row in rows] == [0, 1, 2, 3]
    assert [row["precision"] for row in rows] == [1, 1 / 3, 0, 0]
    assert [row["recall"] for row in rows] == [2 / 3, 1 / 2, 0, 0]
    assert [row["f1"] for row in rows] == [4 / 5, 2 / 5, 0, 0]
    assert [row["support"] for row in rows] == [3, 2, 1, 0]
    as_many = scores.per_class(np.array([[2, 1], [1, 3]]))  # predicted as there are
    assert [row["f1"] for row in as_many] == [2 / 3, 3 / 4]
    assert scores.summary(confusion) == {
        "accuracy": 3 / 6,
        "error_rate": 3 / 6,
        "macro_f1": pytest.approx((4 / 5 + 2 / 5) / 4),
        "correct": 3,
        "total": 6,
    }


def test_scores_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    actual = generator.integers(0, 10, 5000)
    sums = generator.normal(size=(5000, 10)) + 2 * np.eye(10)[actual]
    log_probabilities = torch.tensor(sums).log_softmax(1)
    predicted = log_probabilities.argmax(1).numpy()
    confusion = scores.confusion_matrix(actual, predicted, classes=10)
    assert np.array_equal(confusion, metrics.confusion_matrix(actual, predicted))
    oracle = metrics.precision_recall_fscore_support(actual, predicted)
    table = scores.per_class(confusion)
    for name, expected in zip(("precision", "recall", "f1", "support"), oracle, strict=True):
        np.testing.assert_allclose([row[name] for row in table], expected, 1e-12, err_msg=name)
    summary, score = (
        scores.summary(confusion),
        scores.score(log_probabilities, torch.tensor(actual)),
    )
    assert summary["accuracy"] == score.accuracy == metrics.accuracy_score(actual, predicted)
    f1 = metrics.f1_score(actual, predicted, average="macro")
    assert summary["macro_f1"] == pytest.approx(f1, rel=1e-12)
    loss = metrics.log_loss(actual, log_probabilities.exp().numpy())
    assert score.loss == pytest.approx(loss, rel=0, abs=2.0**-24)


def test_no_order_of_the_rows_shows_in_an_average() -> None:
    """A plain sum of these float64s gives another last bit in nearly every order."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(1001, dtype=torch.float64, generator=generator) * 30
    hits = torch.rand(1001, generator=generator) < 0.3
    expected = scores.average(losses, hits, Alone())
    assert expected.loss == pytest.approx(math.fsum(losses) / 1001, rel=0, abs=2.0**-24)
    assert expected.accuracy == int(hits.sum()) / 1001
    plain = set()
    for seed in range(20):
        order = torch.randperm(1001, generator=torch.Generator().manual_seed(seed))
        assert scores.average(losses[order], hits[order], Alone()) == expected
        plain.add(sum(losses[order].tolist()))
    assert len(plain) > 1


def test_each_process_adds_its_rows() -> None:
    class Two(Alone):
        def add_up(self, tensor: torch.Tensor) -> None:
            tensor.add_(torch.tensor([5 * 2**24, 1, 2]))  # what the other one has

    losses = torch.tensor([1.0, 2], dtype=torch.float64)
    hits = torch.tensor([True, False])
    assert scores.average(losses, hits, Two()) == (8 / 4, 2 / 4)
