"""Print a recipe of recipes/ as options of `dvc exp run`.

`dvc exp run --temp $(python -m tools.recipe cnn)` runs the pipeline with recipes/cnn.yaml.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pydantic

from src.common import command, files, parameters
from src.learning.settings import Train

FOLDER = Path(__file__).resolve().parent.parent / "recipes"


def names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> dict[str, Any]:
    """Read and check a recipe; return its keys as the file has them.

    Raises:
        UsageError: there is none of that name, or a key is missing, unknown or not allowed.
    """
    if name not in names():
        raise parameters.ParameterError("NAME", f"must be one of {', '.join(names())}", name)
    path = FOLDER / f"{name}.yaml"
    try:
        values: dict[str, Any] = files.parse_yaml(path.read_text(encoding="utf-8"))
        Train.model_validate(values)
    except pydantic.ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise command.UsageError(f"recipes/{path.name}: {'; '.join(faults)}") from error
    except ValueError as error:  # of the YAML
        raise command.UsageError(f"recipes/{path.name} is not YAML: {error}") from error
    return values


def options(values: dict[str, Any]) -> list[str]:
    """Return the words that set every key of train; none has a space, so none needs quotes."""
    words = []
    for key, value in values.items():
        words += ["-S", f"train.{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return words


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(names()))
    name = parser.parse_args().name
    try:
        print(*options(read(name)))
    except command.UsageError:
        print(f"--no-recipe-{name}")  # within $(...), DVC would run without a recipe's options
        raise


if __name__ == "__main__":
    command.run("recipe", main)
