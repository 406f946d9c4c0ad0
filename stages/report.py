"""Draw the data, the model and its mistakes, and write the page that reads handwriting."""

import hashlib
from pathlib import Path

from src import command, data, figures, files, page, parameters, tensors

TRAIN_DATA = "data/prepared/train.safetensors"
TEST_DATA = "data/prepared/test.safetensors"
PREDICTIONS = "data/predicted/test.safetensors"
MODEL = "models/model.safetensors"
START = "models/start.safetensors"
RECIPE = "models/recipe.json"
LEARNING_CURVE = "metrics/plots/learning_curve.csv"
METRICS = "metrics/evaluate.json"
PER_CLASS = "metrics/plots/per_class.csv"
TEMPLATE = "src/page.html"
SAMPLES = "metrics/plots/samples.png"
WEIGHTS = "metrics/plots/weights.png"
MISTAKES = "metrics/plots/mistakes.png"
RELIABILITY = "metrics/plots/reliability.png"
PAGE = "metrics/report/index.html"


class Fetch(parameters.Section, extra="ignore"):
    """What the page says of the data."""

    dataset: parameters.Dataset


def main() -> None:
    dataset = parameters.read(Fetch).dataset
    train_images, train_labels = data.read(TRAIN_DATA, "np")
    images, labels = data.read(TEST_DATA, "np")
    predictions = tensors.read(PREDICTIONS)
    with files.reading(PREDICTIONS):
        log_probabilities, confusion = predictions["log_probabilities"], predictions["confusion"]
    model = tensors.read(MODEL)
    figures.write(SAMPLES, figures.samples(train_images, train_labels))
    first = next(tensor for name, tensor in model.items() if name.endswith("weight"))
    figures.write(WEIGHTS, figures.weights(first))
    figures.write(MISTAKES, figures.mistakes(images, labels, log_probabilities))
    figures.write(RELIABILITY, figures.reliability(labels, log_probabilities))
    filled = page.render(
        Path(TEMPLATE).read_text(encoding="utf-8"),
        dataset=dataset,
        recipe=files.read_json(RECIPE),
        tensors=model,
        start=tensors.read(START),
        curve=files.read_csv(
            LEARNING_CURVE, epoch=int, split=str, loss=float, accuracy=float, sha256=str
        ),
        metrics=files.read_json(METRICS),
        per_class=files.read_csv(
            PER_CLASS, label=int, precision=float, recall=float, f1=float, support=int
        ),
        confusion=confusion,
        images=images,
        labels=labels,
        log_probabilities=log_probabilities,
        train_images=train_images,
        train_labels=train_labels,
        hashes={path: sha256(path) for path in (TRAIN_DATA, TEST_DATA, MODEL)},
    )
    files.write(PAGE, filled)
    print(f"report: {PAGE}: {len(filled):,} bytes")


def sha256(path: str) -> str:
    """Digest a file, as sha256sum does."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    command.run("report", main)
