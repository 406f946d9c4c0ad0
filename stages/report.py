"""Draw the data, the model and its mistakes, and write the page that reads handwriting."""

import argparse
import base64
import hashlib
import os
import signal
import sys
from pathlib import Path

PATHS = (
    "train_data",
    "test_data",
    "model",
    "recipe",
    "learning_curve",
    "template",
    "samples",
    "weights",
    "mistakes",
    "reliability",
    "page",
)
# Images that the page carries: the surest mistakes, and the first of the test rows.
MISTAKES, TEST_IMAGES = 24, 100


def interrupted(*_: object) -> None:
    os.write(2, b"report: interrupted\n")
    os._exit(1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="report",
        usage="python -m stages.report FLAGS (as dvc.yaml calls it)",
        allow_abbrev=False,
    )
    for name in PATHS:
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args(argv)
    # Amid an import, C code would turn a Ctrl-C into an ImportError.
    signal.signal(signal.SIGINT, interrupted)
    import numpy as np

    from src import dataset, figures, inference, page, records, scores

    signal.signal(signal.SIGINT, signal.default_int_handler)
    weight, bias = inference.load(arguments.model)
    train_images, train_labels = dataset.read(arguments.train_data, "np")
    images, labels = dataset.read(arguments.test_data, "np")
    log_probabilities = inference.log_probabilities(weight, bias, images)
    probabilities = np.exp(log_probabilities)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")[:MISTAKES]]
    counts = scores.confusion_matrix(labels, predicted, len(weight))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    summary = scores.summary(counts)
    curve = records.read_csv(
        arguments.learning_curve, epoch=int, split=str, loss=float, accuracy=float
    )
    drawn = {
        "samples": figures.samples(train_images, train_labels),
        "weights": figures.weights(weight),
        "mistakes": figures.mistakes(
            images[worst], labels[worst], predicted[worst], confidence[worst]
        ),
        "reliability": figures.reliability(confidence, predicted == labels),
        "loss_curve": figures.learning_curve(curve, "loss"),
        "accuracy_curve": figures.learning_curve(curve, "accuracy"),
    }
    pictures = {name: figures.png(figure) for name, figure in drawn.items()}
    for name in ("samples", "weights", "mistakes", "reliability"):
        records.write(getattr(arguments, name), pictures[name])
    hashes = {}
    for path in (arguments.train_data, arguments.test_data, arguments.model):
        with open(path, "rb") as file:
            hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
    rows = np.concatenate([np.arange(min(TEST_IMAGES, len(labels))), worst])
    filled = page.fill(
        Path(arguments.template).read_text(encoding="utf-8"),
        **{name: base64.b64encode(png).decode() for name, png in pictures.items()},
        accuracy=f"{summary['accuracy']:.2%}",
        correct=f"{summary['correct']:,}",
        total=f"{summary['total']:,}",
        loss=f"{loss:.4f}",
        macro_f1=f"{summary['macro_f1']:.4f}",
        train_rows=f"{len(train_labels):,}",
        confusion=page.confusion(counts, scores.per_class(counts)),
        recipe=page.facts(records.read_json(arguments.recipe)),
        hashes=page.facts(hashes),
        mistakes_from=str(len(rows) - len(worst)),
        data=page.data(
            weight=weight.astype("<f4"),
            bias=bias.astype("<f4"),
            images=np.rint(images[rows] * 255).astype(np.uint8),
            labels=labels[rows].astype(np.uint8),
            rows=rows.astype("<u4"),
        ),
    )
    records.write(arguments.page, filled)
    print(f"report: {arguments.page}: {len(filled):,} bytes")


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"report: {str(error) or 'interrupted'}")
