"""The user's own pictures: a folder with a subfolder of pictures for each class, or CSV files."""

import csv
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from src.common.command import UsageError
from src.common.dataset import MAX_CLASSES, Dataset, check, label_type
from src.common.parameters import ParameterError

SEED = 777  # of the order of the pictures
LISTED = 20  # faults, a line each
# What file managers and Git leave in folders; so do names that start with a point.
FOREIGN = ("thumbs.db", "desktop.ini")
LABELS = ("label", "class", "target")  # names of the column that holds the labels
BYTES = {str(value): value for value in range(256)}
MAY_BE_GREY = ("1", "L", "LA", "La", "P", "PA")  # Pillow's modes
DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")
ORIENTATION = 0x0112  # a tag of EXIF
UPRIGHT = {  # what undoes each of its values
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def fetch(folder: str, size: Sequence[int] | None, sha256: str | None = None) -> Dataset:
    """Read a folder of the user's.

    Args:
        folder: holds a subfolder for each class, its name the class's, with pictures that Pillow
            reads; or CSV files: a column of labels, and columns of pixels from 0 to 255.
        size: height and width that pictures are resized to; None: all must have one size.
        sha256: pinned digest of the content (see `common.dataset.sha256`), or None.

    Returns:
        images uint8 (N, C, H, W), with one channel if all pictures are grey and else three, in an
        order that mixes the classes evenly; of CSV files (N, 1, 1, D), in the order of the files'
        names and their rows. labels uint8 or uint16 (N,), places in names.

    Raises:
        UsageError: what is wrong with the folder, a line for each fault.
        WrongContentError: other content than the pinned.
    """
    with _mistakes():
        try:
            entries = sorted(_visible(folder), key=lambda entry: entry.name)
        except OSError as error:
            allowed = f"must be a folder that can be read: {error.strerror}"
            raise ParameterError("fetch.folder", allowed, folder) from error
        classes = [Path(entry) for entry in entries if entry.is_dir()]
        tables = [Path(entry) for entry in entries if entry.name.lower().endswith(".csv")]
        if bool(classes) == bool(tables):
            allowed = "must hold either a subfolder of pictures for each class, or CSV files"
            raise ParameterError("fetch.folder", allowed, folder)
        if tables and size:
            raise ParameterError("fetch.size", "must be null for CSV files", size)
        images, cells = _tables(tables) if tables else _pictures(classes, size)
        names = sorted(set(cells), key=_order)
        if not 1 < len(names) <= MAX_CLASSES:
            have = f"{len(names):,} classes" if len(names) > 1 else f"one class, {names[0]}"
            allowed = f"must hold 2 to {MAX_CLASSES:,} classes, and holds {have}"
            raise ParameterError("fetch.folder", allowed, folder)
        places = {name: place for place, name in enumerate(names)}
        labels = np.array([places[cell] for cell in cells], label_type(len(names)))
        if not tables:
            order = _mixed(labels)
            images, labels = images[order], labels[order]
        found = Dataset(images, labels, tuple(names), from_pictures=not tables)
        check(found, sha256)
    return found


@contextmanager
def _mistakes() -> Iterator[None]:
    """Say of what `check` finds, as in a name with a line's end, that it is the user's to mend."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"fetch.folder: {error}") from error


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [e for e in entries if e.name[0] != "." and e.name.lower() not in FOREIGN]


def _order(name: str) -> tuple[float, str]:
    """Order numbers by their value, and before texts."""
    return (int(name) if name.isdecimal() else float("inf"), name)


def _mixed(labels: np.ndarray) -> np.ndarray:
    """Return an order in which each range of rows has its share of every class, (N,)."""
    generator = np.random.default_rng(SEED)
    places = np.empty(len(labels))
    for label in range(int(labels.max()) + 1):
        (rows,) = np.nonzero(labels == label)
        steps = np.arange(len(rows)) + generator.random(len(rows))
        places[generator.permutation(rows)] = steps / len(rows)
    return np.argsort(places, kind="stable")


def _refuse(faults: list[str]) -> None:
    if faults:
        more = [f"... and {len(faults) - LISTED:,} more"] if len(faults) > LISTED else []
        raise UsageError("\n".join(faults[:LISTED] + more))


def _pictures(folders: list[Path], size: Sequence[int] | None) -> tuple[np.ndarray, list[str]]:
    """Read the pictures of all classes: images (N, C, H, W), and the name of each one's class."""
    pictures, faults = {}, []
    for folder in folders:
        try:
            paths = sorted(Path(entry) for entry in _visible(folder))
        except OSError as error:
            faults.append(f"{folder}: cannot be read: {error.strerror}")
            continue
        if not paths:
            faults.append(f"{folder}: holds no pictures")
        for path in paths:
            try:
                pictures[path] = read_picture(path, size)
            except ValueError as error:
                faults.append(f"{path}: {error}")
    _refuse(faults)
    first = next(iter(pictures))
    for path in pictures:
        one, other = ("{} x {}".format(*pictures[key].shape[:2]) for key in (first, path))
        if one != other:
            allowed = f"must be [height, width], as {first} is {one} and {path} is {other}"
            raise ParameterError("fetch.size", allowed, size)
    if any(picture.ndim == 3 for picture in pictures.values()):
        images = np.stack([_three_channels(picture) for picture in pictures.values()])
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    else:
        images = np.stack(list(pictures.values()))[:, None]
    return images, [path.parent.name for path in pictures]


def _three_channels(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is no picture that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return f"has too many pixels; {2 * (Image.MAX_IMAGE_PIXELS or 0):,} are allowed"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}"[:300]


def read_picture(path: Path, size: Sequence[int] | None = None) -> np.ndarray:
    """Read one picture that must be alone in its file; as `read_first` otherwise."""
    picture, frames = read_first(path, size)
    if frames > 1:
        raise ValueError(f"has {frames} frames, and one is allowed")
    return picture


def read_first(path: Path, size: Sequence[int] | None = None) -> tuple[np.ndarray, int]:
    """Read the first picture of a file, upright, on white where it is transparent.

    Args:
        path: of the file.
        size: height and width that it is scaled to; as it is if None.

    Returns:
        uint8 (H, W) if it is grey, else (H, W, 3); and how many pictures the file has.

    Raises:
        ValueError: it cannot be read, or has pixels of no such kind; says so without the path.
    """
    if path.is_dir():
        raise ValueError("is a folder, and the folder of a class holds pictures only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd EXIF
        try:
            image, frames, turn = _load(path)
        except Exception as error:  # arbitrary bytes make Pillow raise almost anything
            raise ValueError(_reason(error)) from error
        picture = _grey_or_colour(image)
        if turn in UPRIGHT:
            picture = picture.transpose(UPRIGHT[turn])
        if size:
            # Of Pillow's smooth filters the one that needs no sine: whole numbers, the same bytes.
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.array(picture), frames


def _load(path: Path) -> tuple[Image.Image, int, int]:
    """Return a picture with its number of frames and its orientation; raises almost anything."""
    with Image.open(path) as image:
        # A phone's MPO is a photograph with others behind it.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.load()
        return image, frames, orientation(image)


def orientation(picture: Image.Image) -> int:
    """Return what a camera wrote about how it was held: 1 to 8, or 1 if that cannot be read.

    The rest of the EXIF is left alone: editors and telephones write much that is wrong.
    """
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # arbitrary bytes make Pillow raise almost anything
        return 1


def _grey_or_colour(image: Image.Image) -> Image.Image:
    """Return a picture of mode L or RGB."""
    if image.mode in DEEP_GREY:
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("has pixels of more than 16 bits")
        if levels.max() > 255:  # else they are bytes, written as 16 bits
            levels = (levels + 128) // 257
        return Image.fromarray(levels.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("has pixels that are fractions, and bytes are allowed")
    colour = image
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        colour = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
    colour = colour.convert("RGB")
    channels = np.asarray(colour)
    # What has a mode for colour has colour, even if these pixels are grey.
    if image.mode in MAY_BE_GREY and (channels == channels[:, :, :1]).all():
        return colour.getchannel(0)
    return colour


def _tables(paths: list[Path]) -> tuple[np.ndarray, list[str]]:
    """Read CSV files: images (N, 1, 1, D) and the cell of each row's label."""
    rows: list[np.ndarray] = []
    labels: list[str] = []
    faults: list[str] = []
    for path in paths:
        try:
            for label, pixels in _table(path, faults):
                labels.append(label)
                rows.append(pixels)
                if len(pixels) != len(rows[0]):
                    wide = f"has {len(pixels):,} pixels a row, and {paths[0]} {len(rows[0]):,}"
                    raise ValueError(wide)
        except OSError as error:
            faults.append(f"{path}: cannot be read: {error.strerror}")
        except (ValueError, csv.Error) as error:  # no text, or no table
            faults.append(f"{path}: {error}")
    if not rows and not faults:
        faults.append(f"{paths[0]}: holds no rows")
    _refuse(faults)
    return np.stack(rows)[:, None, None], labels


def _table(path: Path, faults: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the label and the pixels of each sound row; add the others' faults to the list."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        names, column = None, 0
        for cells in reader:
            if not any(cells):  # an empty line
                continue
            where = f"{path}, line {reader.line_num}"
            if names is None:
                names, column = _columns(cells)
                if names == [cell.strip() for cell in cells]:
                    continue
            if len(cells) != len(names):
                faults.append(f"{where}: has {len(cells):,} columns, expected {len(names):,}")
                continue
            wrong = _faulty(where, cells, names, column)
            faults += wrong
            if not wrong:
                label = cells.pop(column).strip()
                yield label, np.array([_byte(cell) for cell in cells], np.uint8)


def _columns(cells: list[str]) -> tuple[list[str], int]:
    """Return the columns' names, of a first line that may be a header, and the label's place."""
    if len(cells) == 1:
        raise ValueError("expected a label and pixels, with commas between")
    names = [cell.strip() for cell in cells]
    counted = [[str(place + first) for place in range(len(names))] for first in (0, 1)]
    if len(names) > 4 and names in counted:
        raise ValueError("line 1 counts the columns; a header must have one called label")
    known = [place for place, name in enumerate(names) if name.lower() in LABELS]
    if not known and all(_byte(cell) is not None or not cell.strip() for cell in cells[1:]):
        return ["label", *(f"pixel {place}" for place in range(1, len(cells)))], 0
    if len(known) != 1:
        raise ValueError(
            f"line 1 must be a header with one column called {' or '.join(LABELS)}, or "
            "a label and pixels from 0 to 255"
        )
    return names, known[0]


def _byte(cell: str) -> int | None:
    """Return the whole number from 0 to 255 that a cell holds, or None."""
    if (value := BYTES.get(cell)) is not None:
        return value
    match = re.fullmatch(r"\s*0*(\d{1,3})(\.0*)?\s*", cell, re.ASCII)
    return BYTES.get(match[1]) if match else None


def _faulty(where: str, cells: list[str], names: list[str], column: int) -> list[str]:
    """Name the cells that are no bytes, and a label that is missing."""
    faults = []
    for place, cell in enumerate(cells):
        if cell in BYTES and place != column:
            continue
        if place == column and not cell.strip():
            faults.append(f"{where}, {names[place]}: a label is missing")
        elif place != column and _byte(cell) is None:
            found = repr(cell[:20]) if cell.strip() else "nothing"
            allowed = "expected a whole number from 0 to 255"
            faults.append(f"{where}, {names[place]}: {allowed}, found {found}")
    return faults
