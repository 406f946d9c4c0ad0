"""The loop against plain torch in float64, and what may not show in its bits."""

import contextlib
import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src import exact
from src.common.command import UsageError
from src.learning import batches, checkpoint, checks, models, scores, snapshots, training
from src.learning.group import Group
from src.learning.settings import Train
from tests.support import integers, plain, stages

SHAPE, CLASSES = (1, 28, 28), 4
MODELS = pytest.mark.parametrize("name", models.MODELS)
ADAMW = {"optimizer": "adamw", "momentum": 0, "learning_rate": 0.01, "weight_decay": 0.01}


def train_settings(**changes: Any) -> Train:
    """Return the settings of a short training, changed."""
    short = {"seed": 7, "epochs": 2, "batch_size": 6, "learning_rate": 0.05, "momentum": 0.5}
    short |= {"schedule": "linear", "shuffle": True, "shift": 1}
    return Train(**stages.SETTINGS["train"] | short | changes)


def rows(count: int = 23, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *SHAPE), generator=generator) / 256
    return images, torch.randint(CLASSES, (count,), generator=generator)


def started(settings: Train, add_up: Any = None) -> nn.Module:
    """Return the model that a training starts with."""
    given = {"init": settings.init, "seed": settings.seed, "is_exact": settings.exact}
    model = models.start(settings.model, SHAPE, CLASSES, **given)
    return exact.convert(model, add_up) if settings.exact else model


def train_and_hash(
    settings: Train, group: Group | None = None, **options: Any
) -> tuple[list[training.Epoch], str]:
    """Train from the start; return the records without times, and a digest of model and scores."""
    group = group or Group()
    model = started(settings, group.add_up if group.size > 1 else None)
    records = [
        record._replace(seconds=0)
        for record in training.train(model, rows(), settings, group=group, **options)
    ]
    state = [value.double() for value in model.state_dict().values()]
    return records, checkpoint.key(state=[value.tolist() for value in state])


@contextlib.contextmanager
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["softmax_regression", "mlp"])
@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0, "schedule": "constant"},
        {"momentum": 0.9},
        {"schedule": "cosine", "warmup_epochs": 1, "epochs": 3},
        {"weight_decay": 0.1},
        ADAMW,
        {"drop_last": True},
    ],
)
def test_exact_training_follows_torch_in_float64(name: str, changes: dict[str, Any]) -> None:
    settings = train_settings(model=name, **changes)
    found, _ = train_and_hash(settings)
    with exact.seeded(settings.seed):
        model = models.build(name, SHAPE, CLASSES)
    model = model.double()
    oracle = settings.model_copy(update={"exact": False})
    images, labels = rows()
    expected = list(training.train(model, (images.double(), labels), oracle))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.train.loss == pytest.approx(theirs.train.loss, abs=5e-3)
        assert ours.train.accuracy == theirs.train.accuracy


def test_plain_training_is_the_loop_that_one_writes_by_hand() -> None:
    settings = train_settings(exact=False, shift=0, shuffle=False, schedule="constant", momentum=0)
    found, _ = train_and_hash(settings)
    torch.manual_seed(settings.seed)
    model = models.build("softmax_regression", SHAPE, CLASSES)
    expected = plain.train(model, settings.model_dump(), rows(), rows())
    for record, (loss, accuracy, *_) in zip(found, expected, strict=True):
        assert record.train.loss == pytest.approx(loss, abs=1e-5)
        assert record.train.accuracy == pytest.approx(accuracy)


IN_ORDER = {"shift": 0, "momentum": 0, "schedule": "constant", "epochs": 1, "shuffle": False}


def test_whole_numbers_in_numpy_end_in_the_same_bits() -> None:
    settings = train_settings(**IN_ORDER)
    found, _ = train_and_hash(settings)
    images, labels = (part.numpy() for part in rows())
    start = integers.start(settings.seed, CLASSES, 784)
    batches = [slice(at, at + 6) for at in range(0, 23, 6)]
    expected = integers.train(start, images.reshape(23, -1), labels, batches, 0.05)
    assert expected == found[0].sha256


def test_convolution_and_batch_norm_in_whole_numbers_end_in_the_same_bits() -> None:
    settings = train_settings(**IN_ORDER | {"learning_rate": 0.5})
    with exact.seeded(3):
        layers = [nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU()]
        model = exact.convert(nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 14 * 14, CLASSES)))
    start = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    found = [*training.train(model, rows(), settings)]
    images, labels = (part.numpy() for part in rows())
    batches = [slice(at, at + 6) for at in range(0, 23, 6)]
    expected = integers.train_convolutional(start, images[:, 0], labels, batches, 0.5)
    assert expected == found[0].sha256


class Thread(Group):
    """A process of several, played by a thread of this one."""

    def __init__(self, rank: int, barrier: threading.Barrier, shared: list[Tensor]) -> None:
        self.rank, self.size, self.barrier, self.shared = rank, len(shared), barrier, shared

    def share_object(self, found: Any) -> Any:
        self.shared[self.rank] = found
        self.barrier.wait()
        found = copy.deepcopy(self.shared[0])
        self.barrier.wait()
        return found

    def add_up(self, tensor: Tensor) -> None:
        self.shared[self.rank] = tensor.clone()
        self.barrier.wait()
        order = [*range(self.rank, self.size), *range(self.rank)]  # each adds in another order
        total = sum(self.shared[rank] for rank in order)
        self.barrier.wait()
        tensor.copy_(total)


def kept() -> checkpoint.Checkpoint:
    """Return a checkpoint that is written after each step, in the present folder."""
    return checkpoint.Checkpoint("key", 1e-9, torch.device("cpu"))


def train_together(processes: int, settings: Train, **options: Any) -> list[Any]:
    """Return what `train_and_hash` returns in each process."""
    barrier, shared = threading.Barrier(processes, timeout=60), [torch.empty(0)] * processes
    groups = [Thread(rank, barrier, shared) for rank in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        running = [pool.submit(train_and_hash, settings, group, **options) for group in groups]
    return [future.result() for future in running]


@MODELS
def test_no_number_of_processes_shows(name: str) -> None:
    """Batches of 6 rows, then 5: of three processes some have more rows than others."""
    settings = train_settings(model=name)
    assert train_together(3, settings) == [train_and_hash(settings)] * 3


@pytest.mark.usefixtures("here")
def test_processes_of_which_some_have_no_row_stop_and_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches of 11, 11 and 1 rows; they stop before the last."""
    monkeypatch.setattr(checkpoint, "STEPS", 1)
    settings = train_settings(batch_size=11, model="resnet")

    def stop(epoch: int, step: int, *_: object) -> None:
        if (epoch, step) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(3, settings, checkpoint=kept(), progress=stop)
    assert train_together(4, settings, checkpoint=kept()) == [train_and_hash(settings)] * 4


@MODELS
@pytest.mark.parametrize("changes", [{}, ADAMW], ids=["sgd", "adamw"])
def test_no_number_of_threads_shows(name: str, changes: dict[str, Any]) -> None:
    settings = train_settings(model=name, **changes)
    one = train_and_hash(settings)
    with two_threads():
        assert train_and_hash(settings) == one


def with_dropout(shape: models.Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(784, classes))


NOT_EXACT = ADAMW | {"model": "dropout", "exact": False}


@pytest.mark.parametrize(
    "changes",
    [{}, {"momentum": 0}, ADAMW | {"model": "resnet"}, {"model": "dropout"}, NOT_EXACT],
    ids=["momentum", "plain", "adamw and batch norm", "dropout", "not exact"],
)
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
@pytest.mark.usefixtures("here")
def test_a_training_that_stopped_goes_on_to_the_same_bits_and_snapshots(
    changes: dict[str, Any],
    stop: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(models.MODELS, "dropout", with_dropout)
    settings = train_settings(**changes)
    steps: list[int] = []

    def train(stop: int = 99, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
        def progress(epoch: int, step: int, *_: object) -> None:
            if len(steps) == stop:
                raise KeyboardInterrupt
            steps.append(step)

        steps.clear()
        history: list[snapshots.Snapshot] = []
        given = {"held_out": rows(9, 1), "progress": progress, "history": history} | options
        found = train_and_hash(settings, **given)
        return found, {name: array.tobytes() for name, array in snapshots.arrays(history).items()}

    expected = train()
    assert {name.split("/")[0] for name in expected[1]} - {"scale"} == {"0", "1", "2", "4"}
    with pytest.raises(KeyboardInterrupt):
        train(stop, checkpoint=kept())
    assert train(checkpoint=kept()) == expected
    assert len(steps) == 8 - stop  # it did go on
    place = {1: "1, step 1 of 4", 3: "1, step 3 of 4", 4: "1", 6: "2, step 2 of 4"}[stop]
    assert capsys.readouterr().out == f"train: goes on after epoch {place}\n"


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
def test_a_damaged_checkpoint_is_told_and_not_used(
    damage: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = train_and_hash(train_settings(), checkpoint=kept())
    whole = kept().path.read_bytes()
    content = {
        "cut": whole[:-100],
        "flipped": whole[:500] + bytes([whole[500] ^ 1]) + whole[501:],
        "other": b"checkpoint 0" + whole[12:],
        "empty": b"",
    }[damage]
    kept().path.write_bytes(content)
    assert train_and_hash(train_settings(), checkpoint=kept()) == expected
    assert "train: starts anew" in capsys.readouterr().err
    kept().remove()
    assert not list(here.rglob("*.checkpoint"))


def test_patience_ends_and_the_best_epoch_is_kept() -> None:
    held_out = rows(9, 1)
    settings = train_settings(epochs=30, learning_rate=0.3, keep="best", patience=2)
    model = started(settings)
    records = list(training.train(model, rows(), settings, held_out=held_out))
    losses = [record.held_out.loss for record in records if record.held_out]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 30
    assert records[-1].ended == "patience"
    assert [record.is_best for record in records][best]
    assert training.score(model, *held_out).loss == losses[best]


def test_training_that_diverges_names_epoch_and_rate() -> None:
    with pytest.raises(UsageError, match=r"learning_rate: training diverges: .* after epoch 1;"):
        train_and_hash(train_settings(learning_rate=1e6))


def test_plain_batch_norm_with_a_single_row_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES), nn.BatchNorm1d(CLASSES))
    settings = train_settings(exact=False, batch_size=3)  # of two processes one gets a row
    with pytest.raises(UsageError, match=r"batch_size: a process would get one row .* 1 value"):
        checks.check(model, rows(24), CLASSES, settings, 2)
    checks.check(model, rows(24), CLASSES, settings, 1)


def test_losses_beyond_any_number_are_a_training_that_diverges() -> None:
    for value in (float("nan"), float("inf"), 1e30):
        meter = scores.Meter()
        logits = torch.tensor([[0.0, value], [0.0, 1.0]])
        meter.add(logits, torch.tensor([0, 1]))
        with pytest.raises(UsageError, match=r"^train\.learning_rate: training diverges: the loss"):
            meter.score()


class Lost(nn.Module):
    """Has a layer that the forward does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(784, CLASSES), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x.flatten(1))


class Mixed(nn.Sequential):
    """Adds to each row of a batch another one, as a mixup that is written by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 0.75 + x.flip(0) * 0.25 if self.training else x)


class Compared(nn.Sequential):
    """Compares with the first image of the batch, in evaluation only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else super().forward(x) - x[:1, 0, 0, 0]


class Remembers(nn.Sequential):
    """Has a buffer that training changes and no file keeps."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, CLASSES))
        self.register_buffer("steps", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return super().forward(x)


class Extra(nn.Linear):
    """Keeps something that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}


class Squeezed(nn.Sequential):
    """Takes away the dimension of the rows, where there is one row."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Lost(), "training cannot reach its unused.weight, unused.bias"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 9)), r"must return \(2, 4\) for 2 images"),
        (Squeezed(nn.Flatten(), nn.Linear(784, CLASSES)), r"must return \(1, 4\) for one image"),
        (Mixed(nn.Flatten(), nn.Linear(784, CLASSES)), "depends on the other images of the batch"),
        (Compared(nn.Flatten(), nn.Linear(784, CLASSES)), "depends on the other images"),
        (Remembers(), "its buffer steps changes in training and would not be saved"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(model: nn.Module, message: str) -> None:
    exact.convert(model)
    with pytest.raises(UsageError, match=message):
        checks.check(model, rows(), CLASSES, train_settings(), 1)


def test_a_model_whose_state_is_not_of_tensors_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), Extra(784, CLASSES))
    with pytest.raises(UsageError, match=r"1\._extra_state, and tensors alone can be saved"):
        checks.check(model, rows(), CLASSES, train_settings(exact=False), 1)


@pytest.mark.parametrize("model", [Lost(), Mixed(nn.Flatten(), nn.Linear(784, CLASSES))])
def test_plain_training_takes_what_exact_training_refuses(model: nn.Module) -> None:
    settings = train_settings(exact=False)
    checks.check(model, rows(), CLASSES, settings, 1)
    assert len(list(training.train(model, rows(), settings))) == 2


def test_the_scores_of_a_model_that_ends_in_another_dtype_are_those_of_exact_losses() -> None:
    def trained(then: nn.Module) -> list[training.Epoch]:
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES), then)
        nn.init.zeros_(model[1].weight)
        nn.init.zeros_(model[1].bias)
        settings = train_settings(epochs=1)
        return list(training.train(exact.convert(model), rows(6), settings, held_out=rows(3)))

    half, double = trained(Half()), trained(nn.Identity())
    assert half[0].train == double[0].train  # of zeros, which both dtypes hold
    assert half[0].held_out.loss == pytest.approx(double[0].held_out.loss, rel=1e-3)


class Half(nn.Module):
    """Ends in float16."""

    def forward(self, x: Tensor) -> Tensor:
        return x.half()


def test_images_too_small_for_a_layer_bring_no_warning_beside_the_refusal(
    recwarn: pytest.WarningsRecorder,
) -> None:
    models.build("lenet", (3, 8, 8), CLASSES)
    assert not recwarn.list


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, -1), (-1, 2)])
def test_images_move_by_whole_pixels_and_background_follows(down: int, right: int) -> None:
    images = rows(3)[0][:, :, :5, :4]
    expected = torch.zeros_like(images)
    for y, x in np.ndindex(5, 4):
        if 0 <= y + down < 5 and 0 <= x + right < 4:
            expected[:, :, y + down, x + right] = images[:, :, y, x]
    assert torch.equal(batches.shifted(images, down, right), expected)


def test_a_small_residual_network_has_fewer_than_20_000_parameters() -> None:
    model = models.build("resnet", SHAPE, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) < 20_000
