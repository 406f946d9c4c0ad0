"""`python -m tools.predict`: lines, JSON, and what happens to a picture that cannot be read."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common import dataset, tensors
from src.sources import folder
from tests.support.clones import REPOSITORY, Run
from tools import predict


def run_predict(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["predict", *arguments])
    return predict.main()


@pytest.fixture
def pictures(small: Path) -> list[str]:
    """Return pictures of the classes 0 to 3 of `small`, 8 x 8 pixels, beside its model."""
    names = ["a.png", "b c.bmp", "-d'\u00e9.png", "e\n.gif"]
    for label, name in enumerate(names):
        levels = np.full((8, 8), 60, np.uint8)
        down, right = 4 * (label // 2), 4 * (label % 2)
        levels[down : down + 4, right : right + 4] = 160
        Image.fromarray(levels).save(small / name)
    return names


def test_200_test_images_get_the_probabilities_of_evaluate(
    reproduced: Path, run: Run, tmp_path: Path
) -> None:
    images = dataset.read(str(reproduced / "data" / "prepared" / "test.safetensors"), "np").images
    paths = [str(tmp_path / f"{row}.png") for row in range(200)]
    for path, levels in zip(paths, np.rint(images[:200] * 255).astype(np.uint8), strict=True):
        Image.fromarray(levels.reshape(28, 28)).save(path)
    printed = run(reproduced, sys.executable, "-m", "tools.predict", "--json", *paths).stdout
    found = json.loads(printed)
    evaluated = tensors.read(str(reproduced / "data" / "predicted" / "test.safetensors"))
    expected = np.exp(evaluated["log_probabilities"][:200])
    assert [record["image"] for record in found] == paths
    assert [record["digit"] for record in found] == expected.argmax(axis=1).tolist()
    assert np.abs(expected - [record["probabilities"] for record in found]).max() < 1e-12


def test_each_picture_is_a_line_of_ranked_probabilities_whatever_its_name(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_predict(monkeypatch, "--", *pictures) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = ["a.png", "b c.bmp", "-d'\u00e9.png", r"'e\n.gif'"]
    assert len(lines) == 4
    for label, (line, name) in enumerate(zip(lines, shown, strict=True)):
        assert line.startswith(f"{name}: {label}  ({label} ")
        ranked = [part.split() for part in line[:-1].rpartition("  (")[2].split(", ")]
        assert sorted(digit for digit, _ in ranked) == list("0123")
        percents = [float(percent.rstrip("%")) for _, percent in ranked]
        assert percents == sorted(percents, reverse=True)
        assert abs(sum(percents) - 100) < 0.03


def test_what_cannot_be_read_is_a_line_and_the_others_are_still_read(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.png").write_text("a digit\n", encoding="utf-8")
    two = np.full((60, 120), 255, np.uint8)
    two[10:50, 30:36] = two[10:50, 80:86] = 0
    Image.fromarray(two).save("two.png")
    assert run_predict(monkeypatch, "--json", "none.png", "text.png", ".", "two.png", "a.png") == 1
    output, errors = capsys.readouterr()
    starts = ("none.png is missing", "text.png cannot be read", ". is a folder", "two.png: more")
    for line, start in zip(errors.splitlines(), starts, strict=True):
        assert line.startswith(f"predict: {start}")
    found = {record["image"]: record for record in json.loads(output)}
    assert list(found) == ["two.png", "a.png"]
    assert found["two.png"]["warning"] == "more than one digit?"
    assert found["a.png"]["warning"] is None
    assert [found["a.png"][key] for key in ("class", "digit", "name")] == [0, 0, "0"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_read_as_the_folder_that_the_model_learned_from(
    channels: int, tmp_path: Path
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    levels = levels[:, :, 0] if channels == 1 else levels
    path = tmp_path / "a.png"
    Image.fromarray(levels).save(path)
    for size in ((20, 30), (8, 8)):
        image, doubt = predict.read_as_folder(str(path), (channels, *size))
        as_fetched = folder.read_picture(path, size).reshape(*size, channels).transpose(2, 0, 1)
        np.testing.assert_allclose(image, as_fetched / 255, atol=2**-17)
        assert doubt is None
    frames = [Image.fromarray(levels), Image.fromarray(255 - levels)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    moving, doubt = predict.read_as_folder(str(tmp_path / "two.gif"), (3, 20, 30))
    assert moving.shape == (3, 20, 30)
    assert doubt == "the first of 2 pictures"


def test_a_missing_model_says_what_makes_it_and_help_how_to_call_it(
    small: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (sys.executable, "-m", "tools.predict", "--model", small / "none", "x.png")
    result = run(REPOSITORY, *command, check=False)
    assert result.returncode == 1
    fault = f"{small / 'none'}/recipe.json is missing; `make repro` makes what a stage writes\n"
    assert result.stdout == f"predict: {fault}"
    with pytest.raises(SystemExit, match="0"):
        run_predict(monkeypatch, "--help")
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("WEBP", "--json", "photo.jpg", "recipe.json"))
