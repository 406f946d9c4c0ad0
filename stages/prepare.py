"""Scale the pixels to [0, 1] and split the rows, in order, into train and test tensors."""

import argparse
import os
import sys


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare",
        description=__doc__,
        usage="python -m stages.prepare FLAGS (as dvc.yaml calls it)",
        allow_abbrev=False,
    )
    parser.add_argument("--train_size", type=int, required=True)
    parser.add_argument("--pixel_max", type=int, required=True)
    parser.add_argument("--raw", required=True)
    parser.add_argument("--train_data", required=True)
    parser.add_argument("--test_data", required=True)
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.train_size < 1:
        parser.error(f"argument --train_size: {arguments.train_size} is not 1 or more rows")
    if not 1 <= arguments.pixel_max <= 255:
        parser.error(f"argument --pixel_max: {arguments.pixel_max} is not from 1 to 255")
    # Imported only now, so that a bad parameter is refused at once.
    import numpy as np

    from src import raw, tensors

    images, labels = raw.read(arguments.raw)
    if arguments.train_size >= len(images):
        parser.error(
            f"argument --train_size: {arguments.train_size} leaves no row to test; "
            f"allowed: 1 to {len(images) - 1}"
        )
    if images.max() > arguments.pixel_max:
        parser.error(
            f"argument --pixel_max: {arguments.pixel_max} is less than the brightest pixel, "
            f"{images.max()}"
        )
    train, test = slice(None, arguments.train_size), slice(arguments.train_size, None)
    for path, rows in ((arguments.train_data, train), (arguments.test_data, test)):
        tensors.write(
            path,
            images=images[rows].astype(np.float32) / np.float32(arguments.pixel_max),
            labels=labels[rows].astype(np.int64),
        )
        print(f"prepare: {path}: {len(labels[rows]):,} rows")


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"prepare: {str(error) or 'interrupted'}")
