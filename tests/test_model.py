"""The model and its training, held to torch's own layers, autograd and scikit-learn."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import log_loss
from torch.nn import functional

from src import softmax_regression as model
from src import training
from tools.measure_bits import autograd_gradient


def example(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images float32 (rows, 784) and labels int64 (rows,) that can be learned in part."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (rows,), generator=generator)
    images = torch.rand(rows, 784, generator=generator)
    images[torch.arange(rows), labels * 78] += 3
    return images / 4, labels


def test_the_closed_form_gradient_is_autograds() -> None:
    images, labels = example(64)
    inputs = torch.cat([images.double(), torch.ones(64, 1, dtype=torch.float64)], dim=1)
    parameters = model.start("normal", 1)
    found, expected = torch.empty_like(parameters), torch.empty_like(parameters)
    log_probabilities = training.closed_form_gradient(parameters, inputs, labels, found)
    oracle = autograd_gradient(parameters, inputs, labels, expected)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_probabilities, oracle, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shuffle", "drop_last"), [(False, False), (True, True), (True, False)])
def test_training_takes_the_steps_of_torchs_linear_layer_and_sgd(
    shuffle: bool, drop_last: bool
) -> None:
    images, labels = example(250)
    parameters = model.start("uniform", 7)
    linear = torch.nn.Linear(784, 10, dtype=torch.float64)
    linear.load_state_dict({"weight": parameters[:, :784], "bias": parameters[:, 784]})
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.3)
    settings = {"epochs": 3, "batch_size": 40, "learning_rate": 0.3, "seed": 5}
    results = training.train(
        parameters, images, labels, shuffle=shuffle, drop_last=drop_last, **settings
    )
    for epoch, (loss, accuracy) in enumerate(results, 1):
        order = np.random.default_rng([5, epoch]).permutation(250) if shuffle else np.arange(250)
        losses, hits = [], 0
        for batch in np.split(order, range(40, 250, 40)):
            if drop_last and len(batch) < 40:
                continue
            logits = linear(images[batch].double())
            batch_loss = functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            batch_loss.backward()
            optimizer.step()
            losses.append(batch_loss.item())
            hits += (logits.argmax(dim=1) == labels[batch]).sum().item()
        assert loss == pytest.approx(np.mean(losses), rel=1e-12)
        assert accuracy == hits / (240 if drop_last else 250)
    torch.testing.assert_close(parameters[:, :784], linear.weight.data, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(parameters[:, 784], linear.bias.data, rtol=1e-11, atol=1e-13)


def test_the_first_batch_of_equal_logits_is_not_counted_as_all_right() -> None:
    images, labels = example(100)
    settings = {"epochs": 1, "batch_size": 100, "learning_rate": 0.1, "seed": 0}
    results = training.train(
        model.start("zeros", 0), images, labels, shuffle=False, drop_last=False, **settings
    )
    [(loss, accuracy)] = results
    assert loss == pytest.approx(np.log(10), rel=1e-12)
    assert accuracy == (labels == 0).sum().item() / 100  # argmax takes the first of equals


def test_a_loss_that_is_not_finite_stops_training_and_names_step_and_rate() -> None:
    images, labels = example(200)
    settings = {"epochs": 2, "batch_size": 50, "learning_rate": 1e308, "seed": 0}
    results = training.train(
        model.start("normal", 0), images, labels, shuffle=False, drop_last=False, **settings
    )
    with pytest.raises(FloatingPointError, match=r"step \d of epoch 1, .*1e\+308"):
        list(results)


def test_cross_entropy_is_scikit_learns_log_loss_also_for_large_logits() -> None:
    images, labels = example(120)
    parameters = model.start("normal", 2) * 100
    log_probabilities = model.log_probabilities(parameters, images, batch_size=50)
    assert log_probabilities.isfinite().all()
    logits = images.double() @ parameters[:, :784].T + parameters[:, 784]
    small = model.log_probabilities(parameters / 100, images, batch_size=50)
    oracle = log_loss(labels, torch.softmax(logits / 100, dim=1), labels=range(10))
    assert model.cross_entropy(small, labels) == pytest.approx(oracle, rel=1e-12)
    oracle = functional.cross_entropy(logits, labels).item()
    assert model.cross_entropy(log_probabilities, labels) == pytest.approx(oracle, rel=1e-12)


def test_starts_follow_their_distributions() -> None:
    uniform = model.start("uniform", 777)
    assert uniform.abs().max() <= 1 / 28
    assert uniform.std() == pytest.approx(1 / 28 / 3**0.5, rel=0.03)  # of U(-a, a): a / sqrt(3)
    normal = model.start("normal", 777)
    assert normal.std() == pytest.approx(1, rel=0.03)
    assert not model.start("zeros", 777).any()
    assert not torch.equal(uniform, model.start("uniform", 778))
    for parameters in (uniform, normal):
        assert torch.equal(parameters, model.to_grid(parameters))


def test_a_saved_model_loads_into_torchs_linear_layer(tmp_path) -> None:
    parameters = model.start("normal", 3)
    model.save(str(tmp_path / "model.safetensors"), parameters)
    linear = torch.nn.Linear(784, 10)
    linear.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images, _ = example(20)
    torch.testing.assert_close(
        functional.log_softmax(linear(images), dim=1).double(),
        model.log_probabilities(
            model.load(str(tmp_path / "model.safetensors")), images, batch_size=7
        ),
        rtol=1e-4,
        atol=1e-4,
    )
    assert torch.equal(model.load(str(tmp_path / "model.safetensors")), parameters)
