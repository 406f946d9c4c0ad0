"""Loopback stand-in for OpenML, so that the real ``sklearn.datasets.fetch_openml`` runs unpatched.

scikit-learn hard-codes https://www.openml.org, so clients are redirected by environment variables
alone: ``https_proxy`` names an HTTP proxy on 127.0.0.1 which ends TLS itself for openml.org, with a
throw-away certificate that ``SSL_CERT_FILE`` makes trusted, and tunnels every other host untouched.
"""

import contextlib
import hashlib
import json
import os
import re
import select
import socket
import socketserver
import ssl
import struct
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from unittest import mock

import numpy as np
import trustme

# name of a request -> (pattern whose group is the key asked for, OpenML's error when unknown);
# in the order in which fetch_openml sends them
_API = "/api/v1/json/data/"
_ROUTES = {
    "search": (re.compile(_API + "list/data_name/(.+)"), ("372", "No results")),
    "description": (re.compile(_API + r"(\d+)"), ("111", "Unknown dataset")),
    "features": (re.compile(_API + r"features/(\d+)"), ("271", "Unknown dataset")),
    "qualities": (re.compile(_API + r"qualities/(\d+)"), ("361", "Unknown dataset")),
    "data": (re.compile("/data/v1/download/(.+)"), ("1", "File not found")),
}
REQUESTS = tuple(_ROUTES)
REPLY_FAULTS = ("404", "412", "429", "500", "504 twice", "drop", "hang", "short", "stall")
REPLY_FAULTS += ("bad gzip", "corrupt gzip", "html", "drip")
CONTENT_FAULTS = (
    ("description", "wrong md5"),
    ("features", "few attributes"),  # one column too few announced in the metadata
    ("data", "few attributes"),  # one column too few declared in the header of the file
    ("data", "other content"),
    ("data", "label 10"),
    ("data", "extra row"),
)


def encode_arff(images: np.ndarray, labels: np.ndarray, n_pixels: int = 784) -> tuple[bytes, str]:
    """Encode a data set as the ARFF file of mnist_784.

    images: uint8 (N, 784), grey levels 0..255; labels: uint8 (N,); n_pixels: number of pixel
    attributes declared in the header (the rows always have 784).
    Returns the gzipped file and the md5 (hex digits) of the unpacked text.
    """
    header = "".join(f"@ATTRIBUTE pixel{i} real\n" for i in range(1, n_pixels + 1))
    header = f"@RELATION mnist_784\n\n{header}@ATTRIBUTE class {{0,1,2,3,4,5,6,7,8,9}}\n\n@DATA\n"
    # Each value is looked up as a 4-byte cell padded with NULs, which are dropped afterwards: far
    # faster than formatting 55 million integers one by one
    pixel_text = np.array([f"{value},".encode() for value in range(256)], dtype="S4")
    label_text = np.array([f"{value}\n".encode() for value in range(256)], dtype="S4")
    md5, gzip = hashlib.md5(header.encode()), zlib.compressobj(1, wbits=31)
    parts = [gzip.compress(header.encode())]
    for start in range(0, len(images), 2000):
        rows = slice(start, start + 2000)
        cells = np.column_stack([pixel_text[images[rows]], label_text[labels[rows]]])
        codes = cells.view(np.uint8).ravel()
        text = codes[codes != 0].tobytes()
        md5.update(text)
        parts.append(gzip.compress(text))
    return b"".join([*parts, gzip.flush()]), md5.hexdigest()


def cached_arff(folder: Path, images: np.ndarray, labels: np.ndarray) -> tuple[bytes, str]:
    """``encode_arff``, kept in an existing folder that parallel test workers can share."""
    key = hashlib.sha256(np.ascontiguousarray(images))
    key.update(np.ascontiguousarray(labels))
    for path in Path(folder).glob(f"{key.hexdigest()}-*.arff.gz"):
        return path.read_bytes(), path.name.removesuffix(".arff.gz").split("-")[1]
    body, md5 = encode_arff(images, labels)
    # Workers may race here; the rename is atomic, so that none reads a partial file
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(body)
    Path(file.name).replace(Path(folder) / f"{key.hexdigest()}-{md5}.arff.gz")
    return body, md5


@contextlib.contextmanager
def environment(env: dict[str, str]) -> Iterator[None]:
    """Apply ``OpenML.env`` (or ``env_refused``, ``env_unresolved``) to this process for a block.

    Setting the variables is not enough in a process that has already opened a URL: urllib reads
    the proxies once and keeps the opener built from them.
    """
    with mock.patch.dict(os.environ, env):
        urllib.request.install_opener(None)
        try:
            yield
        finally:
            urllib.request.install_opener(None)


class OpenML:
    """Context manager: one data set, answered for as OpenML does, behind a proxy on 127.0.0.1.

    images: uint8 (N, 784); labels: uint8 (N,); arff: ``encode_arff(images, labels)`` if at hand.

    ``env``, ``env_refused`` and ``env_unresolved`` are what a client needs in its environment to
    reach the server, a closed port, or a proxy whose name does not resolve. ``requests`` lists the
    names of the requests received so far, failed attempts included.
    """

    def __init__(self, images, labels, name="mnist_784", version=1, data_id=554, arff=None):
        self.images, self.labels = images, labels
        self.name, self.version, self.data_id = name, version, data_id
        self.file_name = f"52667/{name}.arff"  # OpenML's file number of mnist_784
        self.requests: list[str] = []
        self.fault = None
        self._healthy_arff = arff or encode_arff(images, labels)

        authority = trustme.CA()
        trusted = ssl.get_default_verify_paths().cafile  # SSL_CERT_FILE if that is set
        self._folder = tempfile.TemporaryDirectory(prefix="openml-")
        bundle = Path(self._folder.name) / "ca-bundle.pem"
        bundle.write_bytes(Path(trusted).read_bytes() + b"\n" if trusted else b"")
        authority.cert_pem.write_to_path(bundle, append=True)
        self._proxy = _Proxy(self, authority)
        self._closed_port = socket.socket()  # bound but not listening: refuses, and stays reserved
        self._closed_port.bind(("127.0.0.1", 0))

        def env(host: str, port: int) -> dict[str, str]:
            url = f"http://{host}:{port}"
            trust = {"SSL_CERT_FILE": str(bundle)}
            return {"https_proxy": url, "HTTPS_PROXY": url, "no_proxy": "", "NO_PROXY": ""} | trust

        self.env = env(*self._proxy.server_address)
        self.env_refused = env(*self._closed_port.getsockname())
        self.env_unresolved = env("proxy.invalid", 3128)

    def __enter__(self) -> "OpenML":
        self._proxy.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """Stop within a second, cutting the connections still open."""
        self._proxy.stop()
        self._closed_port.close()
        self._folder.cleanup()

    @property
    def fault(self) -> tuple[str, str] | None:
        """None, or (request name, kind): one of CONTENT_FAULTS or any name with a REPLY_FAULTS.

        A reply fault meets every request of that name, "504 twice" the first two from now on. A
        content fault comes with the md5 of the altered file, save for "wrong md5" itself.
        """
        return self._fault

    @fault.setter
    def fault(self, fault: tuple[str, str] | None) -> None:
        # A misspelt fault would leave the server healthy, and the test of a failure meaningless
        known = (None, *CONTENT_FAULTS, *((name, k) for name in REQUESTS for k in REPLY_FAULTS))
        if fault not in known:
            raise ValueError(f"unknown fault {fault!r}")
        self._fault, self._altered_arff, self._n_before = fault, None, len(self.requests)

    def fault_at(self, request: str) -> str | None:
        """Kind of the fault that the latest request, of this name, must meet."""
        if self.fault is None or self.fault[0] != request:
            return None
        if self.fault[1] == "504 twice":
            return "504" if self.requests[self._n_before :].count(request) <= 2 else None
        return self.fault[1]

    def arff(self) -> tuple[bytes, str]:
        """Gzipped file to serve and md5 to announce for it, altered by a content fault if any."""
        name, kind = self.fault or (None, None)
        if kind == "wrong md5":
            return self._healthy_arff[0], hashlib.md5(b"another file").hexdigest()
        if name != "data" or self.fault not in CONTENT_FAULTS:
            return self._healthy_arff
        if self._altered_arff is None:  # the md5 and the file are asked for one after the other
            images, labels = self.images.copy(), self.labels.copy()
            if kind == "other content":
                images[0, 0] ^= 1
            elif kind == "label 10":
                labels[0] = 10
            elif kind == "extra row":
                images, labels = np.append(images, images[:1], 0), np.append(labels, labels[:1])
            n_pixels = 783 if kind == "few attributes" else 784
            self._altered_arff = encode_arff(images, labels, n_pixels)
        return self._altered_arff

    def document(self, request: str, key: str) -> dict | bytes | None:
        """JSON document (for "data", the gzipped file) asked for, or None if there is none."""
        qualities = [{"name": "NumberOfInstances", "value": str(float(len(self.images)))}]
        if request == "search":
            queries = f"limit/2/data_version/{self.version}", "limit/2/status/active/"
            row = {"did": self.data_id, "name": self.name, "version": self.version}
            row |= {"status": "active", "format": "ARFF", "file_id": 52667, "quality": qualities}
            known = key in [f"{self.name}/{query}" for query in queries]
            return {"data": {"dataset": [row]}} if known else None
        if request == "data":
            return self.arff()[0] if key == self.file_name else None
        if key != str(self.data_id):
            return None
        if request == "description":
            row = {"id": key, "name": self.name, "version": str(self.version), "format": "ARFF"}
            row |= {"description": "Handwritten digits", "status": "active", "file_id": "52667"}
            row |= {"url": f"https://www.openml.org/data/v1/download/{self.file_name}"}
            row |= {"default_target_attribute": "class", "md5_checksum": self.arff()[1]}
            return {"data_set_description": row}
        if request == "qualities":
            return {"data_qualities": {"quality": qualities}}
        n_pixels = 783 if self.fault == ("features", "few attributes") else 784
        row = {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
        pixel = row | {"data_type": "numeric", "is_target": "false"}
        target = row | {"data_type": "nominal", "is_target": "true", "name": "class"}
        rows = [pixel | {"name": f"pixel{i}"} for i in range(1, n_pixels + 1)]
        rows += [target | {"nominal_value": [str(digit) for digit in range(10)]}]
        return {"data_features": {"feature": [{"index": str(i)} | r for i, r in enumerate(rows)]}}


class _Proxy(socketserver.ThreadingTCPServer):
    """HTTP proxy on a free port of 127.0.0.1, with one thread per connection."""

    request_queue_size = 32

    def __init__(self, openml: OpenML, authority: trustme.CA):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.openml = openml
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("openml.org", "*.openml.org").configure_cert(self.tls)
        self._accept = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._live: dict[threading.Thread, socket.socket] = {}

    def start(self) -> None:
        self._accept.start()

    def stop(self) -> None:
        if self._accept.is_alive():
            self.shutdown()
        self.server_close()
        for connection in self._live.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
        deadline = time.monotonic() + 0.8
        for thread in self._live:
            thread.join(max(0, deadline - time.monotonic()))

    def process_request(self, request: socket.socket, client_address) -> None:
        request.settimeout(None)  # a client in this process may have set a default for all
        # A second descriptor of the connection, for stop(): TLS takes the first one over
        args = request, client_address, request.dup()
        self._live = {thread: s for thread, s in self._live.items() if thread.is_alive()}
        thread = threading.Thread(target=self._handle, args=args, daemon=True)
        self._live[thread] = args[2]
        thread.start()

    def _handle(self, request: socket.socket, client_address, duplicate: socket.socket) -> None:
        with duplicate:
            self.process_request_thread(request, client_address)

    def handle_error(self, request, client_address) -> None:
        pass  # clients that give up are what the faults are for


class _Handler(BaseHTTPRequestHandler):
    """One client connection: CONNECT, then either requests to OpenML over TLS or a tunnel."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if host == "openml.org" or host.endswith(".openml.org"):
            self._reply(200)
            # Used twice, a urllib Request forgets its scheme: the third try of fetch_openml asks
            # for port 80, and speaks plain HTTP there
            if port == "443":
                self.request = self.server.tls.wrap_socket(self.connection, server_side=True)
                self.setup()  # the streams of this handler, now over TLS
            self.close_connection = False
            return
        try:
            upstream = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        except OSError as error:
            self.send_error(502, str(error))
            return
        with upstream:
            self._reply(200)
            other = {self.connection: upstream, upstream: self.connection}
            while True:
                for source in select.select(list(other), [], [])[0]:
                    if not (chunk := source.recv(65536)):
                        return
                    other[source].sendall(chunk)

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path  # an absolute URL in retries, see do_CONNECT
        for request, (pattern, error) in _ROUTES.items():
            if match := pattern.fullmatch(path):
                self._answer(request, match[1], *error)
                return
        self.send_error(404)

    def _answer(self, request: str, key: str, code: str, message: str) -> None:
        self.server.openml.requests.append(request)
        kind = self.server.openml.fault_at(request)
        document = self.server.openml.document(request, key)
        if kind == "drop":
            # Zero linger: closing sends RST, not FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif kind == "hang":
            self._wait()
        elif kind == "412" or document is None:
            self._reply(412, {"error": {"code": code, "message": message}})
        elif kind in ("404", "429", "500", "504"):
            self._reply(int(kind), b"<html><body>Error</body></html>", media="text/html")
        elif kind == "html":
            self._reply(200, b"<html><body>Maintenance</body></html>", media="text/html")
        elif kind == "bad gzip":
            self._reply(200, b"not a gzip file", encoding="gzip")
        elif kind == "corrupt gzip":  # a sound header, then a deflate block of the reserved type
            self._reply(200, b"\x1f\x8b\x08" + bytes(6) + b"\x03" + b"\xff" * 64, encoding="gzip")
        elif kind == "drip":  # for ever, each byte well within a client's time-out
            self._reply(200, b"\x1f" * 1_000_000, encoding="gzip", share=0)
            while True:
                self.wfile.write(b"\x1f")
                time.sleep(0.05)
        else:
            half = 0.5 if kind in ("short", "stall") else 1
            self._reply(200, document, "gzip" if request == "data" else None, share=half)
            if kind == "short":
                self.close_connection = True
            elif kind == "stall":
                self._wait()

    def _reply(self, status, content=None, encoding=None, media="application/json", share=1):
        """Send a reply with the given share (0..1) of its body."""
        self.send_response(status)
        if content is not None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(body)))
            if encoding:
                self.send_header("Content-Encoding", encoding)
        self.end_headers()
        if content is not None:
            self.wfile.write(body[: int(len(body) * share)])

    def _wait(self) -> None:
        """Wait until the client, or the server's stop, ends the connection."""
        self.close_connection = True
        self.rfile.read(1)

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, *args) -> None:
        pass
