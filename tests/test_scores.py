"""The scores, by hand on a small case and against scikit-learn on a large one."""

import numpy as np
import pytest
from sklearn import metrics

from src import scores


def test_a_case_worked_by_hand() -> None:
    actual = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 2, 1])
    confusion = scores.confusion_matrix(actual, predicted, classes=4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    rows = scores.per_class(confusion)
    assert [row["precision"] for row in rows] == [1, 1 / 3, 0, 0]
    assert [row["recall"] for row in rows] == [2 / 3, 1 / 2, 0, 0]
    assert [row["f1"] for row in rows] == [4 / 5, 2 / 5, 0, 0]
    assert [row["support"] for row in rows] == [3, 2, 1, 0]
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
    predicted = np.where(generator.random(5000) < 0.7, actual, generator.integers(0, 10, 5000))
    confusion = scores.confusion_matrix(actual, predicted, classes=10)
    assert np.array_equal(confusion, metrics.confusion_matrix(actual, predicted))
    oracle = metrics.precision_recall_fscore_support(actual, predicted)
    columns = zip(*(list(row.values())[1:] for row in scores.per_class(confusion)), strict=True)
    for found, expected in zip(columns, oracle, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    summary = scores.summary(confusion)
    assert summary["accuracy"] == metrics.accuracy_score(actual, predicted)
    oracle = metrics.f1_score(actual, predicted, average="macro")
    assert summary["macro_f1"] == pytest.approx(oracle, rel=1e-12)
