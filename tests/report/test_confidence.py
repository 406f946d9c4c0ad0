"""Levels of confidence, against scikit-learn; the surest mistakes are in test_page.py."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from src.report import confidence


def predictions(rows: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and log-probabilities of four classes, right about as often as they say."""
    generator = np.random.default_rng(3)
    sure, predicted = generator.uniform(least, 1, rows), generator.integers(0, 4, rows)
    probabilities = np.repeat((1 - sure[:, None]) / 3, 4, axis=1)
    probabilities[np.arange(rows), predicted] = sure
    is_right = generator.uniform(size=rows) < sure
    return np.where(is_right, predicted, (predicted + 1) % 4), np.log(probabilities)


def test_levels_are_those_of_scikit_learn_and_each_row_is_in_its_own() -> None:
    labels, log_probabilities = predictions(500, 0.42)
    sure = np.exp(log_probabilities.max(axis=1))
    is_right = log_probabilities.argmax(axis=1) == labels
    accuracy, mean = calibration_curve(is_right, sure, n_bins=10)
    found = confidence.levels(labels, log_probabilities)
    assert [level.least for level in found] == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [level.accuracy for level in found] == pytest.approx(accuracy)
    assert [level.confidence for level in found] == pytest.approx(mean)
    for level in found:
        assert level.rows.tolist() == [
            row for row, value in enumerate(sure) if level.least <= value < level.least + 0.1
        ]


def test_a_level_begins_with_its_lower_end_and_a_certain_row_is_in_the_last() -> None:
    ends = np.arange(1, 11) / 10
    log_probabilities = np.column_stack([np.log(ends), np.full(10, -np.inf)])
    found = confidence.levels(np.zeros(10, int), log_probabilities)
    assert [(level.least, level.rows.tolist()) for level in found] == [
        *((at / 10, [at - 1]) for at in range(1, 9)),
        (0.9, [8, 9]),
    ]
    least = np.log(np.full((1, 16), 1 / 16))
    [lowest] = confidence.levels(np.array([3]), least)
    assert (lowest.least, lowest.confidence, lowest.accuracy) == (0, pytest.approx(1 / 16), 0)
