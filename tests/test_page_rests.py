"""What a finished run rests on, on the page: its answer through the thinking, and the sentences that it comes from."""

from dataclasses import replace

import pytest
from browsing import ask, boxes, expect, heat_at
from page_server import PageServer
from test_runs import make_run, with_span

from eyeline.events import Done, RestsOn, SpanAttribution, Text
from eyeline.runs import Run

pytestmark = pytest.mark.browser
CHANGES = (0.02, 0.61, 0.0, 0.0, 0.0, 0.3, 1.0, 0.05, 0.0, 0.0)  # region 6 is the first of image 2
RESTS = RestsOn(CHANGES, whole=0.9, total=(0.0,) * 10, direct=(0.0,) * 10, sources=((1, 4.0), (0, 1.0)))


def resting(rests: RestsOn | None = RESTS) -> Run:
    """Three sentences: the answer comes from both others, and the second from the first."""
    run = with_span(with_span(make_run(), 0, sources=()), 1, sources=((0, 1.2),))
    events = (replace(event, rests_on=rests) if isinstance(event, Done) else event for event in run.events)
    return Run(run.prompt, run.images, tuple(events))


def asked(visit, server, tmp_path, **options):
    page = visit(server, **options)
    ask(page, tmp_path)
    page.locator(".end").wait_for()
    return page


def links(page) -> list[str | None]:
    """How each sentence is linked with the one that is shown."""
    return page.locator(".span").evaluate_all("spans => spans.map(span => span.dataset.link ?? null)")


def test_a_finished_run_rests_on_its_answer_in_chances_and_says_what_they_mean(visit, tmp_path):
    with PageServer(resting()) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".answer .span")).to_have_attribute("aria-current", "true")
        expect(page.locator(".about h2")).to_contain_text("The answer would change without")
        numbers = page.locator(".strongest .number")
        assert [each.strip() for each in numbers.all_inner_texts()] == ["100 %", "61 %", "30 %", "5 %", "2 %"]
        expect(page.locator(".badge")).to_have_text(["1", "5", "6"])  # those that reach 10 %
        expect(page.locator(".legend .ticks")).to_contain_text("100 %")
        expect(page.locator(".legend p")).to_have_text(
            "How likely the answer is to change if this part had been hidden before the model thought."
        )
        expect(page.locator(".answer .rests")).to_contain_text(
            "6 top left of image 2 (100 %), 1 top of image 1 (61 %)"
        )
        assert heat_at(page, 1, 0.1, 0.1) == [201, 44, 30]  # 100 %: the end of the ramp
        assert min(heat_at(page, 0, 0.1, 0.9)) > 250  # 0 %: untouched
        expect(page.locator(".facts").first).to_contain_text("without the whole image 90 %")
        assert "nats" not in page.locator(".about").inner_text()


def test_an_answer_that_many_regions_would_change_says_how_many_more(visit, tmp_path):
    with PageServer(resting(replace(RESTS, changes=(0.9, 0.8, 0.7, 0.6, 0.5, *[0.4] * 5)))) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".answer .rests")).to_contain_text("2 top right of image 1 (70 %) and 2 more.")


def test_a_chip_of_the_answer_selects_the_sentence_that_it_comes_from(visit, tmp_path):
    with PageServer(resting()) as server:
        page = asked(visit, server, tmp_path)
        chips = page.locator(".answer .chip")
        expect(chips).to_have_text(
            ["1In the other picture it is 7.4.00 nats", "0The bar at the left shows 3.14 km.1.00 nats"]
        )
        expect(page.locator(".links:not(.to-image) path")).to_have_count(2)  # a line to each
        expect(page.locator(".to-image path")).to_have_count(0)
        chips.first.click()
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".strongest .number").first).to_contain_text("2.40")  # nats, of the sentence
        page.get_by_role("button", name="Back to the answer").click()
        expect(page.locator(".answer .span")).to_have_attribute("aria-current", "true")
        expect(page.locator(".strongest .number").first).to_contain_text("100 %")


def test_a_sentence_shows_by_number_what_it_takes_and_gives_and_points_at_its_region(visit, tmp_path):
    with PageServer(resting()) as server:
        page = asked(visit, server, tmp_path)
        assert links(page) == ["from", "from", None]
        page.locator(".span").nth(1).hover()
        assert links(page) == ["from", "here", "into"]
        marks = page.locator(".span").evaluate_all("spans => spans.map(span => span.dataset.mark)")
        assert marks == ["0", "1", "2"]
        expect(page.locator(".about .from .chip")).to_have_attribute("data-span", "0")
        expect(page.locator(".about .into .chip")).to_contain_text("Answer: It is 7.")
        end, image = boxes(page, ".to-image circle", (".frame", 1))
        across = (end["x"] + end["width"] / 2 - image["x"]) / image["width"]
        down = (end["y"] + end["height"] / 2 - image["y"]) / image["height"]
        assert across > 0.5  # region 9, the last of image 2
        assert down > 0.5
        page.locator(".span").first.hover()
        assert links(page) == ["here", "into", "into"]


def test_an_answer_that_no_region_would_change_says_so_in_a_sentence(visit, tmp_path):
    with PageServer(resting(replace(RESTS, changes=(0.09,) * 10, whole=0.4))) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".legend p")).to_have_text(
            "No part by itself is likely to change it. Nor is the whole image (40 %)."
        )
        expect(page.locator(".about h2")).to_contain_text("The answer would hardly change")
        expect(page.locator(".badge")).to_have_count(0)


def test_no_chance_under_one_half_is_said_to_change_the_answer(visit, tmp_path):
    changes = (0.46, 0.26, *[0.0] * 8)
    with PageServer(resting(replace(RESTS, changes=changes, whole=0.46))) as server:
        page = asked(visit, server, tmp_path)
        likeliest = "most likely 0 top left of image 1 (46 %), 1 top of image 1 (26 %)"
        words = f"No part by itself is likely to change it; {likeliest}. Nor is the whole image (46 %)."
        for place in (".legend p", ".answer .rests", ".reel .now"):
            expect(page.locator(place)).to_have_text(words)
        expect(page.locator(".about h2")).to_contain_text("The answer may change without")
        page.locator("[data-region='0']").click()
        expect(page.locator(".selection")).to_contain_text("without it the answer may change (46 %)")
        assert "would change" not in page.locator("#view").inner_text()
    with PageServer(resting(replace(RESTS, changes=changes, whole=0.9))) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".about h2")).to_contain_text("The answer would change without the whole image")
        expect(page.locator(".answer .rests")).to_contain_text(
            "Without the whole image it would change (90 %)."
        )


def test_the_map_of_what_is_not_grounded_is_pale(visit, tmp_path):
    with PageServer(with_span(with_span(resting(), 2, grounded=False), 1, grounded=False)) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".answer .rests")).to_contain_text("Not grounded")
        assert heat_at(page, 1, 0.1, 0.1) == [255, 228, 190]  # 100 %, at a quarter of the ramp
        expect(page.locator(".strongest")).to_have_class("strongest pale")
        page.locator(".span").nth(1).hover()
        assert heat_at(page, 1, 0.9, 0.9) == [255, 228, 190]
        page.locator(".span").nth(0).hover()
        assert heat_at(page, 0, 0.1, 0.1) == [201, 44, 30]


def test_the_chart_of_reliance_says_how_far_its_bars_reach(visit, tmp_path):
    run = make_run()
    for index in range(3):
        run = with_span(run, index, whole_image=0.01 * (index + 1))
    with PageServer(run) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".reliance .range")).to_have_text("up to 0.03 nats, of 0.50 nats on this scale")


def test_a_run_that_knows_nothing_of_its_answer_rests_on_its_most_visual_sentence(visit, tmp_path):
    with PageServer(resting(None)) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")
        expect(page.locator(".strongest .number").first).to_contain_text("2.40")
        expect(page.locator(".answer .chip")).to_have_count(0)
        expect(page.locator(".links:not(.to-image) path")).to_have_count(0)
        expect(page.get_by_role("button", name="Back to the answer")).to_be_hidden()


def test_while_the_model_writes_nothing_is_said_of_the_answer(visit, tmp_path):
    run = resting()
    with PageServer(run, gate=len(run.events) - 1) as server:  # all but the last event
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_attribute("aria-current", "true")
        expect(page.locator(".strongest .number").first).to_contain_text("0.90")  # nats
        expect(page.locator(".chip, .links path, [data-mark]")).to_have_count(0)
        server.go()
        expect(page.locator(".strongest .number").first).to_contain_text("100 %")


def test_each_sentence_of_a_long_answer_can_be_looked_at_beside_the_answer_as_a_whole(visit, tmp_path):
    run = resting(replace(RESTS, sources=((0, 4.0),)))
    first = next(event for event in run.events if isinstance(event, SpanAttribution))
    events = (
        replace(event, channel="answer")
        if isinstance(event, Text | SpanAttribution) and event.start >= first.end
        else event
        for event in run.events
    )
    with PageServer(Run(run.prompt, run.images, tuple(events))) as server:
        page = asked(visit, server, tmp_path)
        expect(page.locator(".answer .span.on")).to_have_count(2)
        expect(page.locator(".strongest .number").first).to_contain_text("100 %")
        page.locator(".answer .span").first.click()
        expect(page.locator(".span.on")).to_have_count(1)
        expect(page.locator(".strongest .number").first).to_contain_text("2.40")
        page.keyboard.press("Escape")
        expect(page.locator(".answer .span.on")).to_have_count(2)


def test_a_region_that_would_change_the_answer_lights_it_up_and_says_how_likely(visit, tmp_path):
    with PageServer(resting()) as server:
        page = asked(visit, server, tmp_path)
        page.locator(".frame").first.hover(position={"x": 100, "y": 10})
        expect(page.locator(".tip")).to_contain_text("would change (61 %), most in span 0 (0.30 nats)")
        page.locator(".strongest button").nth(1).click()
        expect(page.locator(".selection")).to_contain_text("without it the answer would change (61 %)")
        rest = page.locator(".answer .span").evaluate("span => Number(span.style.getPropertyValue('--rest'))")
        assert rest == pytest.approx(0.61)


def test_on_a_telephone_lines_lead_to_the_image_and_nothing_scrolls_sideways(visit, tmp_path):
    with PageServer(resting()) as server:
        page = asked(visit, server, tmp_path, viewport={"width": 390, "height": 844})
        expect(page.locator(".links:not(.to-image) path")).to_have_count(2)
        page.locator(".answer .chip").first.click()
        end, image = boxes(page, ".to-image circle", (".frame", 1))
        assert image["y"] < end["y"] < image["y"] + image["height"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
