"""The report's page as a person uses it: in a real browser, from disk, without a network."""

import base64
import csv
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions import interaction
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from src import dataset, softmax_regression
from tools import handwriting

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"
)

Browser = webdriver.Chrome
# Strokes on a square of 1x1, as one draws them.
STROKES = {
    0: [[(0.5, 0.15), (0.32, 0.3), (0.28, 0.55), (0.4, 0.82), (0.58, 0.83), (0.7, 0.6),
         (0.7, 0.35), (0.5, 0.15)]],
    1: [[(0.55, 0.12), (0.5, 0.5), (0.47, 0.88)]],
    7: [[(0.25, 0.2), (0.72, 0.2), (0.58, 0.5), (0.46, 0.88)]],
}  # fmt: skip


@pytest.fixture(scope="module")
def started(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Start a headless Chromium that resolves no host and keeps its files in a temporary folder."""
    home = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={home / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(
        options, Service(DRIVER, env=environment | {"HOME": str(home), "TMPDIR": str(home)})
    )
    yield browser
    browser.quit()


@pytest.fixture
def browser(started: Browser, reproduced: Path) -> Browser:
    """Return the browser with the page open, 1000 pixels wide."""
    resize(started, 1000, 800)
    started.get((reproduced / "metrics" / "report" / "index.html").as_uri())
    return started


def resize(browser: Browser, width: int, height: int, mobile: bool = False) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def shown(browser: Browser, press: str | None = None) -> tuple[str, list[float]]:
    """Press a button, if one is named, and return the page's sentence and its bars' lengths."""
    sentence, bars = browser.execute_script(
        "document.getElementById(arguments[0])?.click();"
        "return [document.getElementById('verdict').innerText,"
        " [...document.querySelectorAll('#bars button')]"
        ".map((bar) => bar.style.getPropertyValue('--probability'))]",
        press,
    )
    return sentence, [float(bar) for bar in bars]


def wait_until_read(browser: Browser, before: str) -> tuple[str, list[float]]:
    WebDriverWait(browser, 10, 0.05).until(lambda _: shown(browser)[0] != before)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    return shown(browser)


def draw(browser: Browser, digit: int, kind: str = interaction.POINTER_MOUSE) -> None:
    """Draw the digit's strokes with a mouse or a finger; the page must not move meanwhile."""
    board = browser.find_element(By.ID, "board")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", board)
    place = board.rect, browser.execute_script("return scrollY")
    size = board.size["width"]
    builder = ActionBuilder(browser, mouse=PointerInput(kind, kind), duration=20)
    pen = builder.pointer_action
    for stroke in STROKES[digit]:
        for at, (x, y) in enumerate(stroke):
            pen.move_to(board, round((x - 0.5) * size), round((y - 0.5) * size))
            if at == 0:
                pen.pointer_down()
        pen.pointer_up()
    builder.perform()
    assert (board.rect, browser.execute_script("return scrollY")) == place


def test_the_page_opens_from_disk_without_a_network_or_an_error(browser: Browser) -> None:
    pictures = browser.find_elements(By.CSS_SELECTOR, "figure img")
    alts = {picture.get_attribute("alt") for picture in pictures}
    assert alts == {
        "Accuracy after each epoch",
        "Loss after each epoch",
        "Reliability diagram",
        "The most confident mistakes",
        "The weights of each digit as an image",
        "Training images of each digit",
    }
    for picture in pictures:
        assert picture.get_property("naturalWidth") > 300
    assert len(browser.find_elements(By.CSS_SELECTOR, ".matrix tbody tr")) == 10
    assert "{{" not in browser.find_element(By.TAG_NAME, "body").text
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert browser.get_log("browser") == []


def test_loaded_images_get_the_prediction_of_evaluate_and_the_probabilities_of_torch(
    browser: Browser, reproduced: Path
) -> None:
    images, labels = dataset.read(str(reproduced / "data" / "prepared" / "test.safetensors"))
    parameters = softmax_regression.load(str(reproduced / "models" / "model.safetensors"))
    expected = softmax_regression.log_probabilities(parameters, images, 1000).exp().numpy()
    with open(reproduced / "metrics" / "plots" / "confusion.csv", newline="") as file:
        evaluated = [int(row["predicted"]) for row in csv.DictReader(file)]
    seen = []
    for button, times in (("test", 100), ("mistake", 24)):
        for at in range(times):
            # the page opens with the first one
            sentence, probabilities = shown(
                browser, button if (button, at) != ("test", 0) else None
            )
            digit, row, truth = re.fullmatch(
                r"I read an? (\d) with .* %\.\nTest image (\d+) is \w+(?: truth)? an? (\d)\.",
                sentence,
            ).groups()
            seen.append(int(row))
            assert (int(digit), int(truth)) == (evaluated[int(row)], labels[int(row)])
            assert np.abs(expected[int(row)] - probabilities).max() <= 1e-6
    assert seen[:100] == list(range(100))
    wrong = np.flatnonzero(np.array(evaluated) != labels.numpy())
    surest = wrong[np.argsort(-expected[wrong].max(axis=1), kind="stable")]
    assert seen[100:] == surest[:24].tolist()


@pytest.mark.parametrize("digit", STROKES)
def test_a_digit_drawn_with_the_mouse_is_read(browser: Browser, digit: int) -> None:
    before, _ = shown(browser)
    draw(browser, digit)
    sentence, probabilities = wait_until_read(browser, before)
    assert sentence.startswith(f"I read a {digit} with")
    assert np.argmax(probabilities) == digit
    assert abs(sum(probabilities) - 1) < 1e-12


def test_a_phone_shows_no_sideways_scrolling_and_draws_with_a_finger(browser: Browser) -> None:
    resize(browser, 360, 740, mobile=True)
    width = "return [document.documentElement.scrollWidth, visualViewport.width]"
    assert browser.execute_script(width) == [360, 360]
    before, _ = shown(browser)
    draw(browser, 1, interaction.POINTER_TOUCH)
    assert wait_until_read(browser, before)[0].startswith("I read a 1 with")


def test_the_keyboard_alone_draws_and_clears(browser: Browser) -> None:
    before, _ = shown(browser)
    keys = ActionChains(browser).send_keys(Keys.TAB, Keys.ARROW_UP * 10, Keys.SPACE)
    keys.send_keys(Keys.ARROW_DOWN * 20, Keys.SPACE, Keys.ARROW_LEFT * 5).perform()
    assert wait_until_read(browser, before)[0].startswith("I read a 1 with")
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert shown(browser)[0] == "Draw something, or load an image."


def test_the_evidence_for_any_digit_adds_up_to_its_score(
    browser: Browser, reproduced: Path
) -> None:
    images, _ = dataset.read(str(reproduced / "data" / "prepared" / "test.safetensors"))
    parameters = softmax_regression.load(str(reproduced / "models" / "model.safetensors"))
    evidence = parameters[:, :-1] * images[0].to(torch.float64)
    for digit in (7, 2):
        browser.find_elements(By.CSS_SELECTOR, "#bars button")[digit].click()
        text = browser.find_element(By.ID, "evidence-text").text.replace("\N{MINUS SIGN}", "-")
        pro, contra, bias = (float(number) for number in re.findall(r"[+-]\d+\.\d+", text))
        assert pro == pytest.approx(evidence[digit].clamp(min=0).sum().item(), abs=0.006)
        assert contra == pytest.approx(evidence[digit].clamp(max=0).sum().item(), abs=0.006)
        assert bias == pytest.approx(parameters[digit, -1].item(), abs=0.006)
        strongest = divmod(evidence[digit].abs().argmax().item(), 28)
        red, _, blue, opacity = browser.execute_script(
            "return [...document.getElementById('evidence').getContext('2d')"
            ".getImageData(arguments[1], arguments[0], 1, 1).data]",
            *strongest,
        )
        assert opacity == 255
        assert (blue > red) == (evidence[digit][strongest[0] * 28 + strongest[1]].item() > 0)


def test_page_and_predict_bring_drawings_to_the_same_form(browser: Browser, tmp_path: Path) -> None:
    generator = random.Random(7)
    for size in (5, 40, 120, 250):
        for _ in range(5):
            x, y = (generator.uniform(15, 265 - size) for _ in range(2))
            points = [
                (x + generator.uniform(0, size), y + generator.uniform(0, size)) for _ in range(6)
            ]
            picture, form = browser.execute_script(
                "clear(); const points = arguments[0];"
                "points.slice(1).forEach((point, i) => stroke(points[i], point)); read();"
                "return [board.toDataURL(), [...image]]",
                points,
            )
            path = tmp_path / "drawn.png"
            path.write_bytes(base64.b64decode(picture.split(",")[1]))
            # float32 is what predict hands on: half a unit in its last place is 3e-8
            assert np.abs(handwriting.read(str(path)) - np.array(form)).max() < 1e-7
