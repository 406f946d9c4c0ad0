"""Damaged inputs: every stage refuses them by name, and the remedy that it prints works."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from src import raw, tensors
from tests.conftest import Run
from tests.stage_runner import IMAGES, INPUTS, LABELS, OUTPUTS, STAGES, flags, run_stage

PAIRS = [(stage, path) for stage in STAGES for path in INPUTS[stage]]
CHECKED = [(stage, path) for stage, path in PAIRS if path.endswith((".npz", ".safetensors"))]
FLIPS = 60


def outputs(stage: str) -> dict[str, bytes]:
    return {path: Path(path).read_bytes() for path in OUTPUTS[stage]}


def expect_refusal(stage: str, *parts: str) -> None:
    """Expect an error that holds the parts, and the outputs of before."""
    before = outputs(stage)
    run_stage(stage, *flags(stage)).expect(1, f"{stage}: ", *parts)
    assert outputs(stage) == before


@pytest.mark.parametrize(("stage", "path"), PAIRS)
def test_a_missing_input_is_named(stage: str, path: str, small: Path) -> None:
    Path(path).unlink()
    expect_refusal(stage, f"{path} is missing; `dvc repro` makes it")


@pytest.mark.parametrize(("stage", "path"), CHECKED)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"x" * 100,
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[::-1],
        lambda content: b"<html></html>" * 1000,
    ],
    ids=["empty", "head", "half", "short", "long", "length", "reversed", "html"],
)
def test_a_mutilated_input_is_refused(
    stage: str, path: str, damage: Callable[[bytes], bytes], small: Path
) -> None:
    Path(path).write_bytes(damage(Path(path).read_bytes()))
    before = outputs(stage)
    outcome = run_stage(stage, *flags(stage))
    if damage(b"abc") == b"abc" + b"x" * 100 and outcome.status == 0:
        assert path.endswith(".npz")  # what stands after a zip's directory is no part of it
    else:
        outcome.expect(1, f"{stage}: {path} is damaged (", "dvc repro` restores it")
    assert outputs(stage) == before


@pytest.mark.parametrize(("stage", "path"), CHECKED)
def test_a_flipped_bit_is_caught_or_changes_nothing(stage: str, path: str, small: Path) -> None:
    content = Path(path).read_bytes()
    before = outputs(stage)
    generator = random.Random(f"{stage} {path}")
    places = [generator.randrange(len(content)) for _ in range(FLIPS // 2)]
    places += [generator.randrange(200) for _ in range(FLIPS // 4)]  # the header
    places += [len(content) - 1 - generator.randrange(200) for _ in range(FLIPS // 4)]
    caught = 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.randrange(8)
        Path(path).write_bytes(flipped)
        outcome = run_stage(stage, *flags(stage))
        if outcome.status:
            outcome.expect(1, f"{stage}: {path}")
            caught += 1
        assert outputs(stage) == before
    Path(path).write_bytes(content)
    # A zip's directory has fields that nothing reads, its dates for one; nothing else may slip by.
    assert caught == len(places) if path.endswith(".safetensors") else caught > FLIPS // 2


def test_every_bit_of_the_raw_files_header_is_caught_or_changes_nothing(tmp_path: Path) -> None:
    """NumPy alone hands out other pixels for four of these bits, with no error."""
    images, labels = IMAGES[:3], LABELS[:3]
    path = tmp_path / "raw.npz"
    raw.write(str(path), images, labels)
    content = path.read_bytes()
    pixels = content.index(images.tobytes())
    caught = 0
    for place in range(pixels):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                found = raw.read(str(path))
            except OSError:
                caught += 1
            else:
                assert np.array_equal(found[0], images)
                assert np.array_equal(found[1], labels)
    assert caught > pixels


def change_raw(**changes: object) -> None:
    with np.load("data/raw/mnist_784.npz") as archive:
        arrays = dict(archive)
    arrays = {**arrays, **{name: make(arrays) for name, make in changes.items()}}
    np.savez("data/raw/mnist_784.npz", **{name: a for name, a in arrays.items() if a is not None})


def with_first(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[0] = value
    return array


RAW_CHANGES = {
    "another name": {"images": lambda a: None, "pictures": lambda a: a["images"]},
    "no labels": {"labels": lambda a: None},
    "another width": {"images": lambda a: a["images"][:, 1:]},
    "three axes": {"images": lambda a: a["images"].reshape(-1, 28, 28)},
    "labels of two axes": {"labels": lambda a: a["labels"][:, None]},
    "a single label": {"labels": lambda a: a["labels"][0]},
    "int8": {"images": lambda a: a["images"].view(np.int8)},
    "float64 with NaN": {"images": lambda a: a["images"] * np.nan},
    "float32 with infinity": {"images": lambda a: np.full(a["images"].shape, np.inf, np.float32)},
    "big-endian": {"labels": lambda a: a["labels"].astype(">i8")},
    "objects": {"labels": lambda a: a["labels"].astype(object)},
    "a label of 10": {"labels": lambda a: with_first(a["labels"], 10)},
    "more rows": {"images": lambda a: a["images"].repeat(2, axis=0)},
    "fewer rows": {"images": lambda a: a["images"][1:]},
    "no rows": {"images": lambda a: a["images"][:0], "labels": lambda a: a["labels"][:0]},
}


@pytest.mark.parametrize("name", RAW_CHANGES)
def test_raw_data_of_another_form_is_refused(name: str, small: Path) -> None:
    change_raw(**RAW_CHANGES[name])
    expect_refusal("prepare", "data/raw/mnist_784.npz is damaged (")


def test_raw_data_in_fortran_order_is_read_rightly(small: Path) -> None:
    before = outputs("prepare")
    change_raw(images=lambda a: np.asfortranarray(a["images"]))
    run_stage("prepare", *flags("prepare")).expect(0)
    assert outputs("prepare") == before


def write(path: str, arrays: dict[str, np.ndarray]) -> None:
    """Write a file with the right checksum, whatever it holds; `tensors.write` refuses NaN."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, path, metadata={"crc32": tensors.checksum(arrays)})


DATA_CHANGES = {
    "another name": lambda x, y: {"pictures": x, "labels": y},
    "one more": lambda x, y: {"images": x, "labels": y, "weights": y},
    "no labels": lambda x, y: {"images": x},
    "another width": lambda x, y: {"images": x[:, 1:], "labels": y},
    "three axes": lambda x, y: {"images": x.reshape(-1, 28, 28), "labels": y},
    "labels of two axes": lambda x, y: {"images": x, "labels": y[:, None]},
    "float64": lambda x, y: {"images": x.astype(np.float64), "labels": y},
    "int32 labels": lambda x, y: {"images": x, "labels": y.astype(np.int32)},
    "NaN": lambda x, y: {"images": with_first(x, np.nan), "labels": y},
    "infinity": lambda x, y: {"images": with_first(x, np.inf), "labels": y},
    "a pixel of 255": lambda x, y: {"images": with_first(x, 255), "labels": y},
    "a negative pixel": lambda x, y: {"images": with_first(x, -0.1), "labels": y},
    "a label of 10": lambda x, y: {"images": x, "labels": with_first(y, 10)},
    "a label of -1": lambda x, y: {"images": x, "labels": with_first(y, -1)},
    "more rows": lambda x, y: {"images": x.repeat(2, axis=0), "labels": y},
    "fewer rows": lambda x, y: {"images": x[1:], "labels": y},
    "no rows": lambda x, y: {"images": x[:0], "labels": y[:0]},
}
DATA = [(stage, path) for stage, path in CHECKED if path.startswith("data/prepared/")]


@pytest.mark.parametrize(("stage", "path"), DATA)
@pytest.mark.parametrize("name", DATA_CHANGES)
def test_prepared_data_of_another_form_is_refused(
    name: str, stage: str, path: str, small: Path
) -> None:
    arrays = load_file(path)
    write(path, DATA_CHANGES[name](arrays["images"], arrays["labels"]))
    expect_refusal(stage, path)


MODEL_CHANGES = {
    "another name": lambda w, b: {"weights": w, "bias": b},
    "no bias": lambda w, b: {"weight": w},
    "transposed": lambda w, b: {"weight": w.T, "bias": b},
    "nine classes": lambda w, b: {"weight": w[:9], "bias": b[:9]},
    "bias of two axes": lambda w, b: {"weight": w, "bias": b[None]},
    "float64": lambda w, b: {"weight": w.astype(np.float64), "bias": b},
    "float16": lambda w, b: {"weight": w.astype(np.float16), "bias": b},
    "NaN": lambda w, b: {"weight": with_first(w, np.nan), "bias": b},
    "infinity": lambda w, b: {"weight": w, "bias": with_first(b, np.inf)},
}
MODEL = "models/model.safetensors"


@pytest.mark.parametrize("stage", [stage for stage, path in CHECKED if path == MODEL])
@pytest.mark.parametrize("name", MODEL_CHANGES)
def test_a_model_of_another_form_is_refused(name: str, stage: str, small: Path) -> None:
    arrays = load_file(MODEL)
    write(MODEL, MODEL_CHANGES[name](arrays["weight"], arrays["bias"]))
    expect_refusal(stage, MODEL)


def test_a_safetensors_file_without_a_checksum_is_refused(small: Path) -> None:
    save_file(load_file(MODEL), MODEL)
    expect_refusal("evaluate", f"{MODEL} is damaged (its checksum differs)")


def flip(path: Path) -> None:
    """Flip a bit amid a file, and leave its permissions as they are."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    path.chmod(mode)


@pytest.mark.slow
def test_a_flipped_bit_in_the_folder_is_found_by_dvc_and_mended(workspace: Path, run: Run) -> None:
    path = workspace / "data" / "prepared" / "test.safetensors"
    content = path.read_bytes()
    path.unlink()  # it is a link into the cache
    path.write_bytes(content)
    flip(path)
    printed = run(workspace, "dvc", "status").stdout
    assert re.search(r"modified: +data/prepared/test.safetensors", printed)
    run(workspace, "dvc", "repro")
    assert path.read_bytes() == content
    assert run(workspace, "git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_a_flipped_bit_in_dvcs_cache_is_found_by_the_stage_and_its_remedy_works(
    workspace: Path, run: Run
) -> None:
    lock = yaml.safe_load((workspace / "dvc.lock").read_text())["stages"]["train"]
    (md5,) = (out["md5"] for out in lock["outs"] if out["path"] == MODEL)
    # A cache of its own: the workspace's is shared with other tests.
    run(workspace, "dvc", "cache", "dir", "--local", "own")
    own = workspace / "own" / "files" / "md5" / md5[:2] / md5[2:]
    own.parent.mkdir(parents=True)
    content = (workspace / MODEL).read_bytes()
    own.write_bytes(content)
    own.chmod(0o444)
    flip(own)
    (workspace / MODEL).unlink()
    run(workspace, "dvc", "checkout", MODEL)
    # DVC itself has not noticed.
    assert (workspace / MODEL).read_bytes() == own.read_bytes() != content
    assert "modified" not in run(workspace, "dvc", "status", "train").stdout
    result = run(workspace, "dvc", "repro", "--force", "--single-item", "evaluate", check=False)
    remedy = re.search(r"is damaged \(its checksum differs\); `([^`]+)` restores it", result.stdout)
    assert result.returncode
    assert remedy
    run(workspace, "sh", "-c", remedy[1])
    assert (workspace / MODEL).read_bytes() == own.read_bytes() == content
    assert run(workspace, "git", "status", "--porcelain", "--untracked=no").stdout == ""
