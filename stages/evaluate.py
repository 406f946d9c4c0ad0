"""Score the model on test and validation rows; write metrics, predictions and class scores."""

import torch

from src import exact
from src.common import command, dataset, files, parameters, tensors
from src.learning import device, models, scores

TEST_DATA = "data/prepared/test.safetensors"
VALIDATION_DATA = "data/prepared/validation.safetensors"
MODEL = "models/model.safetensors"
RECIPE = "models/recipe.json"
METRICS = "metrics/evaluate.json"
PREDICTIONS = "data/predicted/test.safetensors"
CONFUSION = "metrics/plots/confusion.csv"
PER_CLASS = "metrics/plots/per_class.csv"


class Evaluate(parameters.Section):
    """How the model is scored."""

    batch_size: parameters.Count


def main() -> None:
    settings, machine = parameters.read("evaluate", Evaluate), parameters.machine()
    torch.set_num_threads(machine.threads)
    chosen = device.choose("machine.device", machine.device)
    model, recipe = models.load(MODEL, RECIPE, chosen)
    metrics = {}
    for split, path in (("validation", VALIDATION_DATA), ("test", TEST_DATA)):
        rows = dataset.read(path)
        if not len(rows.labels):
            continue
        try:
            log_probabilities = scores.log_probabilities(model, rows.images, settings.batch_size)
        except exact.NotExactError as error:
            raise parameters.ParameterError("train.model", error, recipe["model"]) from error
        predicted = log_probabilities.argmax(dim=1)
        losses = -log_probabilities.gather(1, rows.labels[:, None])[:, 0]
        confusion = scores.confusion_matrix(
            rows.labels.numpy(), predicted.numpy(), log_probabilities.shape[1]
        )
        summary = {"loss": scores.mean(losses), **scores.summary(confusion)}
        metrics[split] = {name: round(value, files.DECIMALS) for name, value in summary.items()}
        print(
            f"evaluate: {split} loss {summary['loss']:.4f}, {split} accuracy"
            f" {summary['accuracy']:.2%} ({summary['correct']:,} of {summary['total']:,})"
        )
    # What follows is of the test rows, which come last.
    names, table = rows.names, scores.per_class(confusion)
    # A row for each image: DVC's confusion template does the counting.
    pairs = zip(rows.labels.tolist(), predicted.tolist(), strict=True)
    files.write_csv(CONFUSION, ("actual", "predicted"), ((names[a], names[p]) for a, p in pairs))
    rows_of_table = ([names[int(row["label"])], *list(row.values())[1:]] for row in table)
    files.write_csv(PER_CLASS, table[0], rows_of_table)
    tensors.write(
        PREDICTIONS, {"log_probabilities": log_probabilities.numpy(), "confusion": confusion}
    )
    files.write_json(METRICS, metrics)


if __name__ == "__main__":
    command.run_stage("evaluate", main)
