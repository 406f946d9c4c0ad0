"""No stage executes anything that it finds in data, models or parameters."""

import ast
import contextlib
import gzip
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from src import dataset, raw, records, softmax_regression, tensors, wheel
from tests.conftest import REPOSITORY, Run
from tests.mnist_wheel import pickled_array, pickled_data
from tests.stage_runner import IMAGES, LABELS
from tools import handwriting

CODE = [*(REPOSITORY / "src").glob("*.py"), *(REPOSITORY / "stages").glob("*.py")]


class Exploit:
    """Pickles into a call that leaves a file."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def valid_files(folder: Path) -> dict[str, bytes]:
    """Return a sound file for each reader."""
    images, labels = IMAGES[:5], LABELS[:5]
    raw.write(str(folder / "raw"), images, labels)
    tensors.write(
        str(folder / "data"), images=images.astype(np.float32) / 255, labels=labels.astype(np.int64)
    )
    tensors.write(
        str(folder / "model"), weight=np.zeros((10, 784), np.float32), bias=np.zeros(10, np.float32)
    )
    names = ("raw", "data", "model")
    files = {name: (folder / name).read_bytes() for name in names}
    return files | {"pickle": pickled_data(images, labels)}


READERS = {
    "raw": raw.read,
    "data": dataset.read,
    "model": softmax_regression.load,
    "record": records.read_json,
    "table": lambda path: records.read_csv(path, epoch=int, split=str, loss=float, accuracy=float),
    "picture": handwriting.read,
    "pickle": lambda path: wheel.read(io.BytesIO(Path(path).read_bytes())),
}


def read_or_refuse(reader: str, content: bytes, folder: Path) -> object:
    """Return what the reader makes of the bytes; only an OSError may come instead."""
    path = folder / f"{reader}.file"
    path.write_bytes(content)
    with contextlib.suppress(OSError):
        return READERS[reader](str(path))
    return None


def quickly(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
@quickly(150)
@given(content=st.binary(max_size=300))
@example(content=pickle.dumps(Exploit()))
@example(content=b"\x93NUMPY\x01\x00")
@example(content=struct.pack("<Q", 2**63) + b"{}")
@example(content=struct.pack("<Q", 2) + b"{}")
@example(content=npz(images=pickle.dumps(Exploit()), labels=b""))
@example(content=npz(images=npy(np.array([Exploit()])), labels=npy(LABELS)))
@example(content=gzip.compress(pickle.dumps(Exploit())))
@example(content=b"[" * 100_000)
@example(content=b"[[1, 2]]")
def test_arbitrary_bytes_are_refused_by_every_reader(
    reader: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = read_or_refuse(reader, content, tmp_path)
    assert found is None or reader == "record"  # {} is one
    assert not Path("executed").exists()


# The others have no checksum of their own; the hash that DVC holds stands for them.
@pytest.mark.parametrize("reader", ["raw", "data", "model", "pickle"])
@pytest.mark.filterwarnings("ignore")
@quickly(150)
@given(data=st.data())
def test_sound_files_with_bytes_replaced_give_the_sound_content_or_an_error(
    reader: str, data: st.DataObject, tmp_path: Path
) -> None:
    sound = valid_files(tmp_path)[reader]
    at = data.draw(st.one_of(st.integers(0, min(400, len(sound))), st.integers(0, len(sound))))
    new = data.draw(st.binary(min_size=1, max_size=20))
    removed = data.draw(st.integers(0, 20))
    found = read_or_refuse(reader, sound[:at] + new + sound[at + removed :], tmp_path)
    if found is not None and reader != "pickle":  # the pickle has the pinned hash behind it
        expected = read_or_refuse(reader, sound, tmp_path)
        for left, right in zip(found, expected, strict=True):
            assert np.array_equal(left, right)


@pytest.mark.parametrize(
    "array", [np.array([Exploit()]), np.array([{"a": Exploit()}], dtype=object)]
)
def test_pickled_objects_in_the_raw_file_are_not_unpickled(
    array: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw.npz").write_bytes(npz(images=npy(array), labels=npy(LABELS)))
    with pytest.raises(OSError, match=r"raw\.npz is damaged"):
        raw.read("raw.npz")
    assert not Path("executed").exists()
    with np.load("raw.npz", allow_pickle=True) as archive:  # it would have done harm
        archive["images"]
    assert Path("executed").exists()


def test_a_pickle_may_name_the_three_globals_only() -> None:
    for name in ("numpy\nload", "numpy.core.multiarray\nscalar", "os\nsystem", "src.wheel\nfetch"):
        with pytest.raises(OSError, match="is not admitted"):
            wheel.read(io.BytesIO(b"c" + name.encode() + b"\n."))
    assert pickled_array(LABELS.astype("<i8")).count(b"\nc") == 0


@pytest.mark.parametrize("path", CODE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_code_can_execute_text(path: Path) -> None:
    """`pickle` is for the restricted reader alone; `subprocess` takes lists, without a shell."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
            assert name not in ("pickle.load", "pickle.loads", "torch.load", "yaml.load")
            shell = [word.value for word in node.keywords if word.arg == "shell"]
            assert not shell
            if name == "np.load":
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert keywords.get("allow_pickle") == "False"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert "pickle" not in names or path.name == "wheel.py"
            assert not names & {"shelve", "marshal", "joblib", "dill", "importlib"}


@pytest.mark.slow
def test_a_shell_command_in_a_parameter_is_not_run(workspace: Path, run: Run) -> None:
    for value in ("'cpu; touch x'", "'cpu$(touch x)'", "'cpu`touch x`'", "'cpu\" & touch x #'"):
        result = run(
            workspace, "dvc", "exp", "run", "-S", f"train.device={value}", "train", check=False
        )
        assert result.returncode
        assert "is not allowed; allowed: cpu, cuda, cuda:N, mps or auto" in result.stdout
        assert not (workspace / "x").exists()
    # Hydra, by which DVC reads -S, refuses it without quotes.
    result = run(workspace, "dvc", "exp", "run", "-S", "train.device=cpu; touch x", check=False)
    assert result.returncode
    assert not (workspace / "x").exists()
