"""Draw the data, the model and its mistakes, and write the page that reads handwriting."""

import hashlib
from pathlib import Path

from src.common import command, dataset, files, parameters, tensors
from src.common.known import KNOWN, UNKNOWN
from src.report import figures, page

TRAIN_DATA = "data/prepared/train.safetensors"
TEST_DATA = "data/prepared/test.safetensors"
PREDICTIONS = "data/predicted/test.safetensors"
MODEL = "models/model.safetensors"
START = "models/start.safetensors"
SNAPSHOTS = "models/snapshots.safetensors"
RECIPE = "models/recipe.json"
LEARNING_CURVE = "metrics/plots/learning_curve.csv"
METRICS = "metrics/evaluate.json"
PER_CLASS = "metrics/plots/per_class.csv"
FOLDER = "src/report"
SAMPLES = "metrics/plots/samples.png"
WEIGHTS = "metrics/plots/weights.png"
MISTAKES = "metrics/plots/mistakes.png"
RELIABILITY = "metrics/plots/reliability.png"
PAGE = "metrics/report/index.html"


class Fetch(parameters.Section, extra="ignore"):
    """What the page says of the data."""

    dataset: parameters.Dataset
    sources: list[str]


# What the recipe has for programs, and no reader asks for.
INTERNAL = ("graph", "graph_reason", "names", "module")


def main() -> None:
    fetched = parameters.read("fetch", Fetch)
    train, test = dataset.read(TRAIN_DATA, "np"), dataset.read(TEST_DATA, "np")
    labels = test.labels
    predictions = tensors.read(PREDICTIONS)
    with files.reading(PREDICTIONS):
        log_probabilities, confusion = predictions["log_probabilities"], predictions["confusion"]
        if log_probabilities.shape != (len(labels), len(confusion)):
            raise ValueError(f"it is not of the {len(labels):,} rows of {TEST_DATA}")
    model, start = tensors.read(MODEL), tensors.read(START)
    snapshots = tensors.read(SNAPSHOTS)
    recipe = files.read_json(RECIPE, names=list, shape=list)
    metrics = files.read_json(METRICS, test=dict)
    curve = files.read_csv(
        LEARNING_CURVE, epoch=int, split=str, loss=float, accuracy=float, sha256=str
    )
    per_class = files.read_csv(
        PER_CLASS, label=str, precision=float, recall=float, f1=float, support=int
    )

    with files.reading(RECIPE):
        if missing := sorted({"graph", *page.RECIPE, *page.DECIDING} - recipe.keys()):
            raise KeyError(*missing)
    # As text, the seed keeps its 63 bits: a number has 53 in a browser.
    settings = {name: recipe[name] for name in page.RECIPE} | {"seed": str(recipe["seed"])}
    names = recipe["names"]
    off, untrainable = page.uncomputable(recipe, model), page.untrainable(recipe, model)
    linear = None if off else page.linear(recipe, model)
    graph = None if off else page.on_grids(recipe, model)
    history = [] if off else page.history(snapshots, recipe, len(train.labels))
    first = figures.first_layer(model, recipe["graph"], recipe["shape"])
    with files.reading(METRICS):
        scores = page.scores(metrics)
    is_folder = fetched.sources == ["folder"]
    kind = (UNKNOWN if is_folder else KNOWN.get(fetched.dataset, UNKNOWN)).kind
    content = {
        "kind": kind,
        "classes": names,
        "shape": recipe["shape"],
        "graph": graph,
        "off": off,
        "linear": linear,
        "first": first and first[0],
        "recipe": settings,
        "tensors": page.state({} if off else model),
        "untrainable": off or untrainable,
        "start": page.state({} if off or untrainable else start),
        "history": history,
        "kept": recipe["epoch"],
        "exp": [] if off or untrainable else page.exponentials(),
        "train_rows": len(train.labels),
        "curve": curve,
        "f1": [row["f1"] for row in per_class],
        "confusion": confusion.tolist() if len(names) <= page.MANY else None,
        **page.pictures(train[:2], test[:2], log_probabilities, confusion),
    }
    filled = page.render(
        page.template(FOLDER),
        content,
        model="linear" if linear else "deep",
        kind=kind,
        batch=f"{recipe['batch_size']:,}",
        dataset="the folder" if is_folder else fetched.dataset,
        many=str(len(names)),
        pixels=f"{test.images[0].size:,}",
        recipe=page.table({name: value for name, value in recipe.items() if name not in INTERNAL}),
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

    figures.write(SAMPLES, figures.samples(train.images, train.labels, names))
    weight_names = names if first and first[1].ndim == 2 and len(first[1]) == len(names) else None
    picture = figures.weights(first and first[1], recipe["shape"], weight_names)
    figures.write(WEIGHTS, picture)
    figures.write(MISTAKES, figures.mistakes(test.images, labels, log_probabilities, names))
    figures.write(RELIABILITY, figures.reliability(labels, log_probabilities))


if __name__ == "__main__":
    command.run_stage("report", main)
