"""Score the model on every test row and write its metrics, predictions and per-class scores."""

import os
import sys

from src import flags

PARAMETERS = {
    "device": flags.DEVICE,
    "threads": flags.integer(1, 1024),
    "batch_size": flags.integer(1, 1_000_000),
}
PATHS = ("model", "test_data", "metrics", "confusion", "per_class")


def main(argv: list[str] | None = None) -> None:
    parser, arguments = flags.parse("evaluate", PARAMETERS, PATHS, argv)
    # Imported only now, so that a bad parameter is refused at once.
    with flags.importing("evaluate"):
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
