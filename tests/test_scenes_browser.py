"""Page scenes against a browser: whoever sees the drawing would write the HTML that the scene calls right."""

import base64
from importlib.resources import files
from random import Random

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from eyeline.scenes import code
from eyeline.scenes.canvas import COLOURS, Canvas

pytestmark = pytest.mark.browser
PAGES = 50
# Every element with text of its own is set where the drawing has it; returns their boxes and colours.
SET = """elements => {
    const found = {};
    for (const [text, [left, middle, size]] of Object.entries(elements)) {
        const element = [...document.querySelectorAll("h1, p, button, li")].find(each => each.textContent.trim() === text);
        Object.assign(element.style, {
            position: "absolute", left: left + "px", top: middle - size + "px", lineHeight: 2 * size + "px",
            margin: 0, padding: 0, border: 0, fontSize: size + "px", listStyle: "none", whiteSpace: "nowrap",
        });
        const range = document.createRange();
        range.selectNodeContents(element);
        const box = range.getBoundingClientRect();
        const style = getComputedStyle(element);
        found[text] = [element.tagName, [box.left, box.right], style.color, style.backgroundColor];
    }
    return found;
}"""


def rgb(css):
    return tuple(int(part) for part in css[4:-1].split(", "))


@pytest.fixture(scope="module")
def named(browser):
    """What the browser shows for the scenes' colour names."""
    page = browser.new_page()
    paint = "name => { document.body.style.color = name; return getComputedStyle(document.body).color }"
    shown = {name: rgb(page.evaluate(paint, name)) for name in COLOURS}
    page.close()
    return shown


def nearest(colour):
    """The name of the scenes' colour that is most like it."""
    return min(COLOURS, key=lambda name: np.abs(np.array(colour) - COLOURS[name]).sum())


def test_scenes_name_colours_as_browsers_do(named):
    """Of all ways to give the scenes' colours the names, the browser's is the one that fits its own colours best."""
    ours, theirs = (np.array([colours[name] for name in COLOURS]) for colours in (COLOURS, named))
    _, given = linear_sum_assignment(np.abs(ours[:, None] - theirs[None]).sum(-1))
    assert given.tolist() == list(range(len(COLOURS)))


def test_fifty_pages_look_in_a_browser_as_they_are_drawn(browser, named, monkeypatch):
    drawn = []
    text = Canvas.text

    def remember(canvas, x, y, said, size, **options):
        box = text(canvas, x, y, said, size, **options)
        drawn.append((said, x, y, max(20, min(32, size)), box))
        return box

    monkeypatch.setattr(Canvas, "text", remember)
    wrong = []
    for seed in range(PAGES):
        drawn.clear()
        canvas, questions = (code.page if seed % 2 else code.listing)(Random(seed))
        html = next(
            question.answer for question in questions if question.prompt == "Write the HTML of this page."
        )
        package, file = canvas.font_file
        font = base64.b64encode((files(package) / "files" / file).read_bytes()).decode()
        page = browser.new_page(viewport={"width": canvas.width, "height": canvas.height})
        face = f"@font-face {{ font-family: drawn; src: url(data:font/otf;base64,{font}) }}"
        page.set_content(f"<style>{face} * {{ font-family: drawn; font-weight: normal }}</style>{html}")
        elements = {said: [x, y, size] for said, x, y, size, _ in drawn if not said.endswith(".")}
        page.evaluate("() => document.fonts.load('20px drawn')")
        found = page.evaluate(SET, elements)
        order = list(elements)
        assert order == sorted(order, key=html.index), "the drawing's order is the HTML's"
        pixels = np.asarray(canvas.image).reshape(canvas.height, canvas.width, 3)
        for said, _, y, _, box in drawn:
            if said not in found:
                continue
            tag, (left, right), colour, ground = found[said]
            if abs(left - box[0]) > 4 or abs(right - box[2]) > 4:
                wrong.append((seed, said, (left, right), box))
            inside = pixels[box[1] : box[3], box[0] : box[2]].reshape(-1, 3).astype(int)
            if tag == "H1":  # its ink, furthest from the ground
                far = inside[np.abs(inside - np.array(canvas.background)).sum(1).argmax()]
                if named[nearest(far)] != rgb(colour):
                    wrong.append((seed, said, tuple(far), colour))
            if tag == "BUTTON" and named[nearest(pixels[y, box[0] - 8])] != rgb(ground):
                wrong.append((seed, said, tuple(pixels[y, box[0] - 8]), ground))
        page.close()
    assert wrong == []
