"""Pictures and tables of one's own go through all stages by parameters only, names and all."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from src.common import files
from tests.support.clones import REPOSITORY
from tests.support.stages import STAGES, parameters, run_stage
from tools import predict

generator = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("environment")  # too long for the fast tests
NAMES = ("<b>つ", "Ankle boot", "círculo", "sea & sky")
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]])
ROWS = {"prepare.train_rows": [0, 60], "prepare.validation_rows": [60, 80]}
ROWS |= {"prepare.test_rows": [80, 120], "train.batch_size": 10}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "src" / "report", "src/report")


def run_all(names: tuple[str, ...] = NAMES, **changes: object) -> None:
    """Run the stages on `mine`, and check that each table has the names."""
    own = {"fetch.sources": ["folder"], "fetch.folder": "mine", "fetch.sha256": None}
    training = {"train.epochs": 8, "train.learning_rate": 0.1}
    parameters(**own | training | changes)
    for stage in STAGES:
        run_stage(stage).expect(0)
    assert files.read_json("models/recipe.json")["names"] == [*names]
    with open("metrics/plots/per_class.csv", encoding="utf-8", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [*names]
    with open("metrics/plots/confusion.csv", encoding="utf-8", newline="") as file:
        actual = [row["actual"] for row in csv.DictReader(file)]
    labels = load_file("data/prepared/test.safetensors")["labels"]
    assert actual == [names[label] for label in labels]


def colours() -> dict[str, str]:
    """Write 120 pictures of 16 x 16 noisy pixels, whose colour is their class: name to a path."""
    paths = {}
    for number in range(120):
        name = NAMES[number % 4]
        pixels = COLOURS[number % 4] + generator.integers(-40, 41, (16, 16, 3))
        paths[name] = f"mine/{name}/{number}.png"
        Path(paths[name]).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(paths[name])
    return paths


def test_named_pictures_in_colour_are_learned_by_a_cnn() -> None:
    colours()
    run_all(**ROWS, **{"train.model": "cnn"})
    assert files.read_json("metrics/evaluate.json")["test"]["accuracy"] > 0.9
    assert files.read_json("models/recipe.json")["shape"] == [3, 16, 16]


def test_the_page_and_predict_say_the_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = colours()
    run_all(**ROWS)
    assert files.read_json("metrics/evaluate.json")["test"]["accuracy"] > 0.9
    page = Path("metrics/report/index.html").read_text(encoding="utf-8")
    assert "<title>Which class is it?</title>" in page
    assert '"classes":["\\u003cb>' in page  # as JSON in a script, which no name can end
    said = predictions([*paths.values()], monkeypatch, capsys)
    assert said == [f"{paths[name]}: {name}" for name in paths]


def predictions(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """Return what predict says of pictures, without the probabilities."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["predict", *paths])
    assert predict.main() == 0
    return [line.partition("  (")[0] for line in capsys.readouterr().out.splitlines()]


def test_grey_pictures_of_light_and_of_dark_paper_are_predicted_as_they_were_learned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(120):  # what a reader of digits would turn to light on dark, and centre
        levels = generator.integers(200, 256, (16, 16)).astype(np.uint8)
        name = ("left", "right")[number % 2]
        levels[4:12, 2 + 8 * (number % 2) : 6 + 8 * (number % 2)] //= 8
        Path(f"mine/{name}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(f"mine/{name}/{number}.png")
    run_all(("left", "right"), **ROWS)
    assert files.read_json("metrics/evaluate.json")["test"]["accuracy"] == 1
    paths = sorted(str(path) for path in Path("mine").rglob("*.png"))
    said = predictions(paths, monkeypatch, capsys)
    assert said == [f"{path}: {Path(path).parent.name}" for path in paths]


def test_a_table_with_names_of_many_classes() -> None:
    classes, pixels = 300, 12
    images = generator.integers(0, 256, (2 * classes, pixels), np.uint8)
    names = tuple(sorted(f"c{label}" for label in range(classes)))
    Path("mine").mkdir()
    with open("mine/all.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", *range(pixels)])
        table.writerows([names[row % classes], *cells] for row, cells in enumerate(images))
    rows = {"prepare.train_rows": [0, classes], "prepare.test_rows": [classes, 2 * classes]}
    run_all(names, **rows, **{"prepare.shape": [3, 2, 2], "train.batch_size": 5})
    found = load_file("data/prepared/test.safetensors")["images"]
    expected = images[classes:].reshape(found.shape) / 255
    np.testing.assert_allclose(found, expected, atol=2**-17)
    assert load_file("data/raw/dataset.safetensors")["labels"].dtype == np.uint16
