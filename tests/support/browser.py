"""A real headless Chromium, and a hand that draws in it with real pointer events."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import websocket
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from tests.support.drawings import Drawing, Stroke

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Page(webdriver.Chrome):
    """The browser's one tab."""

    @property
    def tools(self) -> websocket.WebSocket:
        """A connection to the browser's DevTools, which takes many events at once."""
        if not hasattr(self, "_tools"):
            address = self.capabilities["goog:chromeOptions"]["debuggerAddress"]
            with urllib.request.urlopen(f"http://{address}/json") as answer:
                tab = next(tab for tab in json.load(answer) if tab["type"] == "page")
            self._tools = websocket.create_connection(
                tab["webSocketDebuggerUrl"], suppress_origin=True
            )
        return self._tools

    def show(self, path: Path, width: int = 1280, height: int = 800, **media: str) -> None:
        """Open a file in a window; media features as `prefers_color_scheme="dark"`."""
        self.resize(width, height)
        features = [
            {"name": name.replace("_", "-"), "value": value} for name, value in media.items()
        ]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
        self.get(path.as_uri())
        self.js(
            "window.pointed = []; for (const kind of ['down', 'up', 'cancel'])"
            " addEventListener('pointer' + kind, ({ target, clientX, clientY }) =>"
            " pointed.push([kind, target.id, clientX, clientY, scrollY]), true)"
        )

    def resize(self, width: int, height: int) -> None:
        self.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800},
        )

    def js(self, code: str, *given: Any) -> Any:
        return self.execute_script(code, *given)

    def settled(self) -> None:
        """Wait until the page has explained what is on the board."""
        self.execute_async_script(
            "const done = arguments[0];"
            "const wait = () => isExplaining || isWaiting ? setTimeout(wait, 5) : done(); wait();"
        )

    def each(self, selector: str, value: str) -> list[Any]:
        """Return a value of JavaScript for each element `e` of the page that is selected."""
        return self.js(
            f"return [...document.querySelectorAll(arguments[0])].map((e) => {value})", selector
        )

    def click(self, selector: str, at: int = 0) -> None:
        self.js("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, at)

    def wait_for(self, condition: str, seconds: float = 20) -> None:
        WebDriverWait(self, seconds, 0.02).until(lambda _: self.js(f"return {condition}"))

    def pixels(self, canvas: str) -> np.ndarray:
        """Return the bytes of a canvas, which an expression names: (height, width, 4)."""
        height, width, cells = self.js(
            f"const {{ height, width }} = {canvas}; return [height, width,"
            f" [...{canvas}.getContext('2d').getImageData(0, 0, width, height).data]]"
        )
        return np.reshape(cells, (height, width, 4))

    def on_board(self, points: Stroke) -> Stroke:
        """Return where points of the board are in the window."""
        left, top, width = self.js(
            "const area = document.getElementById('board').getBoundingClientRect();"
            "return [area.left, area.top, area.width]"
        )
        return [(left + x * width, top + y * width) for x, y in points]

    def send(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Send DevTools commands at once, as a fast hand does, and wait for the last."""
        for number, (method, values) in enumerate(events):
            self.tools.send(json.dumps({"id": number, "method": method, "params": values}))
        while (reply := json.loads(self.tools.recv())).get("id") != len(events) - 1:
            assert "error" not in reply, reply
        assert "error" not in reply, reply

    def draw(self, drawing: Drawing, kind: str = "mouse") -> tuple[str, float]:
        """Clear the board, draw with a mouse or a finger; return digit and probability."""
        self.js("document.getElementById('clear').click()")
        for stroke in drawing:
            self.send((mouse if kind == "mouse" else finger)(self.on_board(stroke)))
        # A busy browser may say that it has a touch before its page has.
        try:
            self.wait_for(f"pointer === null && strokes.length === {len(drawing)}", 10)
        except TimeoutException as error:
            found = self.js("return JSON.stringify([pointer, strokes.length, pointed.slice(-4)])")
            expected = self.on_board([stroke[0] for stroke in drawing])
            raise AssertionError(f"{kind} at {expected}: found {found}") from error
        return self.answer()

    def answer(self) -> tuple[str, float]:
        digit, probability = self.js(
            "const { digit, probability } = document.getElementById('answer').dataset;"
            "return [digit, probability]"
        )
        return digit, float(probability or "nan")

    def style(self, element: str, name: str, part: str = "") -> str:
        """Return a computed style of an element, or of its part as `::before`."""
        code = "return getComputedStyle(document.querySelector(arguments[0]), arguments[1])"
        return self.js(f"{code}.{name}", element, part)

    def text(self, element: str) -> str:
        return self.js("return document.getElementById(arguments[0]).textContent", element)


def mouse(points: Stroke, button: str = "left") -> list[Any]:
    at = [("mousePressed", points[0]), *(("mouseMoved", point) for point in points[1:])]
    return [
        (
            "Input.dispatchMouseEvent",
            {"type": kind, "x": x, "y": y, "button": button, "clickCount": 1}
            | {"buttons": 0 if kind == "mouseReleased" else 1 if button == "left" else 2},
        )
        for kind, (x, y) in [*at, ("mouseReleased", points[-1])]
    ]


def finger(points: Stroke) -> list[Any]:
    moves = [
        ("touchMove" if at else "touchStart", [{"x": x, "y": y}])
        for at, (x, y) in enumerate(points)
    ]
    return [touch(kind, places) for kind, places in [*moves, ("touchEnd", [])]]


def touch(kind: str, places: list[dict[str, float]]) -> Any:
    return "Input.dispatchTouchEvent", {"type": kind, "touchPoints": places}


@contextmanager
def started(home: Path, environment: dict[str, str]) -> Iterator[Page]:
    """Start a browser that resolves no host and keeps its files in `home`."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        f"--user-data-dir={home / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(DRIVER, env=environment | {"HOME": str(home), "TMPDIR": str(home)})
    page = Page(options, service)
    try:
        page.set_script_timeout(60)
        yield page
    finally:
        page.quit()
