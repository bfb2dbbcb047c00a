"""A real browser at the page of a server, and what somebody does there; a plugin, for its fixtures."""

import base64
import io
import os
import shutil

import pytest
from page_server import PageServer
from PIL import Image

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:  # then the browser is skipped
    expect = sync_playwright = None

MIDDLE = 13  # events until the first span is attributed and the second is being written


@pytest.fixture(scope="module")
def browser():
    if sync_playwright is None:
        pytest.skip("needs pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed")
        pytest.skip("needs Chromium: apt-get install chromium")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens the page of a server; at the end no error but an `expected` one may stand in the browser's console."""
    contexts, said = [], []

    def visit(server: PageServer, path: str = "/", expected: str = "nothing", **options):
        options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)

        def listen(message) -> None:
            lost = server.gone and "net::ERR_" in message.text
            if message.type == "error" and expected not in message.text and not lost:
                said.append(message.text)

        page.on("console", listen)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.url + path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []


def boxes(page, *names: str | tuple[str, int]) -> list[dict[str, float]]:
    """x, y, width and height of elements at one moment, once the page has drawn what was asked of it.

    A name is a selector, of which the first counts, or a selector and which one. Boxes that are asked for one by one can
    belong to different moments, and an element that is drawn anew in between has none.
    """
    wanted = [name if isinstance(name, tuple) else (name, 0) for name in names]
    for selector, number in wanted:
        page.locator(selector).nth(number).wait_for(state="attached")
    return page.evaluate(
        """wanted => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(
            wanted.map(([selector, number]) => document.querySelectorAll(selector)[number].getBoundingClientRect().toJSON()),
        ))))""",
        wanted,
    )


def image_files(tmp_path) -> list[str]:
    """Two, as the scripted run has."""
    names = [str(tmp_path / name) for name in ("bars.png", "square.png")]
    for name, size in zip(names, ((192, 128), (128, 128)), strict=True):
        Image.new("RGB", size, (250, 248, 240)).save(name)
    return names


def ask(page, tmp_path, question: str = "How far is it?") -> None:
    page.locator("#files").set_input_files(image_files(tmp_path))
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")


def heat_at(page, frame: int, x: float, y: float) -> list[int]:
    return page.evaluate(
        """([frame, x, y]) => {
            const canvas = document.querySelectorAll(".frame canvas")[frame];
            return [...canvas.getContext("2d").getImageData(
                Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data.slice(0, 3)];
        }""",
        [frame, x, y],
    )


def sent_images(server) -> list[Image.Image]:
    parts = server.asked[-1]["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
