"""Score the model on every test row and write its metrics, predictions and per-class scores."""

import argparse
import os
import re
import sys


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate",
        description=__doc__,
        usage="python -m stages.evaluate FLAGS (as dvc.yaml calls it)",
        allow_abbrev=False,
    )
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--test_data", required=True)
    parser.add_argument("--metrics", required=True)
    parser.add_argument("--confusion", required=True)
    parser.add_argument("--per_class", required=True)
    return parser


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    arguments = parser.parse_args(argv)
    for name, holds, allowed in (
        (
            "device",
            re.fullmatch(r"cpu|cuda(:\d+)?|mps|auto", arguments.device),
            "cpu, cuda, cuda:N, mps or auto",
        ),
        ("threads", 1 <= arguments.threads <= 1024, "an integer from 1 to 1024"),
        ("batch_size", arguments.batch_size >= 1, "an integer from 1"),
    ):
        if not holds:
            value = getattr(arguments, name)
            parser.error(f"argument --{name}: {value!r} is not allowed; allowed: {allowed}")
    return arguments


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    arguments = parse_arguments(parser, argv)
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
