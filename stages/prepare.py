"""Scale the pixels to [0, 1] and split the rows, in order, into train and test tensors."""

import os
import sys

from src import flags

PARAMETERS = {
    "train_size": (int, lambda value: value >= 1, "an integer from 1 to the number of rows less 1"),
    "pixel_max": flags.integer(1, 255),
}
PATHS = ("raw", "train_data", "test_data")


def main(argv: list[str] | None = None) -> None:
    parser, arguments = flags.parse("prepare", PARAMETERS, PATHS, argv)
    # Imported only now, so that a bad parameter is refused at once.
    with flags.importing("prepare"):
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
            f"argument --pixel_max: {arguments.pixel_max} is less than the brightest pixel; "
            f"allowed: {images.max()} to 255"
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
