"""A folder of one's own: what is read of pictures and CSV files, and what is said of bad ones."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.common import command, dataset
from src.sources import folder
from tests.support.stages import parameters, run_stage

pytestmark = pytest.mark.usefixtures("here")

generator = np.random.default_rng(0)
COLOUR = generator.integers(0, 256, (6, 4, 3), np.uint8)
GREY = generator.integers(0, 256, (6, 4), np.uint8)


def put(path: str, pixels: np.ndarray | Image.Image = COLOUR, **options: object) -> Path:
    """Save a picture."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return Path(path)


def refused(*lines: str, size: list[int] | None = None) -> None:
    """Expect these lines as the error of reading `mine`; each may be the start of its own."""
    with pytest.raises(command.UsageError) as caught:
        folder.fetch("mine", size)
    found = str(caught.value).splitlines()
    assert len(found) == len(lines), found
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith(expected), line


def test_pictures_come_with_the_names_of_their_folders() -> None:
    pictures = {}
    for name, count in {"dog": 5, "つ": 3, "Ankle boot": 7}.items():
        for number in range(count):
            pixels = generator.integers(0, 256, (6, 4, 3), np.uint8)
            pictures[pixels.tobytes()] = name
            put(f"mine/{name}/{number}.png", pixels)
    for foreign in ("mine/.DS_Store", "mine/dog/.hidden", "mine/dog/Thumbs.db", "mine/README.md"):
        Path(foreign).touch()
    images, labels, names = folder.fetch("mine", None)[:3]
    assert names == ("Ankle boot", "dog", "つ")
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (15, 3, 6, 4)
    found = {
        image.transpose(1, 2, 0).tobytes(): names[label]
        for image, label in zip(images, labels, strict=True)
    }
    assert found == pictures
    again = folder.fetch("mine", None, dataset.sha256(images, labels))
    assert np.array_equal(again.images, images)
    with pytest.raises(dataset.WrongContentError, match="not the pinned one"):
        folder.fetch("mine", None, "0" * 64)


def test_every_range_of_rows_has_its_share_of_every_class() -> None:
    for name, count in {"a": 60, "b": 30, "c": 10}.items():
        for number in range(count):
            put(f"mine/{name}/{number}.png", GREY[:1, :1] * 0 + np.uint8(number))
    images, labels = folder.fetch("mine", None)[:2]
    for start in range(0, 100, 20):
        counts = np.bincount(labels[start : start + 20], minlength=3)
        assert np.abs(counts - [12, 6, 2]).max() <= 2
    order = images[labels == 0].ravel().tolist()
    assert sorted(order) == list(range(60)) != order


def test_numbers_as_names_are_in_their_order() -> None:
    for name in ("10", "9", "0"):
        put(f"mine/{name}/a.png")
    assert folder.fetch("mine", None).names == ("0", "9", "10")


def test_grey_pictures_have_one_channel_and_a_mixture_has_three() -> None:
    put("mine/a/1.png", GREY)
    put("mine/b/1.bmp", GREY)
    put("mine/b/2.png", np.dstack([GREY, np.full_like(GREY, 255)]))
    images = folder.fetch("mine", None).images
    assert images.shape == (3, 1, 6, 4)
    assert (images == GREY).all()
    put("mine/b/3.png", COLOUR)
    images = folder.fetch("mine", None).images
    assert images.shape == (4, 3, 6, 4)
    are_grey = [(image == GREY).all() for image in images]
    assert sorted(are_grey) == [False, True, True, True]


def test_pictures_are_resized_as_pillow_does_it_and_in_height_and_width() -> None:
    put("mine/a/1.png", generator.integers(0, 256, (40, 30, 3), np.uint8))
    put("mine/b/1.png", generator.integers(0, 256, (20, 50, 3), np.uint8))
    refused("fetch.size: must be [height, width], as mine/a/1.png is 40 x 30 and mine/b/1.png is")
    images, labels = folder.fetch("mine", [12, 10])[:2]
    assert images.shape == (2, 3, 12, 10)
    for image, label in zip(images, labels, strict=True):
        with Image.open(f"mine/{'ab'[label]}/1.png") as original:
            expected = np.asarray(original.resize((10, 12), Image.Resampling.BILINEAR))
        assert np.array_equal(image.transpose(1, 2, 0), expected)


SIDEWAYS = {  # EXIF's orientations: what undoes them, in NumPy's words
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("turn", [*SIDEWAYS, 0, 9, 65535])
def test_turned_pictures_stand_upright(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    expected = SIDEWAYS.get(turn, SIDEWAYS[1])(COLOUR)
    assert np.array_equal(folder.read_picture(put("a.png", exif=exif)), expected)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"\xff" * 40])
def test_an_odd_exif_block_is_no_fault(exif: bytes) -> None:
    assert np.array_equal(folder.read_picture(put("a.png", exif=exif)), COLOUR)


def test_transparent_pictures_lie_on_white_and_other_modes_are_read() -> None:
    alpha = np.where(np.arange(24).reshape(6, 4) % 3, 255, 0).astype(np.uint8)
    # A palette in which one entry is transparent, as GIF and small PNGs have it.
    places = (np.arange(24) % 3).reshape(6, 4)
    palette = Image.fromarray(places.astype(np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    deep = generator.integers(0, 65536, (6, 4)).astype(np.uint16)
    ink = np.zeros((6, 4, 4), np.uint8)
    ink[:3, :, 1:3] = 255  # magenta and yellow are red
    red = np.where(ink.any(axis=2, keepdims=True), [255, 0, 0], 255)
    pictures = {
        "transparent.png": (np.dstack([COLOUR, alpha]), np.where(alpha[..., None], COLOUR, 255)),
        "palette.png": (palette, np.array([[10, 20, 30], [255] * 3, [70, 80, 90]])[places]),
        "deep.png": (deep, np.rint(deep / 257)),
        "low.png": (GREY.astype(np.uint16), GREY),
        "bits.png": (GREY > 100, np.where(GREY > 100, 255, 0)),
        "grey.gif": (Image.fromarray(GREY).convert("P"), GREY),
        "ink.tif": (Image.fromarray(ink, "CMYK"), red),
    }
    for name, (picture, expected) in pictures.items():
        options = {"transparency": 1} if name == "palette.png" else {}
        found = folder.read_picture(put(name, picture, **options))
        assert np.array_equal(found, expected), name


def test_all_unreadable_files_are_listed_at_once() -> None:
    whole = put("mine/a/1.png").read_bytes()
    put("mine/b/1.png")
    Path("mine/a/cut.png").write_bytes(whole[: len(whole) // 2])
    Path("mine/a/notes.txt").write_text("notes", encoding="utf-8")
    Path("mine/b/empty.jpg").touch()
    Path("mine/b/folder").mkdir()
    Path("mine/c").mkdir()
    frames = [Image.fromarray(frame) for frame in (GREY, GREY.T.reshape(6, 4))]
    frames[0].save("mine/b/moves.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(GREY.astype(np.float32)).save("mine/b/real.tif")
    refused(
        "mine/a/cut.png: cannot be read: ",
        "mine/a/notes.txt: is no picture that Pillow reads",
        "mine/b/empty.jpg: is no picture that Pillow reads",
        "mine/b/folder: is a folder, and the folder of a class holds pictures only",
        "mine/b/moves.gif: has 2 frames, and one is allowed",
        "mine/b/real.tif: has pixels that are fractions, and bytes are allowed",
        "mine/c: holds no pictures",
    )
    for number in range(30):
        Path(f"mine/a/{number:02}.png").write_bytes(b"")
    refused(*(f"mine/a/{number:02}.png: is no" for number in range(20)), "... and 17 more")


def test_a_folder_that_is_no_folder_of_classes_is_refused() -> None:
    refused("fetch.folder: must be a folder that can be read: No such file or directory (given: 'm")
    Path("mine").touch()
    refused("fetch.folder: must be a folder that can be read: Not a directory")
    Path("mine").unlink()
    Path("mine").mkdir()
    either = "fetch.folder: must hold either a subfolder of pictures for each class, or CSV files"
    refused(either)
    put("mine/a.png")
    refused(either)
    put("mine/one/a.png")
    refused("fetch.folder: must hold 2 to 1,000 classes, and holds one class, one (given: 'mine')")
    write("mine/b.csv", [[0, 1], [1, 2]])
    refused(either)
    shutil.rmtree("mine")
    put("mine/one/a.png")
    put("mine/two\nlines/a.png")
    refused("fetch.folder: the names of the classes must be different lines of text")


def write(path: str, rows: list[list[object]], encoding: str = "utf-8") -> None:
    Path(path).parent.mkdir(exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(rows)


ROWS = [[name, *range(value, value + 4)] for name, value in (("cat", 0), ("dog", 252), ("cat", 9))]
PIXELS = np.array([row[1:] for row in ROWS], np.uint8).reshape(3, 1, 1, 4)


@pytest.mark.parametrize(
    "header", [[], ["Label", "a", "b", "c", "d"], ["label", 0, 1, 2, 3], "last"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_files_are_read_with_and_without_a_header(header: list | str, encoding: str) -> None:
    rows = [header, *ROWS] if header else ROWS
    if header == "last":
        rows = [["a", "b", "c", "d", "class"], *(row[1:] + row[:1] for row in ROWS)]
    write("mine/b.csv", [*rows, []], encoding)
    images, labels, names = folder.fetch("mine", None)[:3]
    assert np.array_equal(images, PIXELS)
    assert labels.tolist() == [0, 1, 0]
    assert names == ("cat", "dog")
    write("mine/a.CSV", [[10, "00", " 7", "7.0", 255], [9, 0, 0, 0, 0]])
    images, labels, names = folder.fetch("mine", None)[:3]
    assert images[0].ravel().tolist() == [0, 7, 7, 255]
    assert names == ("9", "10", "cat", "dog")
    assert labels.tolist() == [1, 0, 2, 3, 2]


def test_faulty_cells_are_named() -> None:
    byte = "expected a whole number from 0 to 255, found"
    write(
        "mine/a.csv",
        [["label", "p1", "p2"], ["cat", 1, ""], ["", 1, 2], ["dog", 256, "x"], ["dog", 1]],
    )
    write("mine/b.csv", [["cat", 0, 1], ["dog", -1, 0.5], ["dog", "1_0", "nan"]])
    refused(
        f"mine/a.csv, line 2, p2: {byte} nothing",
        "mine/a.csv, line 3, label: a label is missing",
        f"mine/a.csv, line 4, p1: {byte} '256'",
        f"mine/a.csv, line 4, p2: {byte} 'x'",
        "mine/a.csv, line 5: has 2 columns, expected 3",
        f"mine/b.csv, line 2, pixel 1: {byte} '-1'",
        f"mine/b.csv, line 2, pixel 2: {byte} '0.5'",
        f"mine/b.csv, line 3, pixel 1: {byte} '1_0'",
        f"mine/b.csv, line 3, pixel 2: {byte} 'nan'",
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "mine/a.csv: holds no rows"),
        (b"label,a,b\n", "mine/a.csv: holds no rows"),
        (b"0;1;2\n", "mine/a.csv: expected a label and pixels, with commas between"),
        (b"digit,a,b\n0,1,2\n", "mine/a.csv: line 1 must be a header with one column called label"),
        (b"0,1,2,3,4\n", "mine/a.csv: line 1 counts the columns; a header must have one"),
        (b"0,1,2,cat\n", "mine/a.csv: line 1 must be a header with one column called label or"),
        (b"label,class,a\n0,1,2\n", "mine/a.csv: line 1 must be a header with one column called"),
        (b"0,1,2\n\xff\xfe,1,2\n", "mine/a.csv: 'utf-8' codec can't decode"),
        (b"0,1,2\n0,3,4\n", "fetch.folder: must hold 2 to 1,000 classes, and holds one class, 0"),
    ],
)
def test_files_that_are_no_tables_are_refused(content: bytes, line: str) -> None:
    Path("mine").mkdir()
    Path("mine/a.csv").write_bytes(content)
    refused(line)


def test_csv_files_of_other_widths_and_a_size_are_refused() -> None:
    write("mine/a.csv", [[0, 1, 2], [1, 2, 3]])
    write("mine/b.csv", [[0, 1]])
    refused("mine/b.csv: has 1 pixels a row, and mine/a.csv 2")
    refused("fetch.size: must be null for CSV files (given: [2, 2])", size=[2, 2])


def test_faults_of_the_folder_end_the_stage_with_status_2() -> None:
    Path("mine").mkdir()
    parameters(**{"fetch.sources": ["folder", "openml"], "fetch.folder": "mine"})
    run_stage("fetch").expect(2, "fetch: fetch.folder: must hold either")
