"""The report: figures that say what the data say, and the same bytes everywhere."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.calibration import calibration_curve

from src import figures, inference
from tests.conftest import REPOSITORY, Run, command_of

PICTURES = ("mistakes", "reliability", "samples", "weights")


def test_neither_a_users_style_nor_the_processor_changes_a_byte(
    reproduced: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 20\nfigure.facecolor: green\nlines.linewidth: 9"
    )
    command = [sys.executable, *command_of(reproduced, "report")[1:]]
    expected = {}
    for flag in ("samples", "weights", "mistakes", "reliability", "page"):
        at = command.index(f"--{flag}") + 1
        expected[flag] = (reproduced / command[at]).read_bytes()
        command[at] = str(tmp_path / flag)
    another_processor = {
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "2",
    }
    env = another_processor | {"MATPLOTLIBRC": str(tmp_path), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    run(reproduced, *command, env=env)
    for flag, content in expected.items():
        assert (tmp_path / flag).read_bytes() == content, flag


def test_pictures_carry_pixels_and_nothing_else(reproduced: Path) -> None:
    total = 0
    for name in PICTURES:
        content = (reproduced / "metrics" / "plots" / f"{name}.png").read_bytes()
        total += len(content)
        kinds, at = set(), 8
        while at < len(content):
            kinds.add(content[at + 4 : at + 8])
            at += 12 + int.from_bytes(content[at : at + 4], "big")
        assert kinds == {b"IHDR", b"IDAT", b"IEND"}, name
    assert total < 300_000
    assert (reproduced / "metrics" / "report" / "index.html").stat().st_size < 600_000


def test_the_page_names_its_bytes_and_its_recipe(reproduced: Path) -> None:
    page = (reproduced / "metrics" / "report" / "index.html").read_text(encoding="utf-8")
    for path in (
        "data/prepared/train.safetensors",
        "data/prepared/test.safetensors",
        "models/model.safetensors",
    ):
        digest = hashlib.sha256((reproduced / path).read_bytes()).hexdigest()
        assert f"<tr><th scope=row>{path}<td>{digest}" in page
    parameters = yaml.safe_load((reproduced / "params.yaml").read_text())["train"]
    computed_where = {"device", "threads", "processes"}
    expected = {key: value for key, value in parameters.items() if key not in computed_where}
    assert json.loads((reproduced / "models" / "recipe.json").read_text()) == expected
    for name, value in expected.items():
        assert f"<tr><th scope=row>{name}<td>{value}" in page


def test_a_change_of_style_re_runs_the_report_alone(workspace: Path, run: Run) -> None:
    style = ("src/figures.py", "src/page.html", "src/page.py")
    for name in style:
        with open(workspace / name, "a", encoding="utf-8") as file:
            file.write("\n")
    changed = json.loads(run(workspace, "dvc", "status", "--json").stdout)
    assert changed == {"report": [{"changed deps": dict.fromkeys(style, "modified")}]}


def test_dvc_shows_every_plot_once_and_diffs_it(workspace: Path, run: Run) -> None:
    titles = ["Accuracy after", "Loss (cross-entropy) after", "Actual against", "F1 of each digit"]
    run(workspace, "dvc", "plots", "show", "--out", "shown")
    page = (workspace / "shown" / "index.html").read_text()
    for name in PICTURES:
        assert page.count(f'src="static/workspace_metrics_plots_{name}.png"') == 1
    for title in titles:
        assert page.count(title) == 1
    for name in PICTURES:
        Image.new("L", (9, 9)).save(workspace / "metrics" / "plots" / f"{name}.png")
    run(workspace, "dvc", "plots", "diff", "HEAD", "--out", "compared")
    page = (workspace / "compared" / "index.html").read_text()
    for name in PICTURES:
        for revision in ("HEAD", "workspace"):
            assert page.count(f'src="static/{revision}_metrics_plots_{name}.png"') == 1
    for title in titles:
        assert page.count(title) == 1


def test_predict_starts_without_torch() -> None:
    imports = "from src import inference; from tools import handwriting, predict"
    command = [sys.executable, "-c", f"{imports}; import sys; sys.exit('torch' in sys.modules)"]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=60)


def test_reliability_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.1, 1, 2000)
    correct = generator.uniform(size=2000) < confidence**2
    upper, lower = figures.reliability(confidence, correct).axes
    accuracy, expected = calibration_curve(correct, confidence, n_bins=10)
    bars = [bar.get_height() for bar in upper.patches]
    assert bars == pytest.approx(accuracy)
    (_, points) = upper.lines
    assert points.get_xdata() == pytest.approx(expected)
    rows = [bar.get_height() for bar in lower.patches]
    assert sum(rows) == 2000
    error = np.abs(accuracy - expected) @ [count for count in rows if count] / 2000
    assert upper.get_title("left") == f"calibration error {error:.2%}"


def test_weights_share_one_scale_around_zero() -> None:
    weight = np.random.default_rng(2).normal(size=(10, 784))
    weight[3, 5] = -9
    pictures = [axes.images[0] for axes in figures.weights(weight).axes if axes.images]
    assert [axes.get_title() for axes in figures.weights(weight).axes[:10]] == list("0123456789")
    for digit, picture in enumerate(pictures[:10]):
        assert picture.get_clim() == (-np.abs(weight).max(), np.abs(weight).max())
        assert np.array_equal(picture.get_array(), weight[digit].reshape(28, 28))


def test_samples_stand_in_the_row_of_their_digit() -> None:
    labels = np.array([3, 3, 1, 0, 3])
    images = np.arange(1, 6)[:, None] / 5 * np.ones(784)
    axes = figures.samples(images, labels, columns=2).axes[0]
    grid = axes.images[0].get_array().reshape(10, 30, 2, 30).max(axis=(1, 3))
    assert grid[:4].tolist() == [[0.8, 0], [0.6, 0], [0, 0], [0.2, 0.4]]
    assert not grid[4:].any()
    assert [label.get_text() for label in axes.get_yticklabels()] == list("0123456789")


@pytest.mark.parametrize("count", [0, 1, 7])
def test_mistakes_are_captioned_however_many_there_are(count: int) -> None:
    digits = np.arange(count)
    figure = figures.mistakes(np.ones((count, 784)), digits, digits + 1, np.full(count, 0.987654))
    assert [axes.get_title() for axes in figure.axes] == [f"{at} as {at + 1}" for at in digits]
    assert {text.get_text() for axes in figure.axes for text in axes.texts} <= {"98.77%"}
    assert figures.png(figure).startswith(b"\x89PNG")


def test_probabilities_are_stable_for_large_scores() -> None:
    bias = np.array([1000.0, 1000.0 + np.log(3), *[-1000.0] * 8])
    found = np.exp(inference.log_probabilities(np.zeros((10, 784)), bias, np.ones((1, 784))))
    assert found == pytest.approx(np.array([[0.25, 0.75, *[0] * 8]]))
