"""Scale the pixels to [0, 1] and split the rows, in order, into train and test tensors."""

import argparse
import os
import re
import sys

# Each parameter: how its text is read, the test it must pass, and that test in words.
PARAMETERS = {
    "train_size": (int, lambda n: n >= 1, "an integer from 1 to the number of rows less 1"),
    "pixel_max": (int, lambda n: 1 <= n <= 255, "an integer from 1 to 255"),
}
PATHS = ("raw", "train_data", "test_data")


def parse_arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="prepare",
        description=__doc__,
        usage="python -m stages.prepare FLAGS (as dvc.yaml calls it)",
        allow_abbrev=False,
    )
    for name in PARAMETERS:  # DVC writes true as --name and false as --no-name
        either = parser.add_mutually_exclusive_group(required=True)
        either.add_argument(f"--{name}", nargs="?", const="true")
        either.add_argument(f"--no-{name}", dest=name, action="store_const", const="false")
    for name in PATHS:
        parser.add_argument(f"--{name}", required=True)
    # Each flag and what follows it as one argument: so a list where one value is wanted, or a
    # value that starts with a dash, is refused by name.
    flags = re.split("\0(?=--)", "\0".join(sys.argv[1:] if argv is None else argv))
    flags = [flag.replace("\0", "=", 1).replace("\0", " ") for flag in flags]
    arguments = parser.parse_args(flags)
    for name, (convert, holds, allowed) in PARAMETERS.items():
        text = getattr(arguments, name)
        try:
            value = convert(text)
            if not holds(value):
                raise ValueError
        except ValueError:
            parser.error(f"argument --{name}: {text!r} is not allowed; allowed: {allowed}")
        setattr(arguments, name, value)
    return parser, arguments


def main(argv: list[str] | None = None) -> None:
    parser, arguments = parse_arguments(argv)
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
