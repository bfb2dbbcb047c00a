"""Numbers and terms on the page: one form, one numbering, and what they mean where they stand."""

import re

import numpy as np
import pytest
from browsing import ask, expect, heat_at
from page_server import PageServer
from test_runs import make_run, with_span

from eyeline.events import SpanAttribution

pytestmark = pytest.mark.browser


def test_every_region_has_the_number_of_its_events_on_the_image_and_in_every_list(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.keyboard.press("End")
        page.locator("#view h1").hover()
        expect(page.locator(".strongest .place em").first).to_have_text("9")
        expect(page.locator(".badge")).to_have_text(["9"])  # alone above a tenth of the strongest
        page.get_by_role("button", name="All numbers").click()
        numbers = page.locator(".badge").all_inner_texts()
        assert sorted(map(int, numbers)) == list(range(10))
        page.locator(".more").click()
        rows = page.locator(".strongest .place").all_inner_texts()
        assert len(set(rows)) == 10  # though several regions lie in one place
        page.locator(".strongest button").first.click()
        expect(page.locator(".selection")).to_contain_text("9 bottom right of image 2:")


def test_a_sentence_that_hardly_rests_on_the_image_has_a_pale_map_and_no_number_on_it(visit, tmp_path):
    small = (0.11, 0.08, 0.06, *[0.0] * 7)
    changes = {"effects": small, "contributions": small, "patches": None, "whole_image": 0.49}
    with PageServer(with_span(make_run(), 0, **changes)) as server:
        page = visit(server)
        ask(page, tmp_path)
        page.locator(".end").wait_for()
        page.keyboard.press("Home")
        expect(page.locator(".about h2")).to_contain_text("hardly rests on the image")
        expect(page.locator(".badge")).to_have_count(0)
        red, _, blue = heat_at(page, 0, 0.1, 0.1)
        assert 0 < red - blue <= 255 - 190  # not beyond a quarter of the ramp
        expect(page.locator(".legend .ticks")).to_contain_text("+0.45")
        page.keyboard.press("ArrowRight")
        expect(page.locator(".badge")).to_have_text(["4", "9"])


def test_a_sentence_has_the_number_of_its_event_though_one_before_it_was_lost(visit, tmp_path):
    run = make_run(lost=True)
    indices = [event.index for event in run.events if isinstance(event, SpanAttribution)]
    assert indices == [0, 2]
    with PageServer(run) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        for key, index in (("Home", 0), ("End", 2)):
            page.keyboard.press(key)
            expect(page.locator(".about h2")).to_contain_text(f" {index} rests on")
            slider = page.get_by_role("slider", name="Span shown")
            expect(slider).to_have_attribute("aria-valuetext", re.compile(f"^Span {index}, "))


def test_the_region_with_most_in_all_is_that_of_the_picture_with_the_same_number(visit, tmp_path):
    against = (
        (0.2, 3.0, *[0.0] * 8),
        (0.2, -2.9, *[0.0] * 8),
    )  # region 1 supports one span and speaks against the next
    run = make_run()
    for index, values in enumerate(against):
        run = with_span(run, index, effects=values, contributions=values)
    totals = sum(np.array(event.shown) for event in run.events if isinstance(event, SpanAttribution))
    assert totals.argmax() == 9
    with PageServer(run) as server:
        page = visit(server)
        ask(page, tmp_path)
        page.locator(".end").wait_for()
        words = f"the region with most in all is 9 bottom right of image 2 ({totals[9]:.2f} nats)"
        expect(page.locator(".glance > .facts")).to_contain_text(words)


def test_small_numbers_have_one_form_and_none_is_a_negative_nothing(visit, tmp_path):
    small = (0.0004, -0.0004, 0.004, -0.06, 0.3, 1.234, 12.34, 123.4, 0.0, -0.0049)
    changes = {"effects": small, "interval": None, "contributions": small, "contribution_interval": None}
    run = with_span(make_run(), 2, **changes, log_prob=-0.0001, whole_image=-0.001)
    with PageServer(run) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.keyboard.press("End")
        page.locator(".more").click()
        numbers = [text.strip() for text in page.locator(".strongest .number").all_inner_texts()]
        assert numbers == ["123", "12.3", "1.23", "0.30", "−0.06", "0.00", "0.00", "0.00", "0.00", "0.00"]
        expect(page.locator(".about .facts")).to_contain_text("log p 0.00")
        expect(page.locator(".about .facts")).to_contain_text("whole image 0.00 nats")


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("in nats", "2.7 times less likely"),
        ("log p −1.25", "0 is certain"),
        ("rank agreement 0.83", "Spearman’s correlation"),
        ("[90 % interval]", "9 times in 10"),
    ],
)
def test_a_term_says_what_it_means_where_it_stands(visit, tmp_path, word, meaning):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        if word.startswith("rank"):
            page.get_by_role("button", name="Verify").click()
        term = page.get_by_role("button", name=word, exact=True)
        note = page.get_by_role("tooltip").filter(has_text=meaning)
        expect(note).to_be_hidden()
        term.hover()
        expect(note).to_be_visible()
        page.locator("#view h1").hover()
        expect(note).to_be_hidden()
        term.focus()  # by keyboard, or a finger
        expect(note).to_be_visible()
        expect(term).to_have_accessible_description(re.compile(meaning))
        page.keyboard.press("Escape")
        expect(note).to_be_hidden()


def test_a_sentence_that_is_not_grounded_is_marked_and_says_what_that_means(visit, tmp_path):
    run = with_span(with_span(make_run(), 0, grounded=True), 1, grounded=False)
    with PageServer(run) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        expect(page.locator(".ungrounded")).to_have_attribute("id", "span-1")
        expect(page.locator(".end")).to_contain_text("1 sentence not grounded")
        page.locator("#span-1").click()
        expect(page.locator(".about")).to_contain_text("not grounded")
        page.locator("#span-0").click()
        expect(page.locator(".about")).not_to_contain_text("not grounded")
