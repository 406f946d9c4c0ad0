"""Score the model on every test row; write its metrics, predictions and scores of each class."""

import torch

from src.common import command, dataset, files, parameters, tensors
from src.learning import device, models, scores

TEST_DATA = "data/prepared/test.safetensors"
MODEL = "models/model.safetensors"
RECIPE = "models/recipe.json"
METRICS = "metrics/evaluate.json"
PREDICTIONS = "data/predicted/test.safetensors"
CONFUSION = "metrics/plots/confusion.csv"
PER_CLASS = "metrics/plots/per_class.csv"


class Evaluate(parameters.Section):
    """How the model is scored."""

    device: parameters.Device
    threads: parameters.Threads
    batch_size: parameters.Count


@torch.inference_mode()
def main() -> None:
    settings = parameters.read("evaluate", Evaluate)
    torch.set_num_threads(settings.threads)
    chosen = device.choose("evaluate.device", settings.device)
    model = models.load(MODEL, RECIPE, chosen)
    images, labels = dataset.read(TEST_DATA)
    log_probabilities = model.log_probabilities(images, settings.batch_size).cpu()
    loss, _ = scores.score(log_probabilities, labels)
    predicted = log_probabilities.argmax(dim=1)
    confusion = scores.confusion_matrix(
        labels.numpy(), predicted.numpy(), log_probabilities.shape[1]
    )
    table = scores.per_class(confusion)
    summary = {"loss": loss, **scores.summary(confusion)}

    # A row for each image: DVC's confusion template does the counting.
    pairs = zip(labels.tolist(), predicted.tolist(), strict=True)
    files.write_csv(CONFUSION, ("actual", "predicted"), pairs)
    files.write_csv(PER_CLASS, table[0], (row.values() for row in table))
    tensors.write(
        PREDICTIONS, {"log_probabilities": log_probabilities.numpy(), "confusion": confusion}
    )
    files.write_json(
        METRICS, {name: round(value, files.DECIMALS) for name, value in summary.items()}
    )
    print(
        f"evaluate: loss {loss:.4f}, accuracy {summary['accuracy']:.2%}"
        f" ({summary['correct']:,} of {summary['total']:,})"
    )


if __name__ == "__main__":
    command.run_stage("evaluate", main)
