"""Read the digit in pictures, PNG or JPEG, of any size, dark on light or light on dark."""

import argparse
import json
import os
import sys


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.predict", description=__doc__)
    parser.add_argument("image", nargs="+", help="path of a picture")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--model", default="models/model.safetensors", help="%(default)s")
    arguments = parser.parse_args(argv)
    import numpy as np

    from src import inference
    from tools import handwriting

    weight, bias = inference.load(arguments.model)
    results, failed = [], False
    for path in arguments.image:
        try:
            image = handwriting.read(path)
        except OSError as error:
            failed = True
            print(f"predict: {error}", file=sys.stderr)
            continue
        probabilities = np.exp(inference.log_probabilities(weight, bias, image[None])[0])
        ranked = [int(digit) for digit in (-probabilities).argsort(kind="stable")]
        if arguments.json:
            record = {"image": path, "digit": ranked[0], "probabilities": probabilities.tolist()}
            results.append(record)
        else:
            listed = ", ".join(f"{digit} {probabilities[digit]:.2%}" for digit in ranked)
            print(f"{path}: {ranked[0]}  ({listed})")
    if arguments.json:
        print(json.dumps(results, indent=2))
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"predict: {str(error) or 'interrupted'}")
