"""The page in a real browser, against a scripted server: what somebody sees who asks, looks and checks."""

import re

import pytest
from browsing import MIDDLE, ask, expect, heat_at
from page_server import PageServer
from test_runs import HOSTILE, make_run, with_span

pytestmark = pytest.mark.browser


def test_tokens_and_heat_are_seen_before_the_answer_is_finished(visit, tmp_path):
    with PageServer(make_run(), gate=MIDDLE) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".span")).to_have_count(1)
        expect(page.locator(".thinking .text")).to_contain_text("In the other")
        assert heat_at(page, 0, 0.01, 0.01) == [201, 44, 30]  # the first span rests on region 0
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        expect(page.locator(".answer")).to_have_count(0)
        server.go()
        expect(page.locator(".answer .text")).to_have_text("It is 7.")
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        assert heat_at(page, 1, 0.99, 0.99) == [201, 44, 30]  # the last rests on region 9, in image 2
        expect(page.locator("[role=status].unseen")).to_have_text("Answer: It is 7.")
    content = server.asked[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert server.asked[0]["eyeline"] == {"save": True}


def test_the_heat_moves_smoothly_from_span_to_span(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server, reduced_motion="no-preference")
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        expect(page.locator(".images.moving")).to_have_count(0)
        reds = page.evaluate(
            """async () => {
                const canvas = document.querySelectorAll(".frame canvas")[0], seen = [];
                document.dispatchEvent(new KeyboardEvent("keydown", {key: "Home", bubbles: true}));
                do {
                    seen.push(canvas.getContext("2d").getImageData(0, 0, 1, 1).data[2]);
                    await new Promise(requestAnimationFrame);
                } while (document.querySelector(".moving"));
                return [...seen, canvas.getContext("2d").getImageData(0, 0, 1, 1).data[2]];
            }"""
        )
        assert reds == sorted(reds, reverse=True)  # blue goes as the red comes
        assert reds[0] > 240
        assert reds[-1] == 30
        assert len(set(reds)) >= 3


def test_pointing_at_spans_moves_the_heat_and_a_region_lights_up_its_spans(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.locator(".span").first.hover()
        assert heat_at(page, 0, 0.01, 0.01) == [201, 44, 30]
        expect(page.locator(".strongest li").first).to_contain_text("top left of image 1")
        page.locator(".frame").first.click(position={"x": 10, "y": 10})
        expect(page.locator(".selection")).to_contain_text("0 top left of image 1: 1 span rests on it")
        rests = page.locator(".span").evaluate_all(
            "spans => spans.map(span => Number(span.style.getPropertyValue('--rest')))"
        )
        assert rests[0] == pytest.approx(1)
        assert max(rests[1:]) < 0.01
        page.get_by_role("button", name="Heat").click()
        expect(page.locator(".frame canvas").first).to_have_css("opacity", "0")
        page.get_by_role("button", name="Top 3").click()
        expect(page.locator(".badge")).to_have_text(["0"])  # of the region that was clicked
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".badge")).to_have_count(0)


def test_the_real_ablation_stands_beside_the_prediction(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.keyboard.press("Home")
        page.get_by_role("button", name="Verify").click()
        expect(page.locator(".agreement")).to_contain_text(
            re.compile("rank agreement 0.83.*added up over 10 regions: predicted 2.18, actual 1.09 nats")
        )
        expect(page.locator(".strongest li").first).to_contain_text("1.80 alone 1.80, actual 0.90")
        expect(page.locator(".still figcaption")).to_have_text(["Predicted", "Actual"] * 2)


def test_a_hidden_region_is_asked_without_and_the_answers_compared(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.locator(".strongest button").first.click()
        page.get_by_role("button", name="Hide it and ask again").click()
        expect(page.locator(".compare .verdict")).to_have_text("The answer changes.")
        expect(page.locator(".compare dd")).to_have_text(["It is 7.", "It is 9."])


def test_the_film_can_be_scrubbed(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        slider = page.get_by_role("slider", name="Span shown")
        expect(page.locator(".answer .span")).to_have_count(1)
        expect(slider).to_have_attribute("aria-valuemax", "3")
        page.locator(".strip span").first.click()
        expect(slider).to_have_attribute("aria-valuenow", "1")
        expect(page.locator(".span").first).to_have_attribute("aria-pressed", "true")


def test_what_a_model_writes_is_only_text(visit, tmp_path):
    run = make_run("attention", lost=True, extra=HOSTILE)
    with PageServer(run) as server:
        page = visit(server)
        ask(page, tmp_path, HOSTILE)
        expect(page.locator(".answer .span")).to_have_count(1)
        expect(page.locator(".thinking .text")).to_contain_text("<img src=x onerror=alert(1)>")
        expect(page.locator(".lost")).to_contain_text("Span 1 has no attribution")
        expect(page.locator(".notice")).to_contain_text("Attention, not effect.")
        assert page.title().startswith("<script>")
        assert page.locator("main img[src=x], main script").count() == 0


def test_stopping_ends_the_generation(visit, tmp_path):
    with PageServer(make_run(), gate=MIDDLE) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".span")).to_have_count(1)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".end")).to_have_text("Stopped.")
        assert server.left.wait(10)


def test_a_scene_that_is_asked_about_before_its_picture_is_there_is_waited_for(visit):
    with PageServer(make_run()) as server:
        page = visit(server)
        held = []
        expect(page.locator(".gallery button")).to_have_count(1)
        page.route("**/v1/gallery/*", lambda route: held.append(route))
        with page.expect_request("**/v1/gallery/*"):
            page.locator(".gallery button").click()
        page.locator("#question").press("Enter")
        expect(page.locator("#question")).to_have_value("How far?")
        assert held
        assert not server.asked
        held[0].continue_()
        expect(page.locator(".answer .span")).to_have_count(1)
        assert len(server.asked) == 1


def test_the_key_is_asked_for_once_and_kept_for_the_session(visit, tmp_path):
    with PageServer(make_run(), key="secret") as server:
        page = visit(server, expected="401")
        page.get_by_role("textbox", name="API key").fill("wrong")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#key-problem")).to_have_text("The API key is wrong or missing.")
        page.get_by_role("textbox", name="API key").fill("secret")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator(".gallery button")).to_have_count(1)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.reload()
        expect(page.locator(".answer .span")).to_have_count(1)
        expect(page.locator("#key")).to_be_hidden()


def test_outlines_show_under_the_pointer_and_stay_where_they_are_asked_for(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        outlines = page.locator(".frame").first.locator(".outlines").last
        page.locator("#view h1").hover()
        expect(outlines).to_have_css("opacity", "0")
        page.locator(".frame").first.hover()
        expect(outlines).to_have_css("opacity", "1")
        page.get_by_role("button", name="Regions", exact=True).click()
        page.locator("#view h1").hover()
        expect(outlines).to_have_css("opacity", "1")


def test_a_run_that_ends_in_a_span_without_effect_shows_the_one_that_rests_most_on_the_image(visit, tmp_path):
    small = (0.01,) * 10
    run = with_span(make_run(), 2, effects=small, contributions=small, whole_image=0.1, patches=None)
    with PageServer(run) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".end")).to_have_count(1)
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")
        page.keyboard.press("End")
        expect(page.locator(".about h2")).to_contain_text(" 2 hardly rests on the image")
