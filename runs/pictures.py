"""Pictures of the page for the README: drawn scenes of the gallery, one at three sizes, one as it plays.

Needs Chromium and what `make test` installs. Run as .venv/bin/python runs/pictures.py
"""

import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

DOCS = Path(__file__).parent.parent / "docs"
SCENE, SPAN = 7, 2  # of the gallery, and of its trace
SIZES = {
    "1280": (1280, 860, 1),
    "360": (360, 740, 2),
    "3840": (1920, 1080, 2),
}  # CSS pixels, and the device's for each
MOVING, MOVING_SIZE = 8, (1280, 720)  # of the gallery; CSS pixels
FRAME_MS, STILL_MS = 100, 3000  # of the picture that moves: each frame; the last
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def wait_for(address: str) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=1)
            return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"{address} does not answer")


def ask(page: Page, address: str) -> str:
    """Asks about the scene and returns the address of the run that shows it."""
    page.goto(address)
    page.locator(".gallery button").nth(SCENE).click()
    expect(page.locator("#question")).not_to_have_value("")  # the scene has been fetched
    page.locator("#send").click()
    page.locator(".answer .span").first.wait_for(timeout=240_000)
    page.get_by_text("tokens/s").first.wait_for()
    return page.url


def film(browser: Browser, address: str) -> None:
    """Plays a run at reading pace, frame by frame by the page's own clock, so that this machine's speed is not seen."""
    width, height = MOVING_SIZE
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    page.goto(address)
    page.locator(".gallery button").nth(MOVING).click()
    expect(page.locator("#question")).not_to_have_value("")
    page.locator("#send").click()
    page.get_by_role("button", name="Jump to the end").wait_for(timeout=240_000)
    page.get_by_role("button", name="Stop").wait_for(state="hidden", timeout=240_000)  # all is written
    frames = []
    while True:
        page.clock.run_for(FRAME_MS)
        frames.append(Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB"))
        if page.locator("main.live").count() == 0 and page.locator(".images.moving").count() == 0:
            break
    times = [FRAME_MS] * (len(frames) - 1) + [STILL_MS]
    frames[0].save(
        DOCS / "page.webp",
        save_all=True,
        append_images=frames[1:],
        duration=times,
        loop=0,
        quality=80,
        method=4,
    )


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as data, sync_playwright() as driver:
        command = [sys.executable, "-m", "eyeline", "serve", "--port", port, "--data", data]
        server = subprocess.Popen(command)
        try:
            wait_for(address)
            browser = driver.chromium.launch(executable_path=chromium, args=OPTIONS)
            run = ask(browser.new_page(), address)
            for name, (width, height, scale) in SIZES.items():
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    device_scale_factor=scale,
                    color_scheme="light",
                )
                page.goto(run)
                page.locator(".answer .span").first.wait_for()
                page.locator(".span").nth(SPAN).click()
                page.wait_for_timeout(1500)  # the heat moves there
                page.screenshot(path=DOCS / f"page-{name}.png")
            film(browser, address)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
