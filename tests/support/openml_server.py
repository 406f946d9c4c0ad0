"""A loopback stand-in for OpenML, so that scikit-learn's fetch_openml runs as it is.

scikit-learn asks https://www.openml.org and nobody else. Clients come here by environment
variables alone: `https_proxy` names this server, which ends TLS itself for openml.org, with a
throw-away certificate that `SSL_CERT_FILE` makes trusted.
"""

import functools
import gzip
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from unittest import mock

import numpy as np
import trustme

# The requests in the order in which fetch_openml sends them: a pattern of their path, of which the
# group is what is asked for, and the code of OpenML's error when there is none.
API = "/api/v1/json/data/"
ROUTES = {
    "search": (API + "list/data_name/(.+)", "372"),
    "description": (API + r"(\d+)", "111"),
    "features": (API + r"features/(\d+)", "271"),
    "qualities": (API + r"qualities/(\d+)", "361"),
    "data": ("/data/v1/download/(.+)", "1"),
}
REQUESTS = tuple(ROUTES)
HTML = b"<html><body>Maintenance</body></html>"


def arff(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Return images uint8 (N, D) and labels uint8 (N,) as the text of an ARFF file."""
    columns = "".join(f"@ATTRIBUTE pixel{i} real\n" for i in range(1, images.shape[1] + 1))
    classes = ",".join(map(str, np.unique(labels)))
    header = f"@RELATION data\n\n{columns}@ATTRIBUTE class {{{classes}}}\n\n@DATA\n"
    # Values are looked up as cells of 4 bytes, of which the NULs go: far faster than formatting.
    pixel_text = np.array([f"{value},".encode() for value in range(256)], dtype="S4")
    label_text = np.array([f"{value}\n".encode() for value in range(256)], dtype="S4")
    parts = [header.encode()]
    for start in range(0, len(images), 2000):
        rows = slice(start, start + 2000)
        cells = np.column_stack([pixel_text[images[rows]], label_text[labels[rows]]])
        parts.append(cells.tobytes().replace(b"\0", b""))
    return b"".join(parts)


@functools.lru_cache(maxsize=2)
def packed(text: bytes) -> tuple[bytes, str]:
    """Return a file as it is sent, and its md5."""
    return gzip.compress(text, 1), hashlib.md5(text).hexdigest()  # noqa: S324


@contextmanager
def redirected(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables in this process for a block, those for proxies in earnest.

    urllib reads the proxies when it opens its first URL, and keeps them.
    """
    with mock.patch.dict(os.environ, variables):
        urllib.request.install_opener(None)
        try:
            yield
        finally:
            urllib.request.install_opener(None)


def proxy(url: str) -> dict[str, str]:
    """Return the environment variables that send all HTTPS to a proxy."""
    return {"https_proxy": url, "HTTPS_PROXY": url, "no_proxy": "", "NO_PROXY": ""}


@contextmanager
def nobody_listens() -> Iterator[str]:
    """Return a host with a port that refuses connections: it is bound, but not listened to."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


@functools.cache
def certificates() -> trustme.CA:
    """Return this process's own authority: to make one costs a second."""
    return trustme.CA()


class OpenML(ThreadingHTTPServer):
    """Context manager: one data set, answered for as OpenML does, on a free port of 127.0.0.1.

    Attributes, which may be changed at any time:
        arff: text of the file, unpacked.
        md5: of that text as the description says it; None for the right one.
        columns: the names of the pixels as the metadata say them.
        flags: how the metadata write true and false.
        none: HTTP status of the answer that there is no such thing.
        fault: (request, kind): how each such request fails; None for not at all. The kinds are a
            status, "504 twice", "html", "bad gzip", "corrupt gzip", and what `do_...` does below.
        requests: the names of the requests so far, failed ones included.
    and `env`, which a client needs in its environment.
    """

    request_queue_size = 32

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        name: str = "mnist_784",
        version: int = 1,
        data_id: int = 554,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.images, self.labels = images, labels
        self.arff, self.md5 = arff(images, labels), None
        self.columns = [f"pixel{i}" for i in range(1, images.shape[1] + 1)]
        self.classes = [str(label) for label in np.unique(labels)]
        self.flags: dict[bool, Any] = {True: "true", False: "false"}
        self.none = 412
        self.name, self.version, self.data_id = name, version, data_id
        self.fault: tuple[str, str] | None = None
        self.requests: list[str] = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificates().issue_cert("openml.org", "*.openml.org").configure_cert(self.tls)
        self.folder = tempfile.TemporaryDirectory(prefix="openml-")
        trusted = Path(self.folder.name, "trusted.pem")
        certificates().cert_pem.write_to_path(trusted)
        url = f"http://127.0.0.1:{self.server_port}"
        self.env = proxy(url) | {"SSL_CERT_FILE": str(trusted)}

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self.folder.cleanup()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(None)  # the client may have set a default for the process
        return connection, address

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that give up are what the faults are for."""

    def documents(self) -> dict[str, tuple[tuple[str, ...], Any]]:
        """Return what each request may ask for, and the answer."""
        key, file_name = str(self.data_id), f"52667/{self.name}.arff"
        quality = [{"name": "NumberOfInstances", "value": str(self.arff.count(b"\n"))}]
        row = {"did": self.data_id, "name": self.name, "version": self.version, "format": "ARFF"}
        row |= {"status": "active", "file_id": 52667, "quality": quality}
        queries = f"limit/2/data_version/{self.version}", "limit/2/status/active/"
        about = {"id": key, "name": self.name, "version": str(self.version), "format": "ARFF"}
        about |= {"description": "Images", "status": "active", "file_id": "52667"}
        about |= {"url": f"https://www.openml.org/data/v1/download/{file_name}"}
        about |= {"md5_checksum": self.md5 or packed(self.arff)[1]}
        about |= {"default_target_attribute": "class"}
        column = {"is_ignore": self.flags[False], "is_row_identifier": self.flags[False]}
        column |= {"number_of_missing_values": "0"}
        pixel = column | {"data_type": "numeric", "is_target": self.flags[False]}
        target = column | {"data_type": "nominal", "is_target": self.flags[True], "name": "class"}
        columns = [pixel | {"name": name} for name in self.columns]
        columns.append(target | {"nominal_value": self.classes})
        features = [{"index": str(index)} | column for index, column in enumerate(columns)]
        searches = tuple(f"{self.name.lower()}/{query}" for query in queries)
        return {
            "search": (searches, {"data": {"dataset": [row]}}),
            "description": ((key,), {"data_set_description": about}),
            "features": ((key,), {"data_features": {"feature": features}}),
            "qualities": ((key,), {"data_qualities": {"quality": quality}}),
            "data": ((file_name,), packed(self.arff)[0]),
        }


class _Handler(BaseHTTPRequestHandler):
    """A connection: CONNECT, then requests to OpenML over TLS."""

    server: OpenML

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if not f".{host}".endswith(".openml.org"):
            self.send_error(502)
            return
        self.reply(200, None)
        # Used twice, a urllib Request forgets its scheme: the third try of fetch_openml asks for
        # port 80, and speaks plain HTTP there.
        if port == "443":
            self.request = self.server.tls.wrap_socket(self.connection, server_side=True)
            self.setup()  # this handler's streams, now over TLS
        self.close_connection = False

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        for request, (pattern, code) in ROUTES.items():
            if match := re.fullmatch(pattern, path):
                self.server.requests.append(request)
                asked, document = self.server.documents()[request]
                at, kind = self.server.fault or ("", "")
                if match[1] not in asked or (at == request and kind == "412"):
                    error = {"code": code, "message": "No results"}
                    self.reply(self.server.none, {"error": error})
                else:
                    self.answer(request, document, kind if at == request else "")
                return
        self.send_error(404)

    def answer(self, request: str, document: Any, kind: str) -> None:
        encoding = "gzip" if request == "data" else ""
        if kind == "504 twice" and self.server.requests.count(request) > 2:
            kind = ""
        if kind[:3].isdigit():
            self.reply(int(kind[:3]), HTML)
        elif kind == "html":
            self.reply(200, HTML)
        elif kind == "bad gzip":
            self.reply(200, HTML, "gzip")
        elif kind == "corrupt gzip":  # a sound header, then a block of the reserved type
            self.reply(200, b"\x1f\x8b\x08" + bytes(6) + b"\x03" + b"\xff" * 64, "gzip")
        elif kind:
            getattr(self, f"do_{kind}")(document, encoding)
        else:
            self.reply(200, document, encoding)

    def do_drop(self, *_: Any) -> None:
        # Without lingering, closing sends RST, not FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def do_hang(self, *_: Any) -> None:
        self.close_connection = True
        self.rfile.read(1)  # until the client gives up

    def do_short(self, document: Any, encoding: str) -> None:
        self.reply(200, document, encoding, 0.5)
        self.close_connection = True

    def do_stall(self, document: Any, encoding: str) -> None:
        self.reply(200, document, encoding, 0.5)
        self.do_hang()

    def do_drip(self, *_: Any) -> None:
        self.reply(200, b"\x1f" * 1_000_000, share=0)
        while True:  # each byte well within a client's time-out
            self.wfile.write(b"\x1f")
            time.sleep(0.05)

    def reply(self, status: int, content: Any, encoding: str = "", share: float = 1) -> None:
        """Send a reply, bytes or what becomes JSON, with the given share of its body."""
        self.send_response(status)
        body = b""
        if content is not None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_header("Content-Length", str(len(body)))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        self.wfile.write(body[: int(len(body) * share)])

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
