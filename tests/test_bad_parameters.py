"""Bad values in params.yaml: each is refused by name, with what is allowed, and nothing is run."""

import shlex
import sys
from pathlib import Path

import pytest
from dvc.parsing.interpolate import to_str
from dvc.utils.serialize import parse_yaml

from tests.conftest import REPOSITORY, Run
from tests.stage_runner import LOCK, flags, run_stage

PARAMETERS = parse_yaml((REPOSITORY / "params.yaml").read_text(), "params.yaml")
INTEGER = ["abc", "null", "''", "1.5", ".nan", ".inf", "true", "false", "[1, 2]", "-1", "1e400"]
NUMBER = ["abc", "null", "''", ".nan", ".inf", "-.inf", "0", "-1e-5", "true", "[0.1, 0.2]", "1e400"]
BOOLEAN = ["yes", "no", "True ish", "null", "1", "[true, true]", "''"]
DEVICE = [
    "gpu",
    "CUDA",
    "cuda:x",
    "'cuda:'",
    "null",
    "true",
    "'cpu; touch x'",
    "[cpu, cuda]",
    "0",
    "-cpu",
]
# Refused by the text alone: before torch or NumPy is imported.
BAD = {
    "fetch.dataset": ["''", "a/b", "'../x'", "'mnist 784'", "[a, b]", "'x; touch y'"],
    "fetch.version": [*INTEGER, "0", "1000", "active"],
    "fetch.sha256": ["abc", "''", "true", "0", "[a]", f"'{'A' * 64}'", f"'{'0' * 63}'"],
    "fetch.sources": ["kaggle", "[openml, kaggle]", "null", "true", "''"],
    "fetch.timeout": [*NUMBER, "3601"],
    "prepare.train_size": [*INTEGER, "0"],
    "prepare.pixel_max": [*INTEGER, "0", "256"],
    "train.device": DEVICE,
    "train.threads": [*INTEGER, "0", "1025"],
    "train.processes": [*INTEGER, "0", "1025"],
    "train.seed": [*INTEGER, "9223372036854775808"],
    "train.init": ["xavier", "null", "''", "true", "[zeros, zeros]", "Uniform"],
    "train.epochs": [*INTEGER, "0", "10001"],
    "train.batch_size": [*INTEGER, "0"],
    "train.learning_rate": NUMBER,
    "train.shuffle": BOOLEAN,
    "train.drop_last": BOOLEAN,
    "evaluate.device": DEVICE,
    "evaluate.threads": [*INTEGER, "0", "1025"],
    "evaluate.batch_size": [*INTEGER, "0", "1000001", f"1{30 * '0'}"],
}
LEAVES = [f"{stage}.{key}" for stage, section in PARAMETERS.items() for key in section]


def as_dvc_writes(stage: str, section: dict) -> list[str]:
    """Return the flags that DVC makes of a section of params.yaml, and the stage's paths."""
    written = shlex.split(LOCK[stage]["cmd"])
    known = as_flags(PARAMETERS.get(stage, {}))
    start = written.index(f"stages.{stage}") + 1
    assert written[start : start + len(known)] == known  # the conversion is the one DVC made
    return as_flags(section) + written[start + len(known) :]


def as_flags(section: dict) -> list[str]:
    return shlex.split(to_str(section, {"bool": "boolean_optional"}))


def test_every_parameter_has_bad_values_here() -> None:
    stages = {leaf.split(".")[0] for leaf in BAD}
    assert {leaf for leaf in LEAVES if leaf.split(".")[0] in stages} == set(BAD)
    assert sum(map(len, BAD.values())) >= 60


@pytest.mark.parametrize("leaf", BAD)
def test_a_bad_value_is_refused_by_name_before_anything_is_imported(
    leaf: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage, key = leaf.split(".")
    monkeypatch.chdir(tmp_path)
    for module in ("torch", "numpy", "tqdm", "sklearn", "safetensors"):
        monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    for text in BAD[leaf]:
        value = parse_yaml(f"x: {text}", "params.yaml")["x"]
        outcome = run_stage(stage, *as_dvc_writes(stage, PARAMETERS[stage] | {key: value}))
        shown = " ".join(as_flags({key: value})[1:]) or str(value).lower()
        outcome.expect(2, f"argument --{key}: {shown!r} is not allowed; allowed: ")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_missing_key_is_named(leaf: str) -> None:
    stage, key = leaf.split(".")
    section = {name: value for name, value in PARAMETERS[stage].items() if name != key}
    run_stage(stage, *as_dvc_writes(stage, section)).expect(2, f"--{key}", "required")


@pytest.mark.parametrize("stage", PARAMETERS)
def test_an_unknown_key_is_named(stage: str) -> None:
    section = PARAMETERS[stage] | {"momentum": 0.9}
    run_stage(stage, *as_dvc_writes(stage, section)).expect(2, "--momentum=0.9")


@pytest.mark.parametrize(
    ("stage", "key", "value", "allowed"),
    [
        ("prepare", "train_size", "200", "allowed: 1 to 199"),
        ("prepare", "train_size", "70000", "allowed: 1 to 199"),
        ("prepare", "train_size", "1" + 30 * "0", "allowed: 1 to 199"),
        ("prepare", "pixel_max", "254", "allowed: 255 to 255"),
        ("train", "batch_size", "151", "allowed: 1 to 150"),
        ("train", "batch_size", "1" + 30 * "0", "allowed: 1 to 150"),
        ("train", "device", "cuda:99", "which has:"),
        ("evaluate", "device", "cuda:99", "which has:"),
        ("train", "learning_rate", "1e308", "try a smaller one"),
    ],
)
def test_a_value_that_the_data_or_the_machine_refuses_is_named(
    stage: str, key: str, value: str, allowed: str, small: Path
) -> None:
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    run_stage(stage, *flags(stage), f"--{key}", value).expect(2, f"--{key}: ", allowed)
    assert before == {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}


def test_a_diverging_rate_is_reported_with_its_step(small: Path) -> None:
    outcome = run_stage("train", *flags("train"), "--learning_rate", "1e308", "--batch_size", "50")
    outcome.expect(2, "step ", "of epoch 1", "learning_rate of 1e+308")


def test_cuda_is_refused_where_there_is_none(small: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    for stage in ("train", "evaluate"):
        outcome = run_stage(stage, *flags(stage), "--device", "cuda")
        outcome.expect(2, "--device: ", "which has: cpu")


def test_three_ways_to_write_a_hundredth_are_one(small: Path) -> None:
    models = set()
    for text in ("1e-2", "0.01", "1.0E-2"):
        section = PARAMETERS["train"] | {"learning_rate": parse_yaml(f"x: {text}", "")["x"]}
        assert run_stage("train", *as_dvc_writes("train", section)).status == 0
        models.add(Path("models/model.safetensors").read_bytes())
    assert len(models) == 1


def test_a_bug_still_gives_a_traceback_and_a_failure_on_request(small: Path) -> None:
    # run_stage would have caught an exit.
    with pytest.raises(AttributeError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.raw.read", lambda path: None.rows)
        run_stage("prepare", *flags("prepare"))
    Path("data/raw/mnist_784.npz").unlink()
    run_stage("prepare", *flags("prepare")).expect(1, "is missing")
    with pytest.raises(OSError, match="is missing"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEBACK", "1")
        run_stage("prepare", *flags("prepare"))


@pytest.mark.slow
def test_dvc_repro_with_bad_parameters_says_so_and_recovers(workspace: Path, run: Run) -> None:
    params = workspace / "params.yaml"
    committed = params.read_text()
    for bad, message in (
        ("epochs: null", "--epochs: 'None' is not allowed; allowed: an integer from 1 to 10000"),
        ("epochs: {a: 1}", "--epochs"),
        ("epoch: 5", "--epochs"),
    ):
        params.write_text(committed.replace("epochs: 5", bad))
        result = run(workspace, "dvc", "repro", "train", check=False)
        assert result.returncode != 0
        assert message in result.stdout
        assert "Traceback" not in result.stdout
    params.write_text(committed)
    run(workspace, "dvc", "repro")
    assert run(workspace, "git", "status", "--porcelain").stdout == ""
