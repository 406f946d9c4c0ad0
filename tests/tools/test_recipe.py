"""tools/recipe.py, and each file of recipes/."""

import shutil
from pathlib import Path

import pytest
from dvc.cli import main as dvc_main
from dvc.utils.hydra import apply_overrides

from src.common import command, files
from src.learning.settings import Train
from tests.support import stages
from tests.support.clones import REPOSITORY
from tools import recipe


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_is_valid_and_has_every_key(name: str) -> None:
    values = files.parse_yaml((REPOSITORY / f"recipes/{name}.yaml").read_text(encoding="utf-8"))
    assert values.keys() >= {key for key, of in Train.model_fields.items() if of.is_required()}
    assert recipe.read(name) == values


@pytest.mark.parametrize("name", recipe.names())
def test_dvc_writes_the_words_into_params_yaml(name: str, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    words = " ".join(recipe.options(recipe.read(name))).split()  # as a shell splits $(...)
    assert set(words[::2]) == {"-S"}
    apply_overrides(tmp_path / "params.yaml", words[1::2])
    written = files.parse_yaml((tmp_path / "params.yaml").read_text(encoding="utf-8"))["train"]
    assert written == recipe.read(name)
    assert list(map(type, written.values())) == list(map(type, recipe.read(name).values()))


def test_every_model_has_a_recipe_and_the_first_one_is_the_tutorials() -> None:
    read = {name: recipe.read(name) for name in recipe.names()}
    ours = {"softmax_regression", "mlp", "cnn", "lenet", "resnet"}
    assert {one["model"] for one in read.values()} >= ours
    assert read["softmax_regression"] == stages.SETTINGS["train"]


def test_a_misspelt_recipe_gives_dvc_a_word_that_it_refuses(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In $(...) its exit status is lost: DVC would run without a recipe's options."""
    monkeypatch.setattr("sys.argv", ["recipe", "cn"])
    with pytest.raises(command.UsageError, match=r"must be one of .*cnn.* 'cn'"):
        recipe.main()
    words = capsys.readouterr().out.split()
    assert dvc_main(["exp", "run", "--temp", *words]) != 0
    assert "unrecognized arguments: --no-recipe-cn" in caplog.text


def test_a_recipe_that_is_not_there_or_not_valid_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(command.UsageError, match=r"must be one of .*cnn.* 'vgg'"):
        recipe.read("vgg")
    text = (REPOSITORY / "recipes/cnn.yaml").read_text(encoding="utf-8")
    (tmp_path / "cnn.yaml").write_text(text.replace("epochs: 5", "epochs: 0", 1), encoding="utf-8")
    monkeypatch.setattr(recipe, "FOLDER", tmp_path)
    with pytest.raises(command.UsageError, match=r"recipes/cnn\.yaml: epochs"):
        recipe.read("cnn")
