"""Say what each picture shows, by the trained model: a digit on paper, a board or a screen."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from src.common import command
from src.learning import models, scores
from src.sources import folder
from tools import handwriting

NOTES = """\
For a model that learned from a folder of pictures, a picture is read as those were: it is scaled
to their size, and no more. Other models learned from rows of pixels, such as MNIST's digits. For
them a picture may be a photograph, a scan or a drawing of any size, dark on light or light on dark.
A picture of the size of the model's images (28x28 for MNIST) is taken as it is. If the model's
images have colour, or are not square, the middle of the picture is scaled to their size.

The answer is the most probable class; the others follow in their order. Exit status 1: a picture
could not be read.

  python -m tools.predict photo.jpg "my digits/four.png"
  python -m tools.predict --json -- *.png          (after --, names may begin with a dash)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.predict",
        description=__doc__,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = ", ".join(handwriting.FORMATS)
    parser.add_argument("image", nargs="+", metavar="IMAGE", help=f"a picture: {formats}")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON list: image, class and digit (its number), name, probabilities by "
        "class, warning (or null)",
    )
    parser.add_argument(
        "--model",
        default="models",
        metavar="FOLDER",
        help="where model.safetensors and recipe.json are; %(default)s without it",
    )
    arguments = parser.parse_args()
    place = Path(arguments.model)
    model, recipe = models.load(str(place / "model.safetensors"), str(place / "recipe.json"))
    shape, names = tuple(recipe["shape"]), recipe["names"]
    reader = read_as_folder if recipe["from_pictures"] else read
    records, failed = [], False
    for path in arguments.image:
        shown = path if path.isprintable() else ascii(path)
        try:
            if Path(path).is_dir():
                raise OSError("is a folder; name the pictures in it")
            image, warning = reader(path, shape)
        except OSError as error:
            failed = True
            print(f"predict: {shown} {error}", file=sys.stderr)
            continue
        if warning:
            print(f"predict: {shown}: {warning}", file=sys.stderr)
        scored = scores.log_probabilities(model, torch.from_numpy(image[None]))
        probabilities = scored[0].exp().tolist()
        ranked = sorted(range(len(probabilities)), key=lambda number: -probabilities[number])
        best = ranked[0]
        if arguments.json:
            record = {"image": path, "class": best, "digit": best, "name": names[best]}
            records.append(record | {"probabilities": probabilities, "warning": warning})
        else:
            listed = ", ".join(f"{names[number]} {probabilities[number]:.2%}" for number in ranked)
            print(f"{shown}: {names[best]}  ({listed})")
    if arguments.json:
        print(json.dumps(records, indent=2))
    return int(failed)


def read_as_folder(path: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, str | None]:
    """Read a picture for a model that learned from a folder of pictures.

    It takes, returns and raises what `read` does.
    """
    try:
        picture, count = folder.read_first(Path(path), shape[1:])
    except ValueError as error:
        raise OSError(str(error)) from error
    mode = "L" if shape[0] == 1 else "RGB"
    levels = np.asarray(Image.fromarray(picture).convert(mode)).reshape(*shape[1:], shape[0])
    doubt = f"the first of {count} pictures" if count > 1 else None
    return handwriting.to_grid(levels.transpose(2, 0, 1) / 255), doubt


def read(path: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, str | None]:
    """Read a picture for a model that learned from rows of pixels.

    Args:
        path: of the picture.
        shape: of the model's images: channels, height, width. Square grey ones are taken to be
            of digits, whose ink is looked for; of others the middle is scaled.

    Returns:
        float32 of this shape, on the grid of pixels; and a doubt about it, or None.

    Raises:
        OSError: it cannot be read; says so without the path.
    """
    channels, height, width = shape
    if channels == 1 and height == width:
        image, doubt = handwriting.read(path, height)
        return image.reshape(shape), doubt
    if channels not in (1, 3):
        raise command.UsageError(f"the model's images have {channels} channels; 1 or 3 can be read")
    return handwriting.read_resized(path, shape)


if __name__ == "__main__":
    command.run("predict", main)
