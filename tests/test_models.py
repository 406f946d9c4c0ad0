"""The models as a whole: gradients, starts, digests, and what plain torch makes of their files."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

from src.common import files, tensors
from src.exact import functions, grids
from src.learning import models
from src.learning.layers import Convolution, Flatten, Layer, Linear, Relu, Unflatten
from src.learning.models import Model
from tests.support import plain, stages
from tests.support.clones import Run

CPU = torch.device("cpu")
NAMES = pytest.mark.parametrize("name", models.MODELS)
LAYERS: dict[str, list[Layer]] = {
    "Linear needs a Flatten": [Unflatten(), Linear(4)],
    "the last layer must be a Linear": [Linear(4), Relu()],
    "Linear needs a Relu between": [Linear(9), Linear(4)],
    "images of 13 x 13 are too small for Convolution": [
        Unflatten(),
        Convolution(2, 14, 1),
        Flatten(),
        Linear(4),
    ],
}


def example(rows: int, name: str, pixels: int = 169) -> tuple[Model, torch.Tensor, torch.Tensor]:
    """Return a model at its start, images on the grid of pixels and labels of 4 classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(2**16 + 1, (rows, pixels), generator=generator) / 2**16
    model = models.build(name, pixels, 4, CPU)
    model.initialize("uniform", 5)
    return model, images, torch.randint(4, (rows,), generator=generator)


def loss(model: Model, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the cross-entropy summed over the rows."""
    return functional.cross_entropy(model.forward(images).T, labels, reduction="sum").item()


def gradient(model: Model, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the cross-entropy summed over the rows."""
    error = functions.softmax(model.forward(images))[0] - functional.one_hot(labels, 4).T
    model.backward(grids.ERRORS.round_(error))
    return model.gradient.clone()


@NAMES
def test_the_gradient_is_that_of_finite_differences_and_of_autograd(name: str) -> None:
    model, images, labels = example(32, name)
    computed, start = gradient(model, images, labels), model.parameters.clone()
    sequential = plain.sequential({"layers": model.describe(), "pixels": 169}, model.state_dict())
    logits = sequential.double()(images.double())
    functional.cross_entropy(logits, labels, reduction="sum").backward()
    for key, parameter in sequential.named_parameters():
        found = computed[model.places[key][0]].view_as(parameter)
        # Activations and errors are rounded here, so a few are on the other side of a Relu.
        assert (found - parameter.grad).norm() < 0.02 * parameter.grad.norm()

    generator = torch.Generator().manual_seed(1)
    for place, shape in model.places.values():
        slopes = []
        for _ in range(8):
            direction = torch.zeros_like(start)
            drawn = torch.randn(shape, dtype=torch.float64, generator=generator).flatten()
            direction[place] = drawn / drawn.norm()
            losses = []
            for step in (-(2.0**-6), 2.0**-6):
                model.parameters.copy_(start + direction * step)
                model.snap()
                losses.append(loss(model, images, labels))
            slopes.append([(losses[1] - losses[0]) / 2.0**-5, (computed @ direction).item()])
        expected, found = torch.tensor(slopes).T
        assert (found - expected).norm() < 0.1 * expected.norm()


@NAMES
def test_the_model_file_gives_plain_torch_the_same_predictions(name: str) -> None:
    model, images, _ = example(300, name)
    sequential = plain.sequential({"layers": model.describe(), "pixels": 169}, model.state_dict())
    with torch.no_grad():
        logits = sequential(images)
    np.testing.assert_allclose(logits.double(), model.forward(images).T, rtol=0, atol=1e-3)
    found = model.log_probabilities(images, batch_size=70)
    np.testing.assert_allclose(found, logits.double().log_softmax(1), rtol=0, atol=1e-3)
    assert torch.equal(found.argmax(1), logits.argmax(1))


@NAMES
def test_models_trained_on_real_rows_predict_in_plain_torch_what_they_predict_here(
    name: str, reproduced: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default model is the pipeline's own; the others train on 3,000 rows."""
    folder = reproduced
    if name != "softmax_regression":
        folder = tmp_path
        (folder / "data/prepared").mkdir(parents=True)
        (folder / "data/prepared/test.safetensors").symlink_to(
            reproduced / "data/prepared/test.safetensors"
        )
        monkeypatch.chdir(folder)
        rows = tensors.read(str(reproduced / "data/prepared/train.safetensors"))
        tensors.write("data/prepared/train.safetensors", {key: rows[key][:3000] for key in rows})
        recipe = {"model": name, "epochs": 2, "learning_rate": 0.05, "momentum": 0.9}
        stages.parameters(**{f"train.{key}": value for key, value in recipe.items()})
        stages.run_stage("train").expect(0)
        stages.run_stage("evaluate").expect(0)
    recipe = files.read_json(str(folder / "models/recipe.json"))
    test = load_file(folder / "data/prepared/test.safetensors")
    sequential = plain.sequential(recipe, load_file(folder / "models/model.safetensors"))
    with torch.no_grad():
        logits = sequential(test["images"])
    found = load_file(folder / "data/predicted/test.safetensors")["log_probabilities"]
    assert torch.equal(found.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(found, logits.double().log_softmax(1), rtol=0, atol=1e-3)
    scores = files.read_json(str(folder / "metrics/evaluate.json"))
    assert scores["correct"] == (logits.argmax(1) == test["labels"]).sum() > 8000
    assert scores["loss"] == pytest.approx(
        functional.cross_entropy(logits, test["labels"]).item(), abs=1e-4
    )


@NAMES
def test_no_order_and_no_split_of_the_rows_shows_in_gradients_and_predictions(name: str) -> None:
    model, images, labels = example(24, name)
    expected, whole = model.log_probabilities(images), gradient(model, images, labels)

    @settings(derandomize=True, deadline=None, max_examples=10)
    @given(st.permutations(range(24)), st.integers(0, 24))
    def check(order: list[int], split: int) -> None:
        assert torch.equal(model.log_probabilities(images[order], split + 1), expected[order])
        parts = (order[:split], order[split:])
        assert torch.equal(sum(gradient(model, images[p], labels[p]) for p in parts), whole)

    check()


@NAMES
def test_starts_follow_their_distributions_on_the_grid_of_weights(name: str) -> None:
    model, _, _ = example(1, name, pixels=784)
    for key, (place, shape) in model.places.items():
        inputs = np.prod(model.places[key.replace("bias", "weight")][1][1:])
        values, bound = model.parameters[place], inputs**-0.5
        assert values.abs().max() <= bound
        # U(-a, a) has a standard deviation of a / sqrt(3); four of its own errors are allowed.
        assert values.std().item() == pytest.approx(
            bound / 3**0.5, rel=4 / (2 * values.numel()) ** 0.5
        )
        assert values.shape == (np.prod(shape),)
    start = model.parameters.clone()
    assert torch.equal(start, (start * 2**18).round() / 2**18)
    model.initialize("uniform", 6)
    assert not torch.equal(model.parameters, start)
    model.initialize("normal", 5)
    assert model.parameters.std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(model.parameters, (model.parameters * 2**18).round() / 2**18)
    model.initialize("zeros", 5)
    assert not model.parameters.any()


@NAMES
def test_the_digest_is_of_the_documented_bytes_and_the_file_has_snapped_float32(name: str) -> None:
    model, _, _ = example(1, name)
    model.parameters.add_(2.0**-20)  # off the grid, as after a step
    model.parameters[0] = -(2.0**-30)  # a zero on the grid, and no negative one
    model.parameters[1:3] = torch.tensor(
        [-17, 17]
    )  # beyond the grid, as in a training that diverges
    model.snap()
    documented = b"".join(
        model.parameters[place].numpy().astype("<f8").tobytes()
        for place, _ in model.places.values()
    )
    assert model.sha256() == hashlib.sha256(documented).hexdigest()
    saved = model.state_dict()
    assert list(saved) == [  # layer by layer, the weight before the bias
        f"{index}.{tensor}"
        for index, layer in enumerate(model.layers)
        if isinstance(layer, Linear | Convolution)
        for tensor in ("weight", "bias")
    ]
    flat = np.concatenate([array.ravel() for array in saved.values()])
    assert flat.dtype == np.float32
    assert np.array_equal(flat, np.clip(np.rint(model.parameters.numpy() * 2**18) / 2**18, -16, 16))
    assert not np.signbit(flat[flat == 0]).any()


@pytest.mark.parametrize("message", LAYERS)
def test_layers_that_do_not_fit_one_another_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Model(LAYERS[message], 169, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weight: weight + np.float32(2.0**-20),
            "(weights must be multiples of 2^-18 from -16 to 16)",
        ),
        (lambda weight: weight + 17, "(weights must be multiples of 2^-18 from -16 to 16)"),
        (lambda weight: weight * np.nan, "(weights must be multiples of 2^-18 from -16 to 16)"),
        (lambda weight: weight[:, 1:], "(it is no softmax_regression of this recipe)"),
    ],
)
@pytest.mark.usefixtures("small")
def test_a_model_file_with_other_numbers_is_refused(change: Any, message: str) -> None:
    path = "models/model.safetensors"
    found = tensors.read(path)
    tensors.write(path, found | {"0.weight": change(found["0.weight"])})
    with pytest.raises(OSError, match=r"models/model\.safetensors") as error:
        models.load(path, "models/recipe.json")
    assert message in str(error.value)


@pytest.mark.usefixtures("small")
def test_a_recipe_of_other_layers_than_the_code_has_now_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = lambda classes: [Linear(5), Relu(), Linear(classes)]  # noqa: E731
    monkeypatch.setitem(models.MODELS, "softmax_regression", other)
    message = r"^models/recipe\.json is of another softmax_regression than src/models\.py has;"
    with pytest.raises(OSError, match=message):
        models.load("models/model.safetensors", "models/recipe.json")


@pytest.mark.usefixtures("small")
def test_loading_gives_the_parameters_that_were_saved() -> None:
    model = models.load("models/model.safetensors", "models/recipe.json")
    saved = tensors.read("models/model.safetensors")
    assert model.parameters.tolist() == [*saved["0.weight"].ravel(), *saved["0.bias"]]
    for name, array in model.state_dict().items():
        assert np.array_equal(array, saved[name])
