"""params.yaml: what each key may be, and what is said of one that is not."""

import re
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from dvc.utils.serialize import modify_yaml

from src.common import parameters
from src.common.command import UsageError
from src.learning import models, training
from stages import evaluate, fetch, prepare
from tests.support import stages
from tests.support.clones import REPOSITORY

TEXT = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
COMMITTED = yaml.safe_load(TEXT)
SECTIONS = {
    section.__name__.lower(): section
    for section in (fetch.Fetch, prepare.Prepare, training.Train, evaluate.Evaluate)
}
KEYS = [f"{name}.{key}" for name, section in SECTIONS.items() for key in section.model_fields]

# What is not allowed, by what is: integers' ends are tried too.
BAD = {
    "an integer from": "abc null '' 1.5 1.0 .nan .inf true [1] {a:1} -1 1e400 1" + 30 * "0",
    "true or false": "'yes' Trueish null 1 0 [true] ''",
    "[first, end]": "[0,0] [5,3] [-5,3] [0] [0,1,2] [0,1.0] [0,a] [0,true] null 5 '0,5' {0:5}",
    "cpu, cuda": "gpu CUDA cuda:x 'cuda:' null true 'cpu;touch' [cpu] 0",
    "a name of letters": "'' a/b '../x' 'a;b' [a,b] 5 null",
    "a name in": "5 null true [mlp] {mlp:1}",
    "64 hexadecimal": f"abc '' true 0 [a] {64 * 'A'} {63 * 'a'}",
    "a list of": "openml [] [openml,kaggle] [null] null true ''",
    "a number above 0, up to 3600": "abc null '' .nan nan .inf 0 -1e-5 true [0.1] 1e400 3601",
    "a finite number": "abc null '' .nan nan .inf -.inf 0 -1e-5 true [0.1] 1e400",
    "a number from 0": "abc null '' .nan -.inf -1e-5 true [0.1] 1 1e400",
    "uniform, normal": "xavier null '' true [zeros] Uniform",
    "none or": "cosine null true [none]",
}


def read(section: str, **changes: Any) -> Any:
    """Read a section of the tests' params.yaml with some keys changed, where ... removes one."""
    values = COMMITTED[section] | stages.SETTINGS[section] | changes
    kept = {key: value for key, value in values.items() if value is not ...}
    Path("params.yaml").write_text(yaml.safe_dump({section: kept}), encoding="utf-8")
    return parameters.read(SECTIONS[section])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_params_yaml_has_the_keys_of_the_schema() -> None:
    sections = {key: value for key, value in COMMITTED.items() if key in SECTIONS}
    assert {f"{name}.{key}" for name, section in sections.items() for key in section} == set(KEYS)
    for name, values in sections.items():
        assert read(name, **values).model_dump() == values


@pytest.mark.parametrize("name", KEYS)
def test_the_comment_above_a_key_says_what_is_allowed_in_the_errors_words(name: str) -> None:
    section, key = name.split(".")
    block = re.search(
        rf"^{section}:\n(?:.*\n)*?((?:  #.*\n)+)(?:  train_rows:\n(?:  - .*\n)+)?  {key}:",
        TEXT,
        re.MULTILINE,
    )
    assert block
    comment = " ".join(block[1].replace("  # ", "").split())
    assert str(SECTIONS[section].model_fields[key].description) in comment


def test_no_comment_is_lost_when_dvc_sets_values() -> None:
    """DVC drops comments and blank lines that follow a list, and puts each item on a line."""
    Path("params.yaml").write_text(TEXT, encoding="utf-8")
    for name in SECTIONS:
        with modify_yaml("params.yaml") as values:
            for key, value in COMMITTED[name].items():
                values[name][key] = value
    found = Path("params.yaml").read_text(encoding="utf-8")
    assert found.replace("\n\n", "\n") == TEXT.replace("\n\n", "\n")


@pytest.mark.parametrize("name", KEYS)
def test_a_value_that_is_not_allowed_is_named_with_what_is(name: str) -> None:
    section, key = name.split(".")
    allowed = str(SECTIONS[section].model_fields[key].description)
    (bad,) = (values for start, values in BAD.items() if allowed.startswith(start))
    if ends := re.fullmatch(r"an integer from (\d+) to (\d+)", allowed):
        low, high = map(int, ends.groups())
        bad += f" {low - 1} {high + 1}"
        for value in (low, high):
            assert getattr(read(section, **{key: value}), key) == value
    for text in bad.split():
        with pytest.raises(UsageError) as refused:
            read(section, **{key: yaml.safe_load(text.replace(":", ": ") if "{" in text else text)})
        expected = rf"{re.escape(name)}(\.\d)?: {re.escape(f'must be {allowed} (given: ')}.*\)"
        assert re.fullmatch(expected, str(refused.value)), text


@pytest.mark.parametrize("name", KEYS)
def test_a_missing_key_and_an_unknown_one_are_named(name: str) -> None:
    section, key = name.split(".")
    with pytest.raises(UsageError) as refused:
        read(section, **{key: ..., f"{key}x": 1})
    missing, unknown = str(refused.value).splitlines()
    assert missing.startswith(f"{name}: missing; must be ")
    assert unknown.startswith(f"{name}x: no such parameter; there are ")
    assert key in re.findall(r"\w+", unknown.split("there are ")[1])


def test_a_key_that_is_no_text_is_an_unknown_one() -> None:
    Path("params.yaml").write_text(
        yaml.safe_dump({"evaluate": COMMITTED["evaluate"]}) + "  3: 1\n  on: 1\n"
    )
    with pytest.raises(UsageError) as refused:
        parameters.read(SECTIONS["evaluate"])
    allowed = "no such parameter; there are device, threads, batch_size"
    assert str(refused.value).splitlines() == [
        f"evaluate.3: {allowed} (given: 3)",
        f"evaluate.1: {allowed} (given: True)",  # pydantic's name of it
    ]


def test_all_faults_are_told_at_once_and_end_the_stage_with_status_2() -> None:
    changes = {"pixel_max": 0, "test_rows": [1], "transpose": "x", "a": 1}
    stages.parameters(**{f"prepare.{key}": value for key, value in changes.items()})
    outcome = stages.run_stage("prepare")
    names = ", ".join(prepare.Prepare.model_fields)
    assert outcome.status == 2
    assert outcome.errors.splitlines() == [
        "prepare: prepare.pixel_max: must be an integer from 1 to 255 (given: 0)",
        "prepare: prepare.transpose: must be true or false (given: 'x')",
        "prepare: prepare.test_rows: must be [first, end] with 0 <= first < end (given: [1])",
        f"prepare: prepare.a: no such parameter; there are {names} (given: 1)",
    ]


def test_a_model_that_is_not_there_is_told_with_the_other_faults() -> None:
    with pytest.raises(UsageError) as refused:
        read("train", model="mpl", epochs=0)
    assert str(refused.value).splitlines() == [
        f"train.model: must be one of {', '.join(models.MODELS)} (given: 'mpl')",
        "train.epochs: must be an integer from 1 to 10000 (given: 0)",
    ]


def test_what_yaml_leaves_in_doubt_is_read_as_dvc_shows_it() -> None:
    for text in ("1e-2", "0.01", "1.0E-2", ".01", "1e-02"):
        assert read("train", learning_rate=yaml.safe_load(text)).learning_rate == 0.01
    assert read("train", learning_rate=yaml.safe_load("1")).learning_rate == 1
    for text in ("yes", "on", "True"):
        assert read("train", shuffle=yaml.safe_load(text)).shuffle is True
    assert read("fetch", sha256=yaml.safe_load("~")).sha256 is None


def test_rows_may_touch_but_not_overlap() -> None:
    for rows in ([0, 50], [50, 99], [150, 151]):
        read("prepare", train_rows=[100, 150], test_rows=rows)
    for rows in ([0, 101], [149, 200], [100, 150], [0, 200], [120, 130]):
        with pytest.raises(UsageError, match=r"^prepare: train_rows and .* not overlap$"):
            read("prepare", train_rows=[100, 150], test_rows=rows)


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        read("train").epochs = 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train: [", "is not YAML: while parsing"),
        ("train: {epochs: 2020-13-45}", "is not YAML: month must be"),
        ("train: !!python/object/apply:os.system ['touch executed']", "is not YAML: could not"),
        ("[" * 500, "is not YAML: maximum recursion"),
        ("train: \xff", "is not YAML: 'utf-8' codec"),
        ("", "has no section 'train'"),
        ("train: 5", "has no section 'train'"),
        ("trian: {}", "has no section 'train'"),
    ],
)
def test_a_file_that_is_no_params_yaml_is_refused_in_a_line(
    text: str, reason: str, tmp_path: Path
) -> None:
    Path("params.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=rf"^params\.yaml {reason}"):
        parameters.read(training.Train)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_missing_file_is_an_error_of_the_system() -> None:
    stages.run_stage("prepare").expect(1, "prepare: params.yaml cannot be read: No such file")


def test_the_learning_rate_stays_or_falls_in_equal_steps_towards_0() -> None:
    assert [read("train", decay="none").rate(step, 4) for step in range(4)] == [0.5] * 4
    linear = read("train", decay="linear")
    assert [linear.rate(step, 4) for step in range(4)] == [0.5, 0.375, 0.25, 0.125]
