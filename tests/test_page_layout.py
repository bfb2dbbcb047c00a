"""Where things stand on the page, from a telephone to a wide screen."""

import pytest
from browsing import ask, boxes, expect
from page_server import PageServer
from test_runs import HOSTILE, make_run, with_span

from eyeline.runs import Run

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_nothing_scrolls_sideways_at_any_width(visit, tmp_path, width):
    run = make_run(extra="x" * 300 + HOSTILE)
    with PageServer(Run(run.prompt, run.images, run.events)) as server:
        page = visit(server, viewport={"width": width, "height": 800})
        expect(page.locator(".gallery button")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ask(page, tmp_path, "word" * 100)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.locator(".strongest button").first.click()
        page.get_by_role("button", name="Hide it and ask again").click()
        expect(page.locator(".compare .verdict")).to_have_text("The answer changes.")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_a_telephone_the_text_stands_right_below_the_image_and_the_numbers_after_it(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server, viewport={"width": 390, "height": 844})
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        names = (".images", ".thinking", ".answer", ".legend", ".about")
        image, thinking, answer, legend, numbers = boxes(page, *names)
        below = thinking["y"] - image["y"] - image["height"]
        assert 0 <= below < 20
        assert thinking["y"] < 844 / 2 < answer["y"] < legend["y"] < numbers["y"]


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_no_name_of_a_region_stands_on_its_numbers_though_it_was_verified(visit, tmp_path, width):
    with PageServer(with_span(make_run(), 0, effects=(-12.34, *[-11.11] * 9))) as server:
        page = visit(server, viewport={"width": width, "height": 900})
        ask(page, tmp_path)
        page.locator(".end").wait_for()
        page.keyboard.press("Home")
        page.get_by_role("button", name="Verify").click()
        expect(page.locator(".strongest li").first).to_contain_text("actual −6.17")
        over = page.locator(".strongest button").evaluate_all(
            """rows => rows.filter(row => {
                const parts = [...row.querySelectorAll(".place, .number, .measured")].map(part => {
                    const range = document.createRange();
                    range.selectNodeContents(part);
                    return range.getBoundingClientRect();
                });
                const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
                return parts.some((a, i) => parts.slice(i + 1).some(b => meet(a, b)));
            }).length"""
        )
        assert over == 0


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (2560, 1440)])
def test_image_verification_and_text_stand_beside_each_other_over_the_whole_width(
    visit, tmp_path, width, height
):
    with PageServer(make_run()) as server:
        page = visit(server, viewport={"width": width, "height": height})
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        verify = page.get_by_role("button", name="Verify")
        button = verify.bounding_box()
        dock, image, text = boxes(page, ".dock", ".images", ".trace")
        assert image["x"] < 0.05 * width
        assert image["x"] + image["width"] < button["x"] < button["x"] + button["width"] < text["x"]
        assert image["y"] <= button["y"] < button["y"] + button["height"] < dock["y"]
        assert text["x"] + text["width"] > 0.94 * width
        verify.click()
        expect(page.locator(".agreement")).to_contain_text("0.83")
        (measured,) = boxes(page, ".still")
        assert measured["x"] > image["x"] + image["width"]
