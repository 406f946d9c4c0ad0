"""A list of faults, one for each promise: each must turn a test red. `make mutants` runs it.

Each fault is a piece of the code and what stands there instead. It is put into a copy of the
project, and the test that it names must fail there. Where the code has changed and a piece is no
longer found, change the list with it.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.support import clones
from tests.support.clones import REPOSITORY


class Mutant(NamedTuple):
    """A fault: where, what stands there, what stands there instead, and the test that sees it."""

    path: str
    old: str
    new: str
    test: str

    def __str__(self) -> str:
        return f"{self.path}: {self.old!r} -> {self.new!r}"


# By the file and the tests that see them: what stands there, and what stands there instead.
FAULTS = {
    ("src/exact/grids.py", "tests/exact/test_grids.py"): [
        ("return values.add_(c).sub_(c)", "return values"),
        ("1.5 * 2**52", "1.5 * 2**51"),
        ("1.5 * 2**23", "1.5 * 2**24"),
    ],
    ("src/exact/grids.py", "tests/exact/test_modules.py"): [
        ("log2_up(inputs + 1)", "log2_up(1)"),
        ("log2_up(each * rows)", "log2_up(rows)"),
        ("if bits < 2 * FEWEST", "if bits < 0"),
    ],
    ("src/exact/modules.py", "tests/exact/test_modules.py"): [
        ("x = _snap(flat, inputs)", "x = flat.double()"),
        ("x = _snap(x, inputs)", "x = x.double()"),
        ("error = errors.snap(given[0])", "error = given[0]"),
        ("given[0] * ctx.is_within", "given[0]"),
        ("back = grids.ERRORS.round_(", "back = ("),
        ("y.register_hook(_snap_errors)", "pass"),
        ("error = grids.ERRORS.snap(given[0] / counts)", "error = given[0] / counts"),
        ("dilation[0] * b, dilation[1] * c, stride", "b, c, stride"),
        ("i * dilation[0], j * dilation[1]", "i, j"),
        ("count_include_pad else inside", "count_include_pad else padded"),
        ("variance * (count / (count - 1))", "variance"),
        ("(kept + new * self.momentum).float()", "(kept + new * self.momentum)"),
        ("1 / (1 - share)", "1.0"),
        (".random(shape)[now.rows]", ".random((len(x), *shape[1:]))"),
        ("if kind in TWINS:", "if isinstance(module, tuple(TWINS)):"),
        ('if self.padding_mode == "zeros"', "if True"),
        ("elif not _is_own(kind):", "elif False:"),
    ],
    ("src/exact/modules.py", "tests/learning/test_training.py -k processes"): [
        ("            if add_up:\n", "            if False:\n"),
        ("            if ctx.add_up:\n", "            if False:\n"),
        ("if not ctx.is_first", "if False"),
    ],
    ("src/exact/modules.py", "tests/learning/test_training.py -k whole_numbers"): [
        ("x = _snap(input, grids.NORMALIZED)", "x = input.double()")
    ],
    ("src/exact/loss.py", "tests/learning/test_training.py -k whole_numbers"): [
        ("grids.LOGIT_ERRORS.round_(error)", "error")
    ],
    ("src/exact/watch.py", "tests/exact/test_training_parts.py"): [
        ("float(value).is_integer() for value", "True for value"),
        ("if plain not in SAFE", "if False"),
        ('named.get("alpha", 1) != 1', "False"),
        ("and not _is_power(float(args[1]))", "and False"),
        ("and _overlaps(args[1:])", "and False"),
        ("_check_sum(args)", "pass"),
        ("stepping.is_inside_a_twin()", "True"),
    ],
    ("src/exact/loss.py", "tests/exact/test_training_parts.py"): [
        ('if reduction != "sum"', "if False"),
        ("places, error.new_full(places.shape, -1)", "places, error.new_full(places.shape, 0)"),
    ],
    ("src/exact/optim.py", "tests/learning/test_training.py -k follows"): [
        ("functions.sqrt(state", "torch.sqrt(state")
    ],
    ("src/exact/optim.py", "tests/exact/test_training_parts.py"): [
        ("parameter._version != version", "False"),
        ('state["beta2_power"] *= beta2', 'state["beta2_power"] *= beta1'),
        (
            "self._update(index, group, rows)\n        self._snap()",
            "self._update(index, group, rows)",
        ),
        ('group["lr"] * group["weight_decay"]', 'group["weight_decay"]'),
    ],
    ("src/exact/seeded.py", "tests/exact/test_training_parts.py"): [
        ("if not draws and not is_allowed", "if False"),
        ("last + 1, shape) * step", "last, shape) * step"),
    ],
    ("src/exact/functions.py", "tests/exact/test_functions.py"): [
        ("range(11, -1, -1)", "range(7, -1, -1)")
    ],
    ("src/learning/training.py", "tests/learning/test_training.py -k follows"): [
        ("exact if settings.exact else torch.optim, groups", "torch.optim, groups"),
        ("divide_gradients(model, batch.size)", "pass"),
        ("if p.dim() > 1], settings", "if p.dim() > 0], settings"),
    ],
    ("src/learning/batches.py", "tests/learning/test_training.py"): [
        ("default_rng([settings.seed, epoch])", "default_rng(settings.seed)"),
        ("if not (down or right)", "if not (down and right)"),
    ],
    ("src/learning/checks.py", "tests/learning/test_training.py -k refuse"): [
        ("if not torch.equal(logits(", "if False and not torch.equal(logits("),
        ("if name not in saved and not", "if False and not"),
    ],
    ("tools/predict.py", "tests/pipeline/test_own_data.py"): [
        ('read_as_folder if recipe["from_pictures"] else read', "read"),
    ],
    ("src/learning/training.py", "tests/learning/test_training.py -k processes"): [
        ("optimizer.step(batch.size)", "optimizer.step(len(y))")
    ],
    ("src/learning/training.py", "tests/learning/test_training.py -k whole_numbers"): [
        ("model.buffers()]", "[]]")
    ],
    ("src/learning/training.py", "tests/learning/test_training.py -k patience"): [
        ('result.loss >= state["best"]["loss"]', "False"),
        ('- state["best"]["epoch"] >= settings', '- state["best"]["epoch"] > settings'),
    ],
    ("src/learning/checkpoint.py", "tests/learning/test_training.py -k damaged"): [
        ("if head != MAGIC", "if False and head != MAGIC")
    ],
    ("src/learning/group.py", "tests/learning/test_group.py"): [
        ("rows * (self.rank + 1)", "rows * self.rank + 1")
    ],
    ("src/learning/scores.py", "tests/stages/test_evaluate.py"): [
        ("2 * hits / (predicted", "hits / (predicted"),
        ("actual * classes + predicted", "predicted * classes + actual"),
    ],
    ("src/learning/scores.py", "tests/learning/test_training.py"): [("    model.eval()\n", "")],
    ("src/learning/models.py", "tests/stages/test_evaluate.py"): [
        ('if repr(model) != recipe["module"]', "if False")
    ],
    ("src/common/tensors.py", "tests/common/test_tensors.py"): [
        ("arrays[name].data, crc)", "arrays[name].data)"),
        ("np.ascontiguousarray(array)", "array"),
    ],
    ("src/common/files.py", "tests/common/test_files.py"): [
        ("            part.unlink()", "            pass"),
        ("os.replace(part, path)", "pass"),
        ("except (*FORM, OSError) as error", "except Exception as error"),
    ],
    ("src/common/dataset.py", "tests/common/test_dataset.py"): [
        ("digest.update(np.ascontiguousarray(labels).data)", "pass"),
        ("sha256(images, labels)) != pinned", "pinned) != pinned"),
    ],
    ("src/common/parameters.py", "tests/common/test_parameters.py"): [
        ('extra="forbid"', 'extra="ignore"'),
        ("strict=True", "strict=False"),
    ],
    ("src/common/files.py", "tests/common/test_parameters.py"): [
        ('return YAML(typ="safe").load(text)', "import yaml\n\n        return yaml.safe_load(text)")
    ],
    ("src/common/command.py", "tests/common/test_command.py"): [
        ("2 if isinstance(error, UsageError) else 1", "1")
    ],
    ("stages/fetch.py", "tests/stages/test_fetch.py"): [
        ("except (dataset.WrongContentError, home.LocalError):", "except home.LocalError:")
    ],
    ("stages/prepare.py", "tests/stages/test_prepare.py"): [
        ("    check_classes(raw, settings.splits)", ""),
        ("images.swapaxes(2, 3)", "images"),
        ('raise ValueError(f"{one}_rows', 'print(f"{one}_rows'),
    ],
    ("src/sources/wheel.py", "tests/faults/test_wheel.py"): [
        ("            download(wheel, timeout)", "            pass")
    ],
    ("src/sources/wheel.py", "tests/sources/test_wheel.py"): [
        ("return _Inert", "return super().find_class(module, name)")
    ],
    ("src/sources/openml.py", "tests/sources/test_openml.py"): [
        ("sorted(allowed, key=int)", "sorted(allowed)")
    ],
    ("src/sources/folder.py", "tests/sources/test_folder.py"): [
        ("picture.transpose(UPRIGHT[turn])", "picture"),
        ("order = _mixed(labels)", "order = np.arange(len(labels))"),
        ("if not 1 < len(names)", "if not 0 < len(names)"),
    ],
    # The page: what it says, what it carries, and what its scripts compute.
    ("src/report/page.py", "tests/report/test_page.py -m fast"): [
        (
            'metrics["test"][name], form)',
            'metrics["test"][{"accuracy": "error_rate"}.get(name, name)], form)',
        ),
        (
            'metrics["test"][name], form)',
            'metrics["test"][name] * (2 if name == "loss" else 1), form)',
        ),
        ('recipe["epoch"] * steps', "99 * steps"),
    ],
    ("stages/report.py", "tests/report/test_page.py -m fast"): [
        ('[row["f1"] for row', '[row["recall"] for row'),
        (
            "page.state({} if off or untrainable else start)",
            "page.state({} if off or untrainable else model)",
        ),
    ],
    ("src/report/model.js", "tests/report/test_page.py -m fast"): [
        ("value * scale)", "value)"),
        ("across[left];", "across[0];"),
        ("(node.count_include_pad ? all : inside)", "inside"),
        ("<= 1e-4 && probabilities", "<= 1 && probabilities"),
    ],
    ("src/report/ink.js", "tests/report/test_page.py -m fast"): [
        ("WIDTH * 14.5 / 28, WIDTH)", "WIDTH / 2, WIDTH)")
    ],
    ("src/report/training.js", "tests/report/test_page.py -m fast"): [
        ("values[i] -= slopes[i] * scale", "values[i] -= slopes[i] / rows.length * rate"),
        (
            "velocities[i] * momentum + slopes[i] / rows.length",
            "velocities[i] * momentum + slopes[i]",
        ),
    ],
    ("src/learning/snapshots.py", "tests/learning/test_snapshots.py"): [
        (".round().to(torch.int8)", ".to(torch.int8)")
    ],
    ("src/learning/training.py", "tests/learning/test_training.py -k stopped"): [
        ('found["history"]', "[]")
    ],
}
MUTANTS = [
    Mutant(path, old, new, test) for (path, test), pairs in FAULTS.items() for old, new in pairs
]


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
    text = (REPOSITORY / mutant.path).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"found {text.count(mutant.old)} times, not once: change tests/mutants.py"
    with tempfile.TemporaryDirectory() as folder:
        clones.copy_files(Path(folder))
        Path(folder, mutant.path).write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        result = run(Path(folder), mutant.test)
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
        for sound in pool.map(partial(run, REPOSITORY), sorted({mutant.test for mutant in chosen})):
            if sound.returncode:
                sys.exit(f"a test fails without any fault:\n{sound.stdout[-2000:]}")
        for mutant, why in zip(chosen, pool.map(trouble, chosen), strict=True):
            alive += bool(why)
            print(f"{'ALIVE' if why else 'killed'}  {mutant}  {why}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants are killed")
    sys.exit(alive > 0)


if __name__ == "__main__":
    main()
