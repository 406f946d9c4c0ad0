"""Train a softmax regression and write the model, its learning curve and its last figures."""

import json
import math
import os
import sys

from src import flags

PARAMETERS = {
    "device": flags.DEVICE,
    "threads": flags.integer(1, 1024),
    "processes": flags.integer(1, 1024),
    "seed": flags.integer(0, 2**63 - 1),
    "init": (str, ("uniform", "normal", "zeros").__contains__, "uniform, normal or zeros"),
    "epochs": flags.integer(1, 10_000),
    "batch_size": (int, lambda value: value >= 1, "an integer from 1 to the number of rows"),
    "learning_rate": (float, lambda value: 0 < value < math.inf, "a finite number above 0"),
    "shuffle": flags.BOOLEAN,
    "drop_last": flags.BOOLEAN,
}
PATHS = ("train_data", "test_data", "model", "recipe", "metrics", "learning_curve")
# What shapes the model: every parameter but those that only say where it is computed.
RECIPE = ("init", "seed", "epochs", "batch_size", "learning_rate", "shuffle", "drop_last")


def main(argv: list[str] | None = None) -> None:
    parser, arguments = flags.parse("train", PARAMETERS, PATHS, argv)
    under_torchrun = {"RANK", "WORLD_SIZE"} <= os.environ.keys()
    processes = int(os.environ["WORLD_SIZE"]) if under_torchrun else arguments.processes
    if arguments.batch_size < processes:
        parser.error(
            f"argument --batch_size: {arguments.batch_size} is less than the {processes} processes"
        )
    # Imported only now, so that a bad parameter is refused at once.
    with flags.importing("train"):
        import torch
        from tqdm import tqdm

        from src import dataset, device, records, softmax_regression, tensors, training

        if under_torchrun or processes > 1:
            from src import distributed

    if processes > 1 and not under_torchrun:
        words = sys.argv[1:] if argv is None else argv
        sys.exit(distributed.launch(processes, "-m", "stages.train", *words))
    torch.set_num_threads(arguments.threads)
    try:
        name = distributed.device_name(arguments.device) if under_torchrun else arguments.device
        chosen = device.choose(name)
    except ValueError as error:
        parser.error(f"argument --device: {error}")
    dtype = device.float_type(chosen)
    if dtype != torch.float64:
        print(f"train: {chosen} computes in float32: the saved bits are not promised there")
    group = distributed.Group(chosen) if under_torchrun else None
    # One process of each machine looks through the whole file; if that is damaged, the others end
    # with it in their first step. They touch the rows of their shares alone.
    images, labels = dataset.read(
        arguments.train_data, verify=group is None or group.local_rank == 0
    )
    if arguments.batch_size > len(labels):
        parser.error(
            f"argument --batch_size: {arguments.batch_size} is more than the rows that train; "
            f"allowed: 1 to {len(labels)}"
        )
    parameters = softmax_regression.start(arguments.init, arguments.seed).to(chosen, dtype)
    recipe = {name: getattr(arguments, name) for name in RECIPE}
    settings = {name: value for name, value in recipe.items() if name != "init"}
    if group:
        data = tensors.recorded_checksum(arguments.train_data)
        group.agree(**recipe, train_data=data)
        settings |= {"share": group.share, "reduce": group.add_up}
    else:
        images = images.to(chosen)  # one process has all rows there; several send their shares
    epochs = training.train(parameters, images, labels.to(chosen), **settings)
    first = group is None or group.rank == 0  # the one process that scores, prints and writes
    if first:
        test_images, test_labels = (part.to(chosen) for part in dataset.read(arguments.test_data))
    curve = []
    try:
        # disable=None: a bar on a terminal, plain lines elsewhere
        for epoch, (loss, accuracy) in enumerate(
            tqdm(epochs, total=arguments.epochs, unit="epoch", leave=False, disable=None), 1
        ):
            if not first:
                continue
            test_loss, test_accuracy = softmax_regression.score(
                softmax_regression.to_grid(parameters),  # as the model would be saved now
                test_images,
                test_labels,
                arguments.batch_size,
            )
            curve.append((epoch, "train", loss, accuracy))
            curve.append((epoch, "test", test_loss, test_accuracy))
            tqdm.write(
                f"epoch {epoch:>{len(str(arguments.epochs))}}/{arguments.epochs}"
                f"  train loss {loss:.4f}  test loss {test_loss:.4f}"
                f"  test accuracy {test_accuracy:.2%}"
            )
    except FloatingPointError as error:
        parser.error(f"argument --learning_rate: {error}")
    if not first:
        return
    records.write_csv(arguments.learning_curve, ("epoch", "split", "loss", "accuracy"), curve)
    records.write_json(arguments.metrics, {"loss": loss, "accuracy": accuracy})
    records.write(arguments.recipe, json.dumps(recipe, indent=2) + "\n")
    softmax_regression.save(arguments.model, parameters)


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"train: {str(error) or 'interrupted'}")
