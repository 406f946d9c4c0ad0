"""Labelled images on disk: whatever was changed in them is refused, or changes nothing."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from src.common import dataset, tensors

pytestmark = pytest.mark.usefixtures("here")

generator = np.random.default_rng(0)
IMAGES = generator.integers(0, 256, (6, 3, 5, 7), np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0], np.uint8)
LONG = LABELS.astype(np.int64)
NAMES = ("cat", "Ankle boot", "つ")
PIXELS = (np.rint(IMAGES / 255 * 65536) / 65536).astype(np.float32)


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
        images, labels, names, _ = dataset.read_raw(path)
        assert np.array_equal(images, IMAGES)
        assert np.array_equal(labels, LABELS)
        assert names == ("0", "1", "2")
    dataset.write_raw("d", IMAGES, LABELS, NAMES)
    assert dataset.read_raw("d").names == NAMES
    assert load_file("d")["names"].tobytes().decode() == "cat\nAnkle boot\nつ"


@pytest.mark.parametrize(
    ("classes", "dtype"), [(256, np.uint8), (257, np.uint16), (1000, np.uint16)]
)
def test_labels_of_more_than_256_classes_take_two_bytes(classes: int, dtype: type) -> None:
    labels = np.arange(classes).astype(dtype)
    images = np.zeros((classes, 1, 1, 1), np.uint8)
    dataset.write_raw("raw", images, labels)
    found = dataset.read_raw("raw")
    assert found.labels.dtype == dtype
    assert np.array_equal(found.labels, np.arange(classes))
    assert found.names[-1] == str(classes - 1)
    other = np.uint16 if dtype is np.uint8 else np.uint8
    with pytest.raises(ValueError, match=rf"labels {dtype.__name__} \(N,\)"):
        dataset.check(found._replace(labels=labels.astype(other)))


def test_the_pinned_digest_is_told_with_the_one_found() -> None:
    data, found = dataset.Dataset(IMAGES, LABELS, NAMES), dataset.sha256(IMAGES, LABELS)
    dataset.check(data, found)
    reason = f"sha256 is {found}, fetch.sha256 is {'0' * 64};"
    with pytest.raises(dataset.WrongContentError, match=reason):
        dataset.check(data, "0" * 64)


FORM = r"expected images uint8 \(N, C, H, W\) and labels uint8 \(N,\)"
TEXT = np.frombuffer("\n".join(NAMES).encode(), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (IMAGES[:, 0], LABELS, FORM),
        (IMAGES, LABELS[:, None], FORM),
        (IMAGES, LABELS[0], FORM),
        (IMAGES.view(np.int8), LABELS, FORM),
        (IMAGES * np.nan, LABELS, FORM),
        (IMAGES, LONG, FORM),
        (IMAGES[1:], LABELS, FORM),
        (IMAGES, LABELS[1:], FORM),
        (IMAGES[:0], LABELS[:0], FORM),
        (IMAGES[:, :0], LABELS, FORM),
        (IMAGES, LABELS + np.uint8(1), "found labels from 1 to 3, and names for 0 to 2"),
    ],
)
def test_raw_data_of_another_form_are_refused(
    images: np.ndarray, labels: np.ndarray, reason: str
) -> None:
    tensors.write("raw", {"images": images, "labels": labels, "names": TEXT})
    with pytest.raises(OSError, match=rf"^raw is damaged \({reason}.*; `make restore FILE=raw`"):
        dataset.read_raw("raw")


@pytest.mark.parametrize("missing", ["images", "labels", "names"])
def test_files_that_lack_a_tensor_are_refused(missing: str) -> None:
    raw = {"images": IMAGES, "labels": LABELS, "names": TEXT}
    prepared = {"images": PIXELS, "labels": LONG, "names": TEXT}
    for content, read in ((raw, dataset.read_raw), (prepared, dataset.read)):
        del content[missing]
        tensors.write("file", content)
        with pytest.raises(OSError, match=r"^file is damaged"):
            read("file")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "b"], "found labels from 0 to 2, and names for 0 to 1"),
        (["a", "b", "a"], "different lines"),
        (["a", "", "b"], "different lines"),
        (["a", "b\rc", "d"], "different lines"),
        ([*map(str, range(1001))], "found 1,001 classes, and at most 1,000 are allowed"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: list[str], reason: str) -> None:
    labels = LABELS.astype(dataset.label_type(len(names)))
    with pytest.raises(ValueError, match=reason):
        dataset.write_raw("raw", IMAGES, labels, names)
    dataset.write("data.safetensors", PIXELS, LONG, names)
    with pytest.raises(OSError, match=rf"^data\.safetensors is damaged \(.*{reason}"):
        dataset.read("data.safetensors")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (np.frombuffer(b"\xff", np.uint8), ""),
        (np.frombuffer(b"", np.uint8), ""),
        (TEXT.astype(np.int16), r"expected names uint8 \(B,\), found int16"),
    ],
)
def test_names_that_are_no_text_are_refused(names: np.ndarray, reason: str) -> None:
    write_prepared(PIXELS, LONG, names=names)
    with pytest.raises(OSError, match=rf"^data\.safetensors is damaged \({reason}"):
        dataset.read("data.safetensors")


def write_prepared(images: np.ndarray, labels: np.ndarray, **more: np.ndarray) -> None:
    tensors.write("data.safetensors", {"images": images, "labels": labels, "names": TEXT} | more)


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_prepared_data_come_back_whatever_exact_sums_say_of_their_values(framework: str) -> None:
    odd = [with_first(PIXELS, value) for value in (np.nan, np.inf, 255, -(2**-16), 0.1)]
    for pixels in (PIXELS, PIXELS[:0], *odd):
        write_prepared(pixels, LONG[: len(pixels)])
        found = dataset.read("data.safetensors", framework)
        assert type(found.images).__module__ == {"pt": "torch", "np": "numpy"}[framework]
        assert np.array_equal(np.asarray(found.images), pixels, equal_nan=True)
        assert np.array_equal(np.asarray(found.labels), LABELS[: len(pixels)])
        assert found.names == NAMES


def with_first(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, y: (x[:, 0], y), r"found float32 \(6, 5, 7\) and int64 "),
        (lambda x, y: (x, y[:, None]), r"found float32 \(6, 3, 5, 7\) and int64 \(6, 1"),
        (lambda x, y: (x.astype(np.float64), y), r"found float64 \(6, 3, 5, 7\) and int64 "),
        (lambda x, y: (x, y.astype(np.int32)), r"found float32 \(6, 3, 5, 7\) and int32 "),
        (lambda x, y: (x[1:], y), r"found float32 \(5, 3, 5, 7\) and int64 \(6"),
        (lambda x, y: (x, with_first(y, -1)), "found labels from -1 to 2"),
        (lambda x, y: (x, with_first(y, 3)), "found labels from 0 to 3"),
    ],
)
@pytest.mark.parametrize("framework", ["pt", "np"])
def test_prepared_data_of_another_form_are_refused(
    framework: str, change: Callable[..., tuple[np.ndarray, np.ndarray]], reason: str
) -> None:
    write_prepared(PIXELS, LONG)
    dataset.read("data.safetensors", framework)
    write_prepared(*change(PIXELS, LONG))
    refusal = rf"^data\.safetensors is damaged \(.*{reason}.*`make restore"
    with pytest.raises(OSError, match=refusal):
        dataset.read("data.safetensors", framework)


READERS = {"raw.safetensors": dataset.read_raw, "data.safetensors": dataset.read}


def write_both() -> None:
    dataset.write_raw("raw.safetensors", IMAGES, LABELS)
    write_prepared(PIXELS, LONG)


def expect_refusal(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(OSError, match=rf"^{path} is damaged \(.*`make restore FILE={path}`"):
        READERS[path](path)


def test_every_bit_of_raw_and_prepared_data_is_caught() -> None:
    write_both()
    for path in READERS:
        content = Path(path).read_bytes()
        for place in range(len(content)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            expect_refusal(path, bytes(flipped))


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
    write_both()
    for path in READERS:
        expect_refusal(path, damage(Path(path).read_bytes()))


def test_tensors_that_go_on_or_have_no_checksum_are_refused() -> None:
    sound = save({"images": PIXELS, "labels": LONG, "names": TEXT})
    for content, reason in ((sound, "its checksum differs"), (sound + b"more", "")):
        Path("data.safetensors").write_bytes(content)
        with pytest.raises(OSError, match=rf"^data\.safetensors is damaged \({reason}"):
            dataset.read("data.safetensors")
    Path("data.safetensors").write_bytes(sound)  # a reader may be told not to look
    assert np.array_equal(dataset.read("data.safetensors", verify=False)[0], PIXELS)
