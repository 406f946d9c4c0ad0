"""Train the chosen model, and write it with its recipe, its start and its learning curve."""

import torch
from tqdm import tqdm

from src.common import command, dataset, files, parameters, tensors
from src.common.parameters import ParameterError
from src.learning import device, group, models, scores, training
from src.learning.training import Train

TRAIN_DATA = "data/prepared/train.safetensors"
TEST_DATA = "data/prepared/test.safetensors"
MODEL = "models/model.safetensors"
START = "models/start.safetensors"
RECIPE = "models/recipe.json"
LEARNING_CURVE = "metrics/plots/learning_curve.csv"


@torch.inference_mode()  # no autograd here, whose bookkeeping costs a tenth of a small step
def main() -> None:
    settings = parameters.read("train", Train)
    torch.set_num_threads(settings.threads)
    chosen = device.choose("train.device", settings.device)
    processes = group.join(chosen)
    # One process of each machine looks through the whole file. The others map the rows they need.
    images, labels = dataset.read(TRAIN_DATA, verify=processes.local_rank == 0)
    pixels, classes = images.shape[1], int(labels.max()) + 1
    try:
        model = models.build(settings.model, pixels, classes, chosen)
    except ValueError as error:
        raise ParameterError("train.model", error, settings.model) from error
    training.check(model, len(labels), settings, processes.size)
    recipe = settings.model_dump(exclude={"device", "threads"})
    processes.agree(**recipe, train_data=tensors.recorded_checksum(TRAIN_DATA))
    model.initialize(settings.init, settings.seed)
    start = model.state_dict()
    if processes.size == 1:
        images = images.to(chosen)  # several send the rows of their shares
    is_first = processes.rank == 0
    test_rows = [part.to(chosen) for part in dataset.read(TEST_DATA)] if is_first else []

    curve = []
    epochs = training.train(model, images, labels.to(chosen), settings, processes)
    bar = tqdm(
        epochs,
        total=settings.epochs,
        unit="epoch",
        leave=False,
        disable=None if is_first else True,  # None: a bar on a terminal, plain lines elsewhere
    )
    for epoch, train in enumerate(bar, 1):
        if not is_first:
            continue
        test_images, test_labels = test_rows
        test = scores.score(model.log_probabilities(test_images, settings.batch_size), test_labels)
        digits = model.sha256()[:8]
        curve += [(epoch, "train", *train, digits), (epoch, "test", *test, digits)]
        tqdm.write(
            f"epoch {epoch:>{len(str(settings.epochs))}}/{settings.epochs}"
            f"  train loss {train.loss:.4f}  test loss {test.loss:.4f}"
            f"  test accuracy {test.accuracy:.2%}  {digits}"
        )
    if not is_first:
        return
    files.write_csv(LEARNING_CURVE, ("epoch", "split", "loss", "accuracy", "sha256"), curve)
    files.write_json(
        RECIPE, recipe | {"pixels": pixels, "classes": classes, "layers": model.describe()}
    )
    tensors.write(START, start)
    tensors.write(MODEL, model.state_dict())


if __name__ == "__main__":
    command.run_stage("train", main)
