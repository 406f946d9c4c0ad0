"""Train a softmax regression and write the model, its learning curve and its last figures."""

import argparse
import math
import os
import re
import sys

INITS = ("uniform", "normal", "zeros")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train",
        description=__doc__,
        usage="python -m stages.train FLAGS (as dvc.yaml calls it)",
        allow_abbrev=False,
    )
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--init", choices=INITS, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--shuffle", action=argparse.BooleanOptionalAction, required=True)
    parser.add_argument("--drop_last", action=argparse.BooleanOptionalAction, required=True)
    parser.add_argument("--train_data", required=True)
    parser.add_argument("--test_data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--metrics", required=True)
    parser.add_argument("--learning_curve", required=True)
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
        ("seed", 0 <= arguments.seed < 2**63, "an integer from 0 to 2^63 - 1"),
        ("epochs", 1 <= arguments.epochs <= 10_000, "an integer from 1 to 10000"),
        ("batch_size", arguments.batch_size >= 1, "an integer from 1 to the number of rows"),
        (
            "learning_rate",
            0 < arguments.learning_rate < math.inf,
            "a finite number greater than 0",
        ),
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
    from tqdm import tqdm

    from src import dataset, device, records, softmax_regression, training

    torch.set_num_threads(arguments.threads)
    try:
        chosen = device.choose(arguments.device)
    except ValueError as error:
        parser.error(f"argument --device: {error}")
    dtype = device.float_type(chosen)
    if dtype != torch.float64:
        print(f"train: {chosen} computes in float32: the saved bits are not promised there")
    images, labels = dataset.read(arguments.train_data)
    test_images, test_labels = dataset.read(arguments.test_data)
    if arguments.batch_size > len(labels):
        parser.error(
            f"argument --batch_size: {arguments.batch_size} is more than the {len(labels)} rows"
        )
    parameters = softmax_regression.start(arguments.init, arguments.seed).to(chosen, dtype)
    test_images, test_labels = test_images.to(chosen), test_labels.to(chosen)
    epochs = training.train(
        parameters,
        images.to(chosen),
        labels.to(chosen),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        shuffle=arguments.shuffle,
        drop_last=arguments.drop_last,
    )
    curve = []
    try:
        # disable=None: a bar on a terminal, plain lines elsewhere
        for epoch, (loss, accuracy) in enumerate(
            tqdm(epochs, total=arguments.epochs, unit="epoch", leave=False, disable=None), 1
        ):
            log_probabilities = softmax_regression.log_probabilities(
                softmax_regression.to_grid(parameters), test_images, arguments.batch_size
            )
            test_loss = softmax_regression.cross_entropy(log_probabilities, test_labels)
            hits = (log_probabilities.argmax(dim=1) == test_labels).sum().item()
            test_accuracy = hits / len(test_labels)
            curve.append((epoch, "train", loss, accuracy))
            curve.append((epoch, "test", test_loss, test_accuracy))
            tqdm.write(
                f"epoch {epoch:>{len(str(arguments.epochs))}}/{arguments.epochs}"
                f"  train loss {loss:.4f}  test loss {test_loss:.4f}"
                f"  test accuracy {test_accuracy:.2%}"
            )
    except FloatingPointError as error:
        parser.error(f"argument --learning_rate: {error}")
    records.write_csv(arguments.learning_curve, ("epoch", "split", "loss", "accuracy"), curve)
    records.write_json(arguments.metrics, {"loss": loss, "accuracy": accuracy})
    softmax_regression.save(arguments.model, parameters)


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"train: {str(error) or 'interrupted'}")
