"""Training through the real stage, against a plain float64 loop of torch with autograd."""

import csv
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.common import dataset, files, tensors
from src.common.command import UsageError
from src.learning import models, training
from src.learning.group import Alone
from src.learning.layers import Linear, Relu
from src.learning.training import Train
from tests.support import integers, plain, stages

TRAIN_DATA, TEST_DATA = "data/prepared/train.safetensors", "data/prepared/test.safetensors"
OUTPUTS = ["metrics/plots/learning_curve.csv", "models/model.safetensors"]
OUTPUTS += ["models/recipe.json", "models/start.safetensors"]
CPU = torch.device("cpu")


def curve() -> tuple[np.ndarray, list[str]]:
    """Return train loss and accuracy, test loss and accuracy of each epoch, and the hashes."""
    with open("metrics/plots/learning_curve.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = [[float(row["loss"]), float(row["accuracy"])] for row in rows]
    assert [row["split"] for row in rows] == ["train", "test"] * (len(rows) // 2)
    assert [row["sha256"] for row in rows[::2]] == [row["sha256"] for row in rows[1::2]]
    return np.reshape(numbers, (-1, 4)), [row["sha256"] for row in rows[::2]]


def train(**changes: Any) -> stages.Outcome:
    stages.small_parameters(**{f"train.{name}": value for name, value in changes.items()})
    return stages.run_stage("train")


def plain_curve(**changes: Any) -> np.ndarray:
    """Return what the plain loop gives from the start and the recipe that the stage wrote."""
    recipe = files.read_json("models/recipe.json") | changes
    model = plain.sequential(recipe, tensors.read("models/start.safetensors"))
    return np.array(
        list(plain.train(model, recipe, dataset.read(TRAIN_DATA), dataset.read(TEST_DATA)))
    )


@pytest.mark.parametrize("model", ["softmax_regression", "mlp"])
@pytest.mark.parametrize(
    ("setting", "off"),
    [
        ({}, {"learning_rate": 0.1}),
        ({"momentum": 0.9}, {"momentum": 0}),
        ({"decay": "linear"}, {"decay": "none"}),
        ({"shuffle": True}, {"shuffle": False}),
        ({"shift": 1}, {"shift": 0}),
        ({"drop_last": True}, {"drop_last": False}),
        ({"batch_size": 40}, {"batch_size": 50}),
    ],
    ids=["plain", "momentum", "decay", "shuffle", "shift", "drop_last", "batch_size"],
)
@pytest.mark.usefixtures("small")
def test_the_learning_curve_is_a_plain_loops_and_each_setting_shows_in_it(
    model: str, setting: dict[str, Any], off: dict[str, Any]
) -> None:
    # At these rates no row lies so near between two classes that the grids decide its class.
    rate = 0.015 if "momentum" in setting else 0.15
    settings = {"model": model, "learning_rate": rate, "epochs": 3} | setting
    printed = train(**settings).expect(0).output
    found, _ = curve()
    np.testing.assert_allclose(found, plain_curve(), rtol=0, atol=1e-3)
    form = r"^epoch \d/3  train loss (\S+)  test loss (\S+)  test accuracy (\S+)%  "
    shown = np.array(re.findall(form, printed, re.MULTILINE), float) / [1, 1, 100]
    np.testing.assert_allclose(shown, found[:, [0, 2, 3]], rtol=0, atol=5.1e-5)  # four digits
    assert np.abs(found - plain_curve(**off)).max() > 3e-3


@pytest.mark.usefixtures("small")
def test_whole_numbers_in_numpy_end_in_the_bits_that_torch_prints() -> None:
    """The small version of the test on the real rows, with momentum and an uneven last batch."""
    printed = train(model="softmax_regression", epochs=1, momentum=0.5, seed=3).expect(0).output
    images, labels = dataset.read(TRAIN_DATA, "np")
    batches = [slice(at, at + 20) for at in range(0, len(labels), 20)]
    digest = integers.train(integers.start(3, 4, 64), images, labels, batches, 0.5, 0.5)
    assert curve()[1] == [digest[:8]]
    assert re.findall(r"  ([0-9a-f]{8})$", printed, re.MULTILINE) == [digest[:8]]


@pytest.mark.parametrize(
    ("setting", "epoch"),
    [
        ({"learning_rate": 5000}, 1),
        ({"learning_rate": 4.0, "momentum": 0.99, "epochs": 30}, r"\d"),
        ({"learning_rate": 1e308, "momentum": 0.9}, 1),  # infinite, then not a number
        ({"learning_rate": 1e308, "model": "mlp"}, 1),
    ],
)
@pytest.mark.usefixtures("small")
def test_training_that_diverges_names_epoch_and_rate_and_writes_nothing(
    setting: dict[str, Any], epoch: object
) -> None:
    for path in OUTPUTS:
        Path(path).unlink()
    outcome = train(**setting).expect(2)
    message = r"^train: train\.learning_rate: training diverges: a weight is beyond 16 after epoch"
    rate = re.escape(str(float(setting["learning_rate"])))
    assert re.search(rf"{message} {epoch}; .*\(given: {rate}\)\n$", outcome.errors)
    assert not [path for path in OUTPUTS if Path(path).exists()]


@pytest.mark.usefixtures("small")
def test_of_equal_logits_the_first_class_counts_as_predicted() -> None:
    train(init="zeros", epochs=1, batch_size=150).expect(0)
    _, labels = dataset.read(TRAIN_DATA, "np")
    loss, accuracy = curve()[0][0, :2]
    assert loss == pytest.approx(np.log(4), abs=1e-6)
    assert accuracy == pytest.approx((labels == 0).mean(), abs=1e-6)


@pytest.mark.usefixtures("small")
def test_a_model_that_a_reader_adds_trains_and_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = lambda classes: [Linear(30), Relu(), Linear(20), Relu(), Linear(classes)]  # noqa: E731
    monkeypatch.setitem(models.MODELS, "deep", deep)
    train(model="deep", epochs=3, learning_rate=0.3).expect(0)
    np.testing.assert_allclose(curve()[0], plain_curve(), rtol=0, atol=1e-3)
    stages.run_stage("evaluate").expect(0)
    assert files.read_json("metrics/evaluate.json")["loss"] == pytest.approx(curve()[0][-1, 2])
    names = [f"{index}.{name}" for index in (0, 2, 4) for name in ("weight", "bias")]
    assert sorted(tensors.read("models/model.safetensors")) == sorted(names)


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.usefixtures("small")
def test_the_epoch_that_warms_up_a_cuda_graph_changes_nothing(
    momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(momentum=momentum, epochs=2).expect(0)
    expected = curve()[1]

    def warmed_up(run_epoch: Callable[[], Any]) -> Callable[[], Any]:
        run_epoch()
        return run_epoch

    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(training, "captured", warmed_up)
    train(momentum=momentum, epochs=2).expect(0)
    assert curve()[1] == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model": "cnn"}, "train.model: images of 2 x 2 are too small for Convolution"),
        ({"batch_size": 151}, "must be from 1 to the 150 rows that train (given: 151)"),
        (
            {"shift": 8},
            "train.shift: must be 0, or for square images less than their side "
            "(64 pixels here) (given: 8)",
        ),
    ],
)
@pytest.mark.usefixtures("small")
def test_parameters_that_do_not_fit_the_data_are_refused(
    setting: dict[str, Any], message: str
) -> None:
    train(**setting).expect(2, message)


def test_a_batch_whose_gradient_would_round_is_refused_by_its_parameters_name() -> None:
    model = models.build("cnn", 784, 10, CPU)
    settings = Train.model_construct(batch_size=4_097, shift=0)
    message = r"^train\.batch_size: Convolution: a gradient over 4,097 rows .* \(given: 4097\)$"
    with pytest.raises(UsageError, match=message):
        training.check(model, 60_000, settings, 1)


def test_a_batch_has_a_row_for_each_process_at_least() -> None:
    model = models.build("softmax_regression", 4, 2, CPU)
    settings = Train.model_construct(batch_size=3, shift=0)
    training.check(model, 3, settings, 3)
    for rows, processes in ((3, 4), (2, 1)):
        message = rf"^train\.batch_size: must be from {processes} to the {rows} rows"
        with pytest.raises(UsageError, match=message):
            training.check(model, rows, settings, processes)


class Threads(Alone):
    """A process of several, played by a thread of this one."""

    def __init__(self, rank: int, barrier: threading.Barrier, shared: list[torch.Tensor]) -> None:
        self.rank, self.size, self.barrier, self.shared = rank, len(shared), barrier, shared

    def add_up(self, tensor: torch.Tensor) -> None:
        self.shared[self.rank] = tensor.clone()
        self.barrier.wait()
        order = [*range(self.rank, self.size), *range(self.rank)]  # each adds in another order
        tensor.copy_(sum(self.shared[rank] for rank in order))
        self.barrier.wait()


def trained(name: str, processes: int, threads: int = 1, **changes: Any) -> list[object]:
    """Return the scores of each epoch and the digest, after training on random rows."""
    recipe = {"device": "cpu", "threads": 1, "model": name, "seed": 1, "init": "uniform"}
    recipe |= {"epochs": 2, "learning_rate": 0.3, "momentum": 0.5, "decay": "linear"}
    recipe |= {"shuffle": True, "shift": 1, "drop_last": False} | changes
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (23, 169), generator=generator) / 256
    labels = torch.randint(4, (23,), generator=generator)
    barrier, shared = threading.Barrier(processes, timeout=60), [torch.empty(0)] * processes

    def work(rank: int) -> list[object]:
        torch.set_num_threads(threads)
        model = models.build(name, 169, 4, CPU)
        model.initialize("uniform", 1)
        group = Threads(rank, barrier, shared)
        return [*training.train(model, images, labels, Train(**recipe), group), model.sha256()]

    with ThreadPoolExecutor(processes) as pool:
        results = list(pool.map(work, range(processes)))
    assert results == results[:1] * processes
    return results[0]


@pytest.mark.parametrize("name", models.MODELS)
def test_no_share_of_processes_and_no_thread_count_shows_in_bits_or_scores(name: str) -> None:
    """Batches of 6 rows, then 5: of five processes some have more rows than others."""

    @settings(derandomize=True, deadline=None, max_examples=6)
    @given(st.integers(1, 6), st.sampled_from([1, 2, 4]), st.sampled_from([6, 11, 21]))
    def check(processes: int, threads: int, size: int) -> None:
        assert trained(name, processes, threads, batch_size=size) == trained(
            name, 1, batch_size=size
        )

    check()
    torch.set_num_threads(1)
