"""Read the digit in each picture with the trained model: on paper, a board or a screen."""

import argparse
import json
import sys
from pathlib import Path

import torch

from src.common import command, dataset
from src.learning import models
from tools import handwriting

NOTES = """\
A picture may be of any size: a photograph, a scan or a drawing, dark on light or light on dark.
One of the size of the model's images (28x28 for MNIST) is taken as it is. The answer is the most
probable class; the others follow in their order. Exit status 1: a picture could not be read.

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
        help="print a JSON list: image, digit, probabilities by class, warning (or null)",
    )
    parser.add_argument(
        "--model",
        default="models",
        metavar="FOLDER",
        help="where model.safetensors and recipe.json are; %(default)s without it",
    )
    arguments = parser.parse_args()
    folder = Path(arguments.model)
    model = models.load(str(folder / "model.safetensors"), str(folder / "recipe.json"))
    side = dataset.side_of(model.pixels)
    if side is None:
        raise command.UsageError(f"the model's images, of {model.pixels} pixels, are not square")
    records, failed = [], False
    for path in arguments.image:
        shown = path if path.isprintable() else ascii(path)
        try:
            image, warning = handwriting.read(path, side)
        except OSError as error:
            failed = True
            print(f"predict: {shown} {error}", file=sys.stderr)
            continue
        if warning:
            print(f"predict: {shown}: {warning}", file=sys.stderr)
        probabilities = model.log_probabilities(torch.from_numpy(image[None]))[0].exp().tolist()
        ranked = sorted(range(len(probabilities)), key=lambda digit: -probabilities[digit])
        if arguments.json:
            record = {"image": path, "digit": ranked[0], "probabilities": probabilities}
            records.append(record | {"warning": warning})
        else:
            listed = ", ".join(f"{digit} {probabilities[digit]:.2%}" for digit in ranked)
            print(f"{shown}: {ranked[0]}  ({listed})")
    if arguments.json:
        print(json.dumps(records, indent=2))
    return int(failed)


if __name__ == "__main__":
    command.run("predict", main)
