"""Hold dvc.yaml and params.yaml to what the stages import and take.

DVC re-runs a stage when a dep that dvc.yaml lists has changed, and knows of no others: a module
that is imported but not listed leaves stale results marked up to date, and one that is listed but
not imported re-runs the stage for nothing. Both are errors here, found without running anything.
"""

import ast
import shlex
import sys
from itertools import permutations
from pathlib import Path, PurePosixPath

import yaml

# The installed packages: a dep of every stage but one whose result a digest pins.
ENVIRONMENT = "requirements.lock"
DIGEST = "sha256"
FLAG_TABLES = {"PARAMETERS", "PATHS"}
# With others (frozen, always_changed, wdir) a stage runs at other times or in another place.
OUTPUTS = ("outs", "metrics", "plots")
STAGE_KEYS = {"desc", "cmd", "params", "deps", *OUTPUTS}
# With these a module imports what no reader of its text can name.
DYNAMIC_MODULES = {"imp", "importlib", "pkgutil", "runpy"}
DYNAMIC_NAMES = {"__import__", "eval", "exec"}


def check(root: Path) -> list[str]:
    """Return what is wrong in a checkout: where, which line to add or delete, and why.

    Raises:
        OSError, yaml.YAMLError, SyntaxError: a file is missing or cannot be read.
    """
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    stages = pipeline["stages"]
    scripts = {file.stem for file in (root / "stages").glob("*.py")} - {"__init__"}
    errors = [
        f"dvc.yaml: stage {name}: stages/{name}.py is missing: add it, or delete the stage"
        for name in sorted(stages.keys() - scripts)
    ]
    errors += [
        f"stages/{name}.py: no stage of dvc.yaml runs it: delete it, or add a stage {name}"
        for name in sorted(scripts - stages.keys())
    ]
    errors += [
        f"params.yaml: delete section {name}: dvc.yaml has no stage {name}"
        for name in sorted(params.keys() - stages.keys())
    ]
    modules: dict[str, dict[str, str]] = {}
    for name in sorted(stages.keys() & scripts):
        modules[name], found = local_modules(root, f"stages/{name}.py")
        errors += found
        errors += check_deps(name, stages[name], params.get(name), modules[name])
        errors += check_flags(name, stages[name], params.get(name), stage_flags(root, name))
    common = set.intersection(*map(set, modules.values())) if modules else set()
    errors += [
        f"{path}: split it: every stage imports it, so that any edit of it re-runs them all"
        for path in sorted(common)
    ]
    return list(dict.fromkeys(errors + check_outputs(pipeline)))


def local_modules(root: Path, script: str) -> tuple[dict[str, str], list[str]]:
    """Walk a script's imports, those of its imports, and so on, inside functions too.

    Returns:
        {local file: the file that imports it}, the script itself and empty `__init__.py` files
        left out; and what is wrong with them.
    """
    importers = {script: ""}
    errors = []
    waiting = [script]
    for path in waiting:  # grows on the way
        names, dynamic = imports(root, path)
        errors += [
            f"{path}: delete {name}: imports that are not written out cannot be checked"
            for name in dynamic
        ]
        for name in names:
            parts = name.split(".")
            stems = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
            for found in [f"{stem}{end}" for stem in stems for end in (".py", "/__init__.py")]:
                file = root / found
                if found not in importers and file.is_file() and file.stat().st_size:
                    importers[found] = path
                    waiting.append(found)
    del importers[script]
    errors += [
        f"{path}: empty it: it runs with the import of any module beside it"
        for path in importers
        if path.endswith("__init__.py")
    ]
    return importers, errors


def imports(root: Path, path: str) -> tuple[list[str], list[str]]:
    """Return the dotted names that a module may import, and the dynamic ones among its names."""
    names, used = set(), set()
    for node in ast.walk(ast.parse((root / path).read_bytes(), path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = PurePosixPath(path).parts[: -node.level] if node.level else ()
            origin = ".".join([*parents, *filter(None, [node.module])])
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Name):
            used.add(node.id)
    dynamic = {name for name in names if name.split(".")[0] in DYNAMIC_MODULES}
    return sorted(names), sorted(dynamic | (used & DYNAMIC_NAMES))


def stage_flags(root: Path, stage: str) -> set[str]:
    """Return the names, without dashes, of the flags that a stage script takes.

    They are the keys of its PARAMETERS, its PATHS, and what it adds to a parser itself.
    """
    names: list[ast.expr | None] = []
    for node in ast.walk(ast.parse((root / "stages" / f"{stage}.py").read_bytes())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in FLAG_TABLES:
            names += getattr(node.value, "keys", getattr(node.value, "elts", []))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names += node.args
    return {name.value.removeprefix("--") for name in names if isinstance(name, ast.Constant)}


def listed(stage: dict, *keys: str) -> dict[str, dict]:
    """Return {path: its options} of a stage's deps, outs, metrics or plots."""
    entries = [entry for key in keys for entry in stage.get(key) or []]
    pairs = [next(iter(e.items())) if isinstance(e, dict) else (e, {}) for e in entries]
    return {str(PurePosixPath(path)): options or {} for path, options in pairs}


def begin(name: str, section: dict | None) -> str:
    """Return how a stage's cmd begins: with its script, and its own section as flags."""
    return f"python -m stages.{name}" + (f" ${{{name}}}" if section else "")


def cmd_flags(name: str, stage: dict, section: dict | None) -> dict[str, list[str]]:
    """Return {flag: paths} of what a stage's cmd passes after its section."""
    flags, last = {}, "?"
    for word in shlex.split(stage.get("cmd", ""))[len(begin(name, section).split()) :]:
        if word.startswith("--"):
            flags[last := word.removeprefix("--")] = []
        else:
            flags.setdefault(last, []).append(str(PurePosixPath(word)))
    return flags


def check_deps(
    name: str, stage: dict, section: dict | None, importers: dict[str, str]
) -> list[str]:
    """Hold a stage's deps and outs to its imports, its environment and the paths in its cmd."""
    where = f"dvc.yaml: stage {name}:"
    deps, outs = listed(stage, "deps"), listed(stage, *OUTPUTS)
    passed = {
        path: flag for flag, paths in cmd_flags(name, stage, section).items() for path in paths
    }
    needed = {path: f"{importer} imports it" for path, importer in importers.items()}
    needed[f"stages/{name}.py"] = "cmd runs it"
    if DIGEST not in (section or {}):
        needed[ENVIRONMENT] = f"other packages may give other results; no {DIGEST} pins them here"
    for path in passed.keys() - outs.keys():
        needed.setdefault(path, f"cmd passes it to --{passed[path]} (if written: under outs)")
    errors = [
        f"{where} add the line '- {path}' under deps: {needed[path]}"
        for path in sorted(needed.keys() - deps)
    ]
    errors += [
        f"{where} delete the line '- {path}' under deps: stages/{name}.py neither imports it "
        "nor gets it by a flag"
        for path in sorted(deps.keys() - needed)
    ]
    errors += [
        f"{where} delete the line '- {path}' under outs, or pass it to a flag in cmd"
        for path in sorted(outs.keys() - passed)
    ]
    return errors


def check_flags(name: str, stage: dict, section: dict | None, flags: set[str]) -> list[str]:
    """Hold the flags that a stage takes to its section's keys and its cmd's paths."""
    where, script = f"dvc.yaml: stage {name}:", f"stages/{name}.py"
    keys, passed = set(section or {}), cmd_flags(name, stage, section)
    errors = []
    if not f"{' '.join(stage.get('cmd', '').split())} ".startswith(f"{begin(name, section)} "):
        errors.append(f"{where} begin cmd with '{begin(name, section)}'")
    if (stage.get("params") or []) != ([name] if section else []):
        errors.append(f"{where} make its params '[{name if section else ''}]', its own section")
    errors += [
        f"params.yaml: stage {name}: delete the line '{key}: ...', or add --{key} to {script}"
        for key in sorted(keys - flags)
    ]
    errors += [
        f"{where} delete '--{flag}' from cmd, or add it to {script}"
        for flag in sorted(passed.keys() - flags)
    ]
    errors += [
        f"{where} delete '--{flag}' from cmd: a setting belongs in section {name} of params.yaml"
        for flag in sorted(passed)
        if flag in keys or not passed[flag]
    ]
    errors += [
        f"{script}: stage {name}: nothing gives --{flag}: add the line '{flag}: ...' to section "
        f"{name} of params.yaml, or '--{flag} PATH' to cmd in dvc.yaml"
        for flag in sorted(flags - passed.keys() - keys)
    ]
    errors += [
        f"{where} delete the line '{key}: ...': only its deps may decide when a stage runs"
        for key in sorted(stage.keys() - STAGE_KEYS)
    ]
    return errors


def check_outputs(pipeline: dict) -> list[str]:
    """Hold the outputs of all stages to each other and to what metrics, plots and artifacts name.

    A metric or a plot that is kept in the cache does not show in a fresh clone.
    """
    outputs = [
        (path, name, options)
        for name, stage in pipeline["stages"].items()
        for path, options in listed(stage, *OUTPUTS).items()
    ]
    shown = set(listed(pipeline, "metrics"))
    for stage in pipeline["stages"].values():
        shown |= listed(stage, "metrics", "plots").keys()
    for plot, options in listed(pipeline, "plots").items():
        files = [axis for axis in options.values() if isinstance(axis, dict)]
        shown |= {path for axis in files for path in axis} or {plot}
    kept = {artifact["path"] for artifact in (pipeline.get("artifacts") or {}).values()}
    errors = [
        f"dvc.yaml: no stage writes {path}: delete it, or add it to the outputs of a stage"
        for path in sorted((shown | kept) - {path for path, *_ in outputs})
    ]
    errors += [
        f"dvc.yaml: stage {name}: add the line 'cache: false' under '- {path}:', or a fresh clone "
        "does not show it"
        for path, name, options in outputs
        if path in shown and options.get("cache", True)
    ]
    errors += [
        f"dvc.yaml: stage {name}: delete '- {path}': it overlaps {other}, an output of {owner}"
        for (path, name, _), (other, owner, _) in permutations(outputs, 2)
        if PurePosixPath(path).is_relative_to(other)
    ]
    return errors


def main() -> None:
    try:
        errors = check(Path())
    except (OSError, yaml.YAMLError, SyntaxError) as error:
        sys.exit(f"check_graph: {error}")
    for error in errors:
        print(error, file=sys.stderr)
    if errors:
        sys.exit(f"check_graph: {len(errors)} to mend")
    print("check_graph: dvc.yaml and params.yaml list exactly what the stages import and take")


if __name__ == "__main__":
    main()
