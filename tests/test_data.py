"""Labelled images on disk: whatever was changed in them is refused, or changes nothing."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from src.common import dataset, tensors

generator = np.random.default_rng(0)
IMAGES = generator.integers(0, 256, (6, 7), np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0], np.uint8)
PIXELS = (np.rint(IMAGES / 255 * 65536) / 65536).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_digest_is_of_the_images_bytes_row_by_row_then_the_labels() -> None:
    expected = hashlib.sha256(IMAGES.tobytes() + LABELS.tobytes()).hexdigest()
    for images in (IMAGES, np.asfortranarray(IMAGES), np.repeat(IMAGES, 2, axis=0)[::2]):
        assert dataset.sha256(images, LABELS) == expected


def test_raw_data_come_back_and_the_same_content_gives_the_same_bytes() -> None:
    dataset.write_raw("a", IMAGES, LABELS)
    dataset.write_raw("b", IMAGES.copy(), LABELS.copy())
    assert Path("a").read_bytes() == Path("b").read_bytes()
    dataset.write_raw("c", np.asfortranarray(IMAGES), LABELS)
    for path in ("a", "c"):
        images, labels = dataset.read_raw(path)
        assert np.array_equal(images, IMAGES)
        assert np.array_equal(labels, LABELS)


def test_the_pinned_digest_is_told_with_the_one_found() -> None:
    dataset.check(IMAGES, LABELS, dataset.sha256(IMAGES, LABELS))
    found = dataset.sha256(IMAGES, LABELS)
    with pytest.raises(
        dataset.WrongContentError, match=f"sha256 is {found}, fetch.sha256 is {'0' * 64};"
    ):
        dataset.check(IMAGES, LABELS, "0" * 64)


FORM = r"expected images uint8 \(N, D\) and labels uint8 \(N,\)"


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (IMAGES[:, :4].reshape(6, 2, 2), LABELS, FORM),
        (IMAGES, LABELS[:, None], FORM),
        (IMAGES, LABELS[0], FORM),
        (IMAGES.view(np.int8), LABELS, FORM),
        (IMAGES * np.nan, LABELS, FORM),
        (IMAGES, LABELS.astype(np.int64), FORM),
        (IMAGES[1:], LABELS, FORM),
        (IMAGES, LABELS[1:], FORM),
        (IMAGES[:0], LABELS[:0], FORM),
        (IMAGES[:, :0], LABELS, FORM),
        (IMAGES, LABELS + np.uint8(1), "expected labels from 0 on, found 1 to 3"),
    ],
)
def test_raw_data_of_another_form_are_refused(
    images: np.ndarray, labels: np.ndarray, reason: str
) -> None:
    tensors.write("raw", {"images": images, "labels": labels})
    with pytest.raises(OSError, match=rf"^raw is damaged \({reason}.*; `make restore FILE=raw`"):
        dataset.read_raw("raw")


@pytest.mark.parametrize("names", [("images",), ("images", "classes"), ("pictures", "labels")])
def test_raw_data_of_other_names_are_refused(names: tuple[str, ...]) -> None:
    tensors.write("raw", dict(zip(names, (IMAGES, LABELS), strict=False)))
    with pytest.raises(OSError, match=r"^raw is damaged"):
        dataset.read_raw("raw")


def write_prepared(images: np.ndarray, labels: np.ndarray, **more: np.ndarray) -> None:
    tensors.write("data.safetensors", {"images": images, "labels": labels} | more)


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_prepared_data_come_back(framework: str) -> None:
    write_prepared(PIXELS, LABELS.astype(np.int64))
    images, labels = dataset.read("data.safetensors", framework)
    assert np.array_equal(np.asarray(images), PIXELS)
    assert np.array_equal(np.asarray(labels), LABELS)


def with_first(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, y: (x[:, :4].reshape(6, 2, 2), y), r"found float32 .*6, 2, 2.* and int64 "),
        (lambda x, y: (x, y[:, None]), r"found float32 .*6, 7.* and int64 .*6, 1"),
        (lambda x, y: (x.astype(np.float64), y), "found float64 .*6, 7.* and int64 "),
        (lambda x, y: (x, y.astype(np.int32)), "found float32 .*6, 7.* and int32 "),
        (lambda x, y: (x[1:], y), "found float32 .*5, 7.* and int64 .*6"),
        (lambda x, y: (x[:0], y[:0]), "zero-size"),
        (lambda x, y: (x, with_first(y, -1)), "found a label of -1"),
        *(
            (lambda x, y, value=value: (with_first(x, value), y), "pixels must be multiples")
            for value in (np.nan, np.inf, 255, -(2**-16), 1 + 2**-16, 0.1, 2**-17)
        ),
    ],
)
@pytest.mark.parametrize("framework", ["pt", "np"])
def test_prepared_data_come_back_and_those_of_another_form_are_refused(
    framework: str, change: Callable[..., tuple[np.ndarray, np.ndarray]], reason: str
) -> None:
    sound = PIXELS, LABELS.astype(np.int64)
    write_prepared(*sound)
    for found, expected in zip(dataset.read("data.safetensors", framework), sound, strict=True):
        assert np.array_equal(np.asarray(found), expected)
    write_prepared(*change(*sound))
    with pytest.raises(OSError, match=rf"^data\.safetensors is damaged \({reason}.*`make restore"):
        dataset.read("data.safetensors", framework)


def test_pixels_are_checked_to_the_last_row() -> None:
    images, labels = np.zeros((3001, 4), np.float32), np.zeros(3001, np.int64)
    images[3000] = 0, 2**-16, 1 - 2**-16, 1
    write_prepared(images, labels)
    dataset.read("data.safetensors")
    for row in (0, 1000, 2999, 3000):
        rows = np.arange(3001)[:, None]
        write_prepared(np.where(rows == row, np.float32(0.3), images), labels)
        with pytest.raises(OSError, match=r"\(pixels must be multiples of 2\^-16 from 0 to 1\)"):
            dataset.read("data.safetensors")


def flip(content: bytes, place: int, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[place] ^= 1 << bit
    return bytes(flipped)


def test_every_bit_of_raw_and_prepared_data_is_caught() -> None:
    dataset.write_raw("raw.safetensors", IMAGES, LABELS)
    write_prepared(PIXELS, LABELS.astype(np.int64))
    for path, read in (("raw.safetensors", dataset.read_raw), ("data.safetensors", dataset.read)):
        content = Path(path).read_bytes()
        for place in range(len(content)):
            Path(path).write_bytes(flip(content, place, place % 8))
            with pytest.raises(OSError, match=rf"^{path} is damaged \("):
                read(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[::-1],
        lambda content: b"<html></html>" * 100,
    ],
)
def test_a_mutilated_file_is_refused(damage: Callable[[bytes], bytes]) -> None:
    dataset.write_raw("raw.safetensors", IMAGES, LABELS)
    write_prepared(PIXELS, LABELS.astype(np.int64))
    for path, read in (("raw.safetensors", dataset.read_raw), ("data.safetensors", dataset.read)):
        Path(path).write_bytes(damage(Path(path).read_bytes()))
        with pytest.raises(OSError, match=rf"^{path} is damaged \(.*`make restore FILE={path}`"):
            read(path)


def test_tensors_that_go_on_or_have_no_checksum_are_refused() -> None:
    sound = save({"images": PIXELS, "labels": LABELS.astype(np.int64)})
    for content, reason in ((sound, "its checksum differs"), (sound + b"more", "")):
        Path("data.safetensors").write_bytes(content)
        with pytest.raises(OSError, match=rf"^data\.safetensors is damaged \({reason}"):
            dataset.read("data.safetensors")
    Path("data.safetensors").write_bytes(sound)  # a reader may be told not to look
    assert np.array_equal(dataset.read("data.safetensors", verify=False)[0], PIXELS)
