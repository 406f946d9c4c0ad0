"""params.yaml: what each key may be, and what is said of one that is not."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from dvc.utils.serialize import load_yaml, modify_yaml

from src.common import files, parameters
from src.common.command import UsageError
from src.learning import models
from src.learning.settings import Train
from stages import evaluate, fetch, prepare
from tests.support import stages
from tests.support.clones import REPOSITORY

pytestmark = pytest.mark.usefixtures("here")

TEXT = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
COMMITTED = files.parse_yaml(TEXT)
SECTIONS: dict[str, type[parameters.Section]] = {
    "machine": parameters.Machine,
    "fetch": fetch.Fetch,
    "prepare": prepare.Prepare,
    "train": Train,
    "evaluate": evaluate.Evaluate,
}
KEYS = [  # a key of one's own may have a default, or limits that BAD does not know
    f"{name}.{key}"
    for name, section in SECTIONS.items()
    for key, field in section.model_fields.items()
    if field.is_required()
]

# What is not allowed, by what is: integers' ends are tried too.
BAD = {
    "an integer from": "abc null '' 1.5 1.0 .nan .inf true [1] {a:1} -1 1e400 1" + 30 * "0",
    "the path of a folder": "null 5 true [a] {a:1}",
    "[height, width] of": "5 [5] [0,5] [1,2,3] [a,5] true abc [1.5,2]",
    "true or false": "'yes' Trueish null 1 0 [true] ''",
    "[first, end] with 0 <= first < end, or": "[0,0] [5,3] [-5,3] [0] [0,1,2] null 5 '0,5' {0:5}",
    "[first, end]": "[] [0,0] [5,3] [-5,3] [0] [0,1,2] [0,1.0] [0,a] [0,true] null 5 '0,5' {0:5}",
    "cpu, cuda": "gpu CUDA cuda:x 'cuda:' null true 'cpu;touch' [cpu] 0",
    "a name of letters": "'' a/b '../x' 'a;b' [a,b] 5 null",
    "a name in": "5 null true [mlp] {mlp:1}",
    "64 hexadecimal": f"abc '' true 0 [a] {64 * 'A'} {63 * 'a'}",
    "a list of": "openml [] [openml,kaggle] [null] null true ''",
    "a number above 0, up to 3600": "abc null '' .nan nan .inf 0 -1e-5 true [0.1] 1e400 3601",
    "a number above 0, up to 86400": "abc null '' .nan nan .inf 0 -1e-5 true [0.1] 1e400 86401",
    "a finite number from": "abc null '' .nan nan .inf -.inf -1e-5 true [0.1] 1e400",
    "a finite number above": "abc null '' .nan nan .inf -.inf 0 -1e-5 true [0.1] 1e400",
    "a number from 0": "abc null '' .nan -.inf -1e-5 true [0.1] 1 1e400",
    "default, normal": "xavier null '' true [zeros] Normal uniform",
    "constant, linear": "none step null '' true [linear] 0",
    "last or": "first null '' true [last] 0",
    "auto, or": "square null '' true 28 [28,28] [1,28,28,1] [0,28,28] [1,2.0,2] [1,true,2] [a,2,2]",
}


def read(section: str, **changes: Any) -> Any:
    """Read a section of the tests' params.yaml with some keys changed, where ... removes one."""
    values = COMMITTED[section] | stages.SETTINGS[section] | changes
    kept = {key: value for key, value in values.items() if value is not ...}
    Path("params.yaml").write_text(stages.dump({section: kept}), encoding="utf-8")
    return parameters.read(section, SECTIONS[section])


def faults(read: Callable[[], object]) -> list[str]:
    """Return the lines with which settings are refused."""
    with pytest.raises(UsageError) as refused:
        read()
    return str(refused.value).splitlines()


@pytest.mark.parametrize("name", SECTIONS)
def test_the_committed_params_yaml_is_allowed(name: str) -> None:
    Path("params.yaml").write_text(TEXT, encoding="utf-8")
    found = parameters.read(name, SECTIONS[name]).model_dump()
    assert found.items() >= COMMITTED[name].items()


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
    bad = next(values for start, values in BAD.items() if allowed.startswith(start))
    others = {"epochs": 10_000} if key == "warmup_epochs" else {}
    if ends := re.fullmatch(r"an integer from (\d+) to (\d+)", allowed):
        low, high = map(int, ends.groups())
        bad += f" {low - 1} {high + 1}"
        for value in (low, high - len(others)):  # there are fewer of them than epochs
            assert getattr(read(section, **others | {key: value}), key) == value
    for text in bad.split():
        value = files.parse_yaml(text.replace(":", ": ") if "{" in text else text)
        [fault] = faults(lambda value=value: read(section, **{key: value}))
        expected = rf"{re.escape(name)}(\.\d)?: {re.escape(f'must be {allowed} (given: ')}.*\)"
        assert re.fullmatch(expected, fault), (text, fault)


@pytest.mark.parametrize("name", KEYS)
def test_a_missing_key_and_an_unknown_one_are_named(name: str) -> None:
    section, key = name.split(".")
    missing, unknown = faults(lambda: read(section, **{key: ..., f"{key}x": 1}))
    assert missing.startswith(f"{name}: missing; must be ")
    assert unknown.startswith(f"{name}x: no such parameter; there are ")
    assert key in re.findall(r"\w+", unknown.split("there are ")[1])


def test_a_key_that_is_no_text_is_an_unknown_one() -> None:
    values = COMMITTED["evaluate"] | {3: 1, True: 1}
    Path("params.yaml").write_text(stages.dump({"evaluate": values}), encoding="utf-8")
    allowed = "no such parameter; there are batch_size"
    assert faults(lambda: parameters.read("evaluate", SECTIONS["evaluate"])) == [
        f"evaluate.3: {allowed} (given: 3)",
        f"evaluate.1: {allowed} (given: true)",  # pydantic's name of it
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
    assert faults(lambda: read("train", model="mpl", epochs=0)) == [
        f"train.model: must be one of {', '.join(models.MODELS)} (given: 'mpl')",
        "train.epochs: must be an integer from 1 to 10000 (given: 0)",
    ]


TYPES = Integer, Float, Truth, Text = tuple(
    pydantic.create_model("Section", __base__=parameters.Section, key=(kind, ...))
    for kind in (parameters.Count, parameters.Number, parameters.Switch, parameters.Dataset)
)
# YAML 1.1 and 1.2 read many of these in two ways.
DOUBTFUL = """
    0100 015 060000 0777 1:30 190:20:30.15 on off yes NO y True TRUE 1_0 1__0 0o17 0o8 017 018 0b11
    -0b11 0x1F -0x1 +0x1 -0o7 -07 +1 -1 +.5 .5 5. 1e-2 1E-2 1.0e-2 1e3 1e+3 .1e1 1_000.5 1._5 .inf
    -.INF +.inf .nan .NaN inf nan ~ null Null NULL 2020-01-02 2020-1-2 2020-13-45 = << 1.0 1. 00 0
    2020-01-02T03:04:05Z -0 0.0 '0100' "1e-2" 0x 0b 0o _1 1_ - + . .. 1.2.3 a
    """
TAGGED = ["!!int 0100", "!!int '7'", "!!str 1", "!!float 1", "!!bool yes", "!!bool 1", "!!null 1"]


def expect_dvcs_reading(section: type[parameters.Section], scalar: str) -> bool:
    """Compare DVC's reading of a scalar with the stages'; return whether it is allowed."""
    Path("params.yaml").write_text(f"section:\n  key: {scalar}\n", encoding="utf-8")
    try:
        found = parameters.read("section", section).model_dump()["key"]
    except UsageError:
        return False
    recorded = load_yaml("params.yaml")["section"]["key"]
    assert recorded == found, scalar
    assert isinstance(recorded, bool) == isinstance(found, bool), scalar
    return True


def test_doubtful_scalars_are_read_as_dvc_reads_them_or_refused() -> None:
    doubtful = DOUBTFUL.split() + TAGGED
    integers, numbers, truths, words = (
        {scalar for scalar in doubtful if expect_dvcs_reading(section, scalar)} for section in TYPES
    )
    assert {"0100", "060000", "1_0", "0o17", "0b11", "+1"} < integers
    assert {"1e-2", ".5", "+.5", "0100"} < numbers
    assert truths == {"True", "TRUE", "!!bool yes"}
    assert {"on", "yes", "1.2.3"} < words
    refused = {"1:30", "on", "'0100'", "2020-01-02", "=", "<<", "0x", "2020-13-45"}
    assert not refused & (integers | numbers | truths)


def test_what_two_yamls_read_as_two_numbers_has_the_value_of_yaml_1_2() -> None:
    readings = {"0100": 100, "060000": 60000, "0o17": 15, "1_0": 10, "0b11": 3}
    readings |= dict.fromkeys(("1e-2", "0.01", "1.0E-2", ".01", "1e-02"), 0.01)
    for text, value in readings.items():
        section = Integer if isinstance(value, int) else Float
        assert expect_dvcs_reading(section, text)
        assert parameters.read("section", section).model_dump() == {"key": value}, text


def test_1000_generated_scalars_are_read_as_dvc_reads_them_or_refused() -> None:
    draw = random.Random(24)
    pieces = "0 1 7 8 9 _ . : - + e E x o b 0x 0o 0b 00 .5 e-2 on off true yes T Z ~ = < inf nan"
    allowed = 0
    for _ in range(1000):
        few = "".join(draw.choices(pieces.split(), k=draw.randint(1, 5)))
        scalar = few if draw.random() < 0.9 else f"'{few}'"
        allowed += expect_dvcs_reading(draw.choice(TYPES), scalar)
    assert 100 < allowed < 900  # there are many of both kinds


def test_a_byte_order_mark_and_the_line_ends_of_windows_change_nothing() -> None:
    Path("params.yaml").write_bytes("\ufeffsection:\r\n  key: 0100\r\n".encode())
    assert parameters.read("section", Integer).key == 100
    assert load_yaml("params.yaml")["section"]["key"] == 100


def test_a_variable_replaces_a_key_of_the_section_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    read("machine")
    keys = {"device": "cpu", "threads": 1, "processes": 1, "checkpoint_seconds": 30}
    assert parameters.machine().model_dump() == keys
    given = {"device": "cuda:1", "threads": 2, "processes": 3, "checkpoint_seconds": 0.5}
    for key, value in given.items():
        monkeypatch.setenv(f"MACHINE_{key.upper()}", str(value))
        keys[key] = value
        assert parameters.machine().model_dump() == keys


def test_a_variable_s_value_that_is_not_allowed_is_named_with_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read("machine")
    monkeypatch.setenv("MACHINE_DEVICE", "gpu")
    for text in ("0", "1025", "two", "", "1.5", "[1", "'2'", "[1]"):
        monkeypatch.setenv("MACHINE_THREADS", text)
        assert faults(parameters.machine) == [
            "MACHINE_DEVICE: must be cpu, cuda, cuda:N, or auto for a GPU if there is one"
            " (given: 'gpu')",
            f"MACHINE_THREADS: must be an integer from 1 to 1024 (given: {text!r})",
        ]


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        read("train").epochs = 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train: [", "is not YAML: line 1: expected the node content, but found"),
        ("train:\n  epochs: 1\n  epochs: 2", 'is not YAML: line 3: found duplicate key "epochs"'),
        ("train: {}\nfetch: {}\ntrain: {}", 'is not YAML: line 3: found duplicate key "train"'),
        ("train: {epochs: 2020-13-45}", "is not YAML: month must be"),
        (
            "train: !!python/object/apply:os.system ['touch executed']",
            "is not YAML: line 1: could not",
        ),
        ("[" * 500, "is not YAML: maximum recursion"),
        ("train: \xff", "is not YAML: 'utf-8' codec"),
        ("", "has no section 'train'"),
        ("train: 5", "has no section 'train'"),
        ("trian: {}", "has no section 'train'"),
    ],
)
def test_a_file_that_is_no_params_yaml_is_refused_in_a_line(
    text: str, reason: str, here: Path
) -> None:
    Path("params.yaml").write_bytes(text.encode("latin-1"))
    [fault] = faults(lambda: parameters.read("train", Train))
    assert fault.startswith(f"params.yaml {reason}")
    assert [path.name for path in here.iterdir()] == ["params.yaml"]


def test_a_missing_file_is_an_error_of_the_system() -> None:
    stages.run_stage("prepare").expect(1, "prepare: params.yaml cannot be read: No such file")


def test_the_learning_rate_stays_or_falls_towards_0_after_its_rise() -> None:
    def rates(schedule: str, **changes: int) -> list[float]:
        settings = read("train", schedule=schedule, learning_rate=0.5, **changes)
        epochs = range(1, settings.epochs + 1)
        return [settings.rate(epoch, step, 2) for epoch in epochs for step in range(2)]

    assert rates("constant", epochs=2) == [0.5] * 4
    assert rates("linear", epochs=2) == [0.5, 0.375, 0.25, 0.125]
    assert rates("cosine", epochs=2) == pytest.approx([0.5, 0.426777, 0.25, 0.073223], abs=1e-6)
    warm = rates("linear", epochs=3, warmup_epochs=1)
    assert warm == [0.25, 0.5, 0.5, 0.375, 0.25, 0.125]
