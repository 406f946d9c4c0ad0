"""Writing beside and renaming; and what is said of a file that cannot be read."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest

from src.common import dataset, files

pytestmark = pytest.mark.usefixtures("here")

OLD, NEW = b"before", b"after"
ROWS = np.arange(20, dtype=np.uint8).reshape(5, 1, 2, 2), np.arange(5, dtype=np.uint8)


def test_a_file_is_replaced_not_written_into_and_its_folder_made() -> None:
    for path, write in (
        ("a/b/written", lambda path: files.write(path, NEW)),
        ("a/c/raw", lambda path: dataset.write_raw(path, *ROWS)),
    ):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_bytes(OLD)
        os.link(path, "linked")  # as into DVC's cache
        write(path)
        assert Path("linked").read_bytes() == OLD != Path(path).read_bytes()
        os.unlink("linked")
    files.write("made/on/the/way", NEW)
    assert Path("made/on/the/way").read_bytes() == NEW


def fail(failure: BaseException) -> None:
    """Write half of a file, and fail."""
    with files.replacing("file") as part:
        part.write_bytes(NEW)
        assert Path("file").read_bytes() == OLD
        raise failure


@pytest.mark.parametrize("failure", [OSError(28, "full"), KeyboardInterrupt(), SystemExit(143)])
def test_what_stood_there_stands_after_any_failure(failure: BaseException, here: Path) -> None:
    files.write("file", OLD)
    with pytest.raises(type(failure)):
        fail(failure)
    assert [path.name for path in here.iterdir()] == ["file"]
    assert Path("file").read_bytes() == OLD


def test_text_is_utf_8_with_unix_line_ends_and_numbers_of_tables_have_six_decimals() -> None:
    files.write("text", "é\n")
    assert Path("text").read_bytes() == b"\xc3\xa9\n"
    files.write_json("record", {"loss": 1 / 3, "tiny": 1e-9, "count": 7, "name": "x"})
    assert Path("record").read_bytes() == (
        b'{\n  "loss": 0.3333333333333333,\n  "tiny": 1e-09,\n  "count": 7,\n  "name": "x"\n}\n'
    )
    assert files.read_json("record") == {"loss": 1 / 3, "tiny": 1e-9, "count": 7, "name": "x"}
    files.write_csv("table", ("epoch", "loss"), [(1, 1 / 3), (2, 1.0)])
    assert Path("table").read_bytes() == b"epoch,loss\n1,0.333333\n2,1.000000\n"
    assert files.read_csv("table", epoch=int, loss=float)[1] == {"epoch": 2, "loss": 1.0}


def test_a_missing_file_is_named_with_what_makes_it() -> None:
    with pytest.raises(OSError, match=r"^a/b is missing; `make repro` makes what a stage writes$"):
        files.read_json("a/b")


@pytest.mark.parametrize("path", ["models/m.json", "a b/it's.json", "a; touch x"])
def test_a_damaged_file_is_named_with_a_command_that_a_shell_reads_rightly(path: str) -> None:
    files.write(path, "{")
    with pytest.raises(OSError, match=r" is damaged \(") as refused:
        files.read_json(path)
    message = str(refused.value)
    assert message.startswith(f"{path} is damaged (Expecting property name")
    assert message.endswith("` restores it")
    command = message.split("`")[1]
    assert shlex.split(command) == ["make", "restore", f"FILE={path}"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "5", "{", '{"a": 1', "[" * 10_000, "\udcff"],
    ids=["empty", "list", "number", "brace", "short", "deep", "latin"],
)
def test_what_is_no_record_is_damaged(content: str) -> None:
    Path("record").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(OSError, match=r"^record is damaged \(.+\); `make restore FILE=record`"):
        files.read_json("record")


@pytest.mark.parametrize("mistake", [NameError, AttributeError, TypeError, AssertionError])
def test_a_mistake_in_the_code_is_not_called_damage(mistake: type[Exception]) -> None:
    files.write("whole", "{}")
    with pytest.raises(mistake, match="somebody"), files.reading("whole"):
        raise mistake("somebody's")


def test_a_file_of_another_form_is_named_with_the_one_that_is_expected() -> None:
    files.write("other", "[]")
    with pytest.raises(OSError, match=r"^other is damaged \(expected names and values\); "):
        files.read_json("other")
    for record in ("{}", '{"shape": "5"}'):
        files.write("other", record)
        with pytest.raises(OSError, match=r"^other is damaged \(expected shape: list\); "):
            files.read_json("other", shape=list)
    with pytest.raises(OSError, match=r"^other is damaged \(expected rows of epoch, loss\); "):
        files.read_csv("other", epoch=int, loss=float)


@pytest.mark.parametrize(
    "content",
    ["", "epoch,loss\n", "epoch\n1\n", "loss,epoch\n1,2\n"]
    + [f"epoch,loss\n{row}\n" for row in ("1", "1,2,3", "1.5,2", "1,")],
)
def test_what_is_no_such_table_is_damaged(content: str) -> None:
    Path("table").write_text(content, encoding="utf-8")
    with pytest.raises(OSError, match=r"^table is damaged \(.+\); `make restore FILE=table`"):
        files.read_csv("table", epoch=int, loss=float)
