"""Score the model on every test row and write its metrics, predictions and per-class scores."""

import argparse
import os
import re
import sys

# Each parameter: how its text is read, the test it must pass, and that test in words.
PARAMETERS = {
    "device": (
        str,
        re.compile(r"cpu|cuda(:\d+)?|mps|auto").fullmatch,
        "cpu, cuda, cuda:N, mps or auto",
    ),
    "threads": (int, lambda n: 1 <= n <= 1024, "an integer from 1 to 1024"),
    "batch_size": (int, lambda n: 1 <= n <= 1_000_000, "an integer from 1 to 1000000"),
}
PATHS = ("model", "test_data", "metrics", "confusion", "per_class")


def parse_arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="evaluate",
        description=__doc__,
        usage="python -m stages.evaluate FLAGS (as dvc.yaml calls it)",
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
    import torch

    from src import dataset, device, records, scores, softmax_regression

    torch.set_num_threads(arguments.threads)
    try:
        chosen = device.choose(arguments.device)
    except ValueError as error:
        parser.error(f"argument --device: {error}")
    images, labels = dataset.read(arguments.test_data)
    parameters = softmax_regression.load(arguments.model).to(chosen, device.float_type(chosen))
    log_probabilities = softmax_regression.log_probabilities(
        parameters, images, arguments.batch_size
    )
    loss = softmax_regression.cross_entropy(log_probabilities, labels.to(chosen))
    predicted = log_probabilities.argmax(dim=1).cpu()
    confusion = scores.confusion_matrix(
        labels.numpy(), predicted.numpy(), softmax_regression.CLASSES
    )
    table = scores.per_class(confusion)
    summary = {"loss": loss, **scores.summary(confusion)}

    # A row for each image: DVC's confusion template does the counting.
    pairs = zip(labels.tolist(), predicted.tolist(), strict=True)
    records.write_csv(arguments.confusion, ("actual", "predicted"), pairs)
    records.write_csv(arguments.per_class, table[0], (row.values() for row in table))
    records.write_json(arguments.metrics, summary)
    print(
        f"evaluate: loss {loss:.4f}, accuracy {summary['accuracy']:.2%}"
        f" ({summary['correct']:,} of {summary['total']:,})"
    )


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"evaluate: {str(error) or 'interrupted'}")
