"""The report's pictures show the files that the stages before it wrote, and no others."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import load_file

from src import figures, page
from tests.support import stages


def expected() -> dict[str, Figure]:
    """Draw each picture from the files that it should show."""
    train = load_file("data/prepared/train.safetensors")
    test = load_file("data/prepared/test.safetensors")
    predicted = load_file("data/predicted/test.safetensors")["log_probabilities"]
    model = load_file("models/model.safetensors")
    return {
        "samples": figures.samples(train["images"], train["labels"]),
        "weights": figures.weights(model[min(name for name in model if "weight" in name)]),
        "mistakes": figures.mistakes(test["images"], test["labels"], predicted),
        "reliability": figures.reliability(test["labels"], predicted),
    }


@pytest.mark.parametrize("model", ["softmax_regression", "cnn"])
def test_each_picture_shows_its_files(
    model: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model == "cnn":
        monkeypatch.setattr(page, "render", lambda *_, **__: "")  # other tests look at the page
        stages.small_data(14, 20)
        stages.small_parameters(**{"train.model": model, "train.learning_rate": 0.1})
        for stage in stages.STAGES[1:]:
            stages.run_stage(stage).expect(0)
    drawn = {path.stem: path.read_bytes() for path in small.glob("metrics/plots/*.png")}
    for name, figure in expected().items():
        figures.write("expected.png", figure)
        assert drawn.pop(name) == Path("expected.png").read_bytes(), name
    assert drawn == {}


def test_the_pictures_of_the_real_rows_show_digits(
    reproduced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reproduced)
    total = 0
    for name, figure in expected().items():
        path = Path(f"metrics/plots/{name}.png")
        total += path.stat().st_size
        with Image.open(path) as picture:
            shown = np.asarray(picture.convert("L"))
        assert shown.shape == tuple(int(inches * 140) for inches in figure.get_size_inches()[::-1])
        assert 0.01 < (shown < 128).mean() < 0.5, name
    assert total < 300_000
