"""Draw the data, the model and its mistakes, and write the page that reads handwriting."""

import hashlib
from pathlib import Path

from src.common import command, files, parameters, tensors
from src.report import figures, page

TRAIN_DATA = "data/prepared/train.safetensors"
TEST_DATA = "data/prepared/test.safetensors"
PREDICTIONS = "data/predicted/test.safetensors"
MODEL = "models/model.safetensors"
START = "models/start.safetensors"
RECIPE = "models/recipe.json"
LEARNING_CURVE = "metrics/plots/learning_curve.csv"
METRICS = "metrics/evaluate.json"
PER_CLASS = "metrics/plots/per_class.csv"
TEMPLATE = "src/report/page.html"
SAMPLES = "metrics/plots/samples.png"
WEIGHTS = "metrics/plots/weights.png"
MISTAKES = "metrics/plots/mistakes.png"
RELIABILITY = "metrics/plots/reliability.png"
PAGE = "metrics/report/index.html"


class Fetch(parameters.Section, extra="ignore"):
    """What the page says of the data."""

    dataset: parameters.Dataset


def main() -> None:
    name = parameters.read("fetch", Fetch).dataset
    train, test = dataset.read(TRAIN_DATA, "np"), dataset.read(TEST_DATA, "np")
    images, labels = test
    predictions = tensors.read(PREDICTIONS)
    with files.reading(PREDICTIONS):
        log_probabilities, confusion = predictions["log_probabilities"], predictions["confusion"]
        if log_probabilities.shape != (len(labels), len(confusion)):
            raise ValueError(f"it is not of the {len(labels):,} rows of {TEST_DATA}")
    model, start = tensors.read(MODEL), tensors.read(START)
    recipe, metrics = files.read_json(RECIPE), files.read_json(METRICS)
    curve = files.read_csv(
        LEARNING_CURVE, epoch=int, split=str, loss=float, accuracy=float, sha256=str
    )
    per_class = files.read_csv(
        PER_CLASS, label=int, precision=float, recall=float, f1=float, support=int
    )

    with files.reading(RECIPE):
        is_linear = page.is_linear(recipe)
        # As text, the seed keeps its 63 bits: a number has 53 in a browser.
        settings = {name: recipe[name] for name in page.RECIPE} | {"seed": str(recipe["seed"])}
    with files.reading(METRICS):
        scores = page.scores(metrics)
    with files.reading(MODEL):
        packed = {name: page.integers(tensor) for name, tensor in model.items()}
        first = next(tensor for name, tensor in model.items() if name.endswith("weight"))
    with files.reading(START):
        # Only softmax regression is trained in the page: the others start from megabytes.
        packed_start = {name: page.integers(tensor) for name, tensor in start.items() if is_linear}
    kind, classes = page.classes(name, len(confusion))
    content = {
        "kind": kind,
        "classes": classes,
        "shape": page.shape(images.shape[1]),
        "recipe": settings,
        "tensors": packed,
        "start": packed_start,
        "exp": page.exponentials() if is_linear else [],
        "train_rows": len(train[1]),
        "curve": curve,
        "f1": [row["f1"] for row in per_class],
        "confusion": confusion.tolist(),
        **page.pictures(train, test, log_probabilities, confusion),
    }
    filled = page.render(
        Path(TEMPLATE).read_text(encoding="utf-8"),
        content,
        model="linear" if is_linear else "deep",
        kind=kind,
        dataset=name,
        many=str(len(classes)),
        pixels=f"{images.shape[1]:,}",
        recipe=page.table({name: recipe[name] for name in recipe if name != "layers"}),
        checksums=page.table(
            {
                TRAIN_DATA: f"CRC-32 {tensors.recorded_checksum(TRAIN_DATA)}",
                TEST_DATA: f"CRC-32 {tensors.recorded_checksum(TEST_DATA)}",
                MODEL: f"SHA-256 {hashlib.sha256(Path(MODEL).read_bytes()).hexdigest()}",
            }
        ),
        **scores,
    )
    files.write(PAGE, filled)
    print(f"report: {PAGE}: {len(filled):,} bytes")

    figures.write(SAMPLES, figures.samples(*train))
    figures.write(WEIGHTS, figures.weights(first))
    figures.write(MISTAKES, figures.mistakes(*test, log_probabilities))
    figures.write(RELIABILITY, figures.reliability(labels, log_probabilities))


if __name__ == "__main__":
    command.run_stage("report", main)
