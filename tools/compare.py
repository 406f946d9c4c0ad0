"""Compare experiments: a table of what differs and of the scores, and a picture with its data."""

import argparse
import fnmatch
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src.common import command

NOTES = """\
Without a NAME, all experiments of all commits; a NAME may be a pattern, or a branch or a commit.
Runs that differ by train.seed alone are one row: mean, +- (spread: standard deviation), number. The
best accuracy comes first. Choose by the validation rows; look at the test rows once, at the end.

  python -m tools.compare                    all experiments, validation rows
  python -m tools.compare 'grid-*' main      some of them, and what main has
  python -m tools.compare chosen --test      one look at the test rows
"""
FOLDER = Path("metrics/compare")
PARAMETERS, METRICS, SEED = "params.yaml", "metrics/evaluate.json", "train.seed"
SPLITS, SCORES = ("validation", "test"), ("accuracy", "loss")
WIDTH, NAME = 80, 20  # of the table, and of the names in it
NO_SCORES = ("src/report", "stages/report.py")  # code behind the scores: it cannot change them
SPREAD = "+-"
CODE = "code"  # the column that says which code and pins ran


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare",
        description=__doc__,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="an experiment; all without one")
    parser.add_argument("--test", action="store_true", help="show the scores of the test rows, too")
    arguments = parser.parse_args()
    runs = chosen(pd.DataFrame(records(shown_by_dvc(arguments.name))), arguments.name)
    runs = runs.sort_values("name", kind="stable")
    has_validation = bool(runs["validation accuracy"].notna().any())
    split = SPLITS[0] if has_validation else SPLITS[1]
    scored = runs[f"{split} accuracy"].notna()
    if left_out := [*runs.loc[~scored, "name"]]:
        say(f"Left out, as they have no scores of {split} rows: {', '.join(left_out)}.")
    if not scored.any():
        raise command.UsageError("none of these experiments has scores")
    runs = runs[scored].copy()
    settings = differing(runs)
    runs[settings] = runs[settings].map(plain)
    columns = {f"{split} {score}": score for score in SCORES}
    shown = [split]
    if has_validation and arguments.test:
        # Their losses would not fit; the picture's data have them.
        columns = {"validation accuracy": "validation", "test accuracy": "test"}
        shown = [*SPLITS]
    what = "Accuracy in %" if len(shown) > 1 else "Accuracy in %, and loss,"
    say(f"{what} of the {' and '.join(shown)} rows:")
    print(table(runs, settings, columns).to_string(line_width=WIDTH))
    if not has_validation:
        say(
            "There are no validation rows. A choice by these scores is a choice by test rows: the "
            "best may only be lucky on them. prepare.validation_rows in params.yaml sets some aside"
        )
    keep(runs, settings, shown)
    return 0


def say(text: str) -> None:
    """Print a sentence in lines that fit."""
    print(textwrap.fill(text, WIDTH, break_on_hyphens=False))


def git(*asked: str) -> list[str]:
    """Return the lines that Git prints, none if it fails: DVC has the better message."""
    return subprocess.run(
        ["git", *asked], capture_output=True, text=True, check=False
    ).stdout.splitlines()


def shown_by_dvc(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what DVC says of the commits that have experiments, of HEAD and of those named.

    An experiment stays at the commit it began at. DVC's own --all-commits takes a minute for some
    hundreds of commits, so Git is asked which have experiments: refs/exps/COMMIT/NAME.

    Raises:
        OSError: DVC's own reason.
    """
    refs = "\n".join(git("for-each-ref", "--format=%(refname)", "refs/exps"))
    began = re.findall(r"^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/", refs, re.M)
    commits = {first + rest for first, rest in began}
    for name in ("HEAD", *names):
        commits |= {*git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")}
    asked = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    asked += [part for commit in sorted(commits) for part in ("--rev", commit)]
    result = subprocess.run(asked, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        reason = reasons[0].removeprefix("ERROR: ") if reasons else f"status {result.returncode}"
        raise OSError(f"DVC cannot show the experiments: {reason}")
    shown: list[dict[str, Any]] = json.loads(result.stdout)
    return shown


def records(shown: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give a record for each commit and each experiment.

    Keys are name, revision, is_experiment, CODE, each parameter ("train.seed"), and each score that
    there is ("test loss").
    """
    for commit in shown:
        if commit["rev"] == "workspace":
            continue
        yield record(commit, commit["name"] or commit["rev"][:7], False)
        for experiment in commit["experiments"] or ():
            last = experiment["revs"][0]
            yield record(last, experiment["name"] or last["rev"][:7], True)


def record(run: dict[str, Any], name: str, is_experiment: bool) -> dict[str, Any]:
    """Return the record of a commit or an experiment."""
    data = run["data"] or {}  # null where DVC cannot read the commit
    found = {"name": name, "revision": run["rev"], "is_experiment": is_experiment}
    sections = content(data, "params", PARAMETERS)
    metrics = content(data, "metrics", METRICS)
    for split in SPLITS:
        scores = metrics.get(split)
        for score in SCORES:
            value = scores.get(score) if isinstance(scores, dict) else None
            found[f"{split} {score}"] = float("nan") if value is None else value
    sections.pop("machine", None)  # how to compute is not what is computed
    # Runs of other code or other packages are not told apart by a parameter.
    others = {*data.get("outs", {}), *data.get("metrics", {}), *NO_SCORES}
    read = {path: at["hash"] for path, at in data.get("deps", {}).items() if path not in others}
    pins = {path: of for path, of in data.get("params", {}).items() if path != PARAMETERS}
    text = json.dumps([read, pins], sort_keys=True)
    found[CODE] = hashlib.sha256(text.encode()).hexdigest()[:6]
    return found | dict(flat(sections))


def content(data: dict[str, Any], kind: str, path: str) -> dict[str, Any]:
    found = data.get(kind, {}).get(path, {}).get("data")
    return dict(found) if isinstance(found, dict) else {}


def flat(section: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Give each parameter's full name and its value as JSON; 1.0 is 1, as DVC takes it."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{name}.")
        else:
            whole = isinstance(value, float) and value.is_integer()
            yield f"{above}{name}", json.dumps(int(value) if whole else value).replace(", ", ",")


def chosen(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the experiments, or the rows of these names.

    Raises:
        command.UsageError: a name is unknown, or there are no experiments.
    """
    if runs.empty:
        raise command.UsageError("there is no commit yet, so there are no experiments")
    experiments = runs[runs["is_experiment"]]
    if not names:
        if experiments.empty:
            raise command.UsageError(
                "there are no experiments yet: `dvc exp run --name NAME -S train.seed=1` makes one"
            )
        return experiments.drop_duplicates("revision")
    is_chosen, unknown = pd.Series(False, runs.index), []
    for name in names:
        named = runs["name"].map(lambda found, name=name: fnmatch.fnmatchcase(found, name))
        if len(name) >= 7:
            named |= runs["revision"].str.startswith(name)
        is_chosen |= named
        if not named.any():
            unknown.append(name)
    if unknown:
        there = ", ".join(experiments["name"]) if len(experiments) else "none"
        raise command.UsageError(
            f"no experiment is named {', '.join(unknown)}; "
            + textwrap.shorten(f"there are: {there}", 300, placeholder=" ...")
        )
    return runs[is_chosen].drop_duplicates("revision")


def differing(runs: pd.DataFrame) -> list[str]:
    """Return the parameters that differ between the runs, the seed left out, and CODE if it does.

    One that some runs do not have differs.
    """
    named = [column for column in runs if "." in column and column != SEED]
    return [column for column in [*named, CODE] if runs[column].nunique(dropna=False) > 1]


def gathered(runs: pd.DataFrame, settings: list[str]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give the values of the settings, and the runs that have them."""
    if not settings:
        yield (), runs
    else:
        yield from runs.groupby(settings, sort=False)


def table(runs: pd.DataFrame, settings: list[str], columns: dict[str, str]) -> pd.DataFrame:
    """Return a row for each setting, the best first; `columns` says what to call each score."""
    rows = []
    short = shortened(settings)
    for values, group in gathered(runs, settings):
        # The same run twice is no second seed.
        different = group.drop_duplicates([SEED, *columns] if SEED in group else [*columns])
        row: dict[str, Any] = {"name": title(sorted(group["name"]))}
        row |= {short[name]: cell(value) for name, value in zip(settings, values, strict=True)}
        row["runs"] = len(different)
        for score, name in columns.items():
            row[name], row[f"{name}{SPREAD}"] = mean_and_spread(different[score], score)
        row["rank"] = -different[next(iter(columns))].mean()
        rows.append(row)
    ranked = pd.DataFrame(rows).sort_values("rank", kind="stable").drop(columns="rank")
    ranked.columns = [SPREAD if name.endswith(SPREAD) else name for name in ranked]
    return ranked.set_index("name").rename_axis(None)


def title(names: list[str]) -> str:
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    room = NAME - len(more)
    return (names[0] if len(names[0]) <= room else f"{names[0][: room - 3]}...") + more


def plain(value: object) -> str:
    return value.strip('"') if isinstance(value, str) else "-"  # not a text: the run has none


def cell(text: str) -> str:
    return text if len(text) <= NAME else f"{text[: NAME - 3]}..."


def mean_and_spread(scores: pd.Series, name: str) -> tuple[str, str]:
    factor, digits = (100, 2) if name.endswith("accuracy") else (1, 4)
    mean, spread = factor * scores.mean(), factor * scores.std()
    return (
        "-" if pd.isna(mean) else f"{mean:.{digits}f}",
        "" if pd.isna(spread) else f"{spread:.{digits}f}",
    )


def shortened(names: list[str]) -> dict[str, str]:
    """Return the names without their section, where that leaves no two alike."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: end if last.count(end) == 1 else name for name, end in zip(names, last, strict=True)
    }


def keep(runs: pd.DataFrame, settings: list[str], shown: list[str]) -> None:
    """Write the runs with the scores of the splits that are shown as CSV, and the picture.

    Raises:
        OSError: names the file that cannot be written.
    """
    # A notebook's MPLBACKEND makes the import fail where that backend is not installed.
    os.environ.pop("MPLBACKEND", None)
    from src.common import files
    from src.report import figures

    seed = [SEED] if SEED in runs else []
    scores = [f"{split} {score}" for split in shown for score in SCORES]
    data = runs[["name", *settings, *seed, *scores]]
    files.write(f"{FOLDER}/compare.csv", data.to_csv(index=False, lineterminator="\n"))
    # Where only the seed differs, the picture is of the seed.
    across = settings or ([SEED] if seed and runs[SEED].nunique() > 1 else [])
    if not across:
        say(f"Nothing differs, so there is no picture; {FOLDER}/compare.csv has the scores.")
        return
    score = f"{shown[0]} accuracy"
    figures.write(f"{FOLDER}/compare.png", picture(runs, settings, across, score))
    print(f"Picture: {FOLDER}/compare.png, its data: {FOLDER}/compare.csv")


def picture(runs: pd.DataFrame, settings: list[str], across: list[str], score: str) -> Any:
    """Return a Figure with a panel for each parameter: each run, and the mean of each setting."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from src.report import figures

    width = min(3, len(across))
    figure = Figure((3.4 * width, 3 * -(-len(across) // width)), layout="constrained")
    panels = figure.subplots(-(-len(across) // width), width, sharey=True, squeeze=False).flat
    means = pd.DataFrame(
        group.iloc[0].to_dict() | {score: group[score].mean()}
        for _, group in gathered(runs, settings)
    )
    for panel, name in zip(panels, [*across, *[None] * (len(panels) - len(across))], strict=True):
        if name is None:
            panel.set_visible(False)
            continue
        numbers = pd.to_numeric(runs[name], errors="coerce")
        if numbers.notna().all():
            at = {value: float(value) for value in runs[name]}
            low, high = numbers.min(), numbers.max()
            panel.set_xscale("log" if low > 0 and high / low >= 20 else "linear")
        else:
            texts = sorted(runs[name].map(cell).unique())
            at = {value: float(texts.index(cell(value))) for value in runs[name]}
            panel.set_xticks(range(len(texts)), texts, rotation=20 if len(texts) > 2 else 0)
            panel.set_xlim(-0.5, len(texts) - 0.5)
        panel.plot(runs[name].map(at), runs[score], "o", color=figures.GREY, markersize=4)
        if name in settings:
            panel.plot(means[name].map(at), means[score], "o", color=figures.BLUE)
        panel.set_xlabel(name)
        panel.yaxis.set_major_formatter(PercentFormatter(1))
    figure.supylabel(score.replace(" ", " rows, "), fontsize="medium")
    figure.suptitle("grey: a run; blue: the mean of a setting", fontsize="small")
    return figure


if __name__ == "__main__":
    command.run("compare", main)
