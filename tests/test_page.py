"""The page in a real browser, against a scripted server: what somebody sees who asks, looks, checks and comes back."""

import base64
import io
import json
import os
import re
import shutil
from dataclasses import replace

import pytest
from page_server import PageServer
from PIL import Image, ImageSequence
from test_runs import HOSTILE, make_run

from eyeline.events import SpanAttribution
from eyeline.runs import Run

playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
expect = playwright.expect
pytestmark = pytest.mark.browser
MIDDLE = 13  # events until the first span is attributed and the second is being written


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed")
        pytest.skip("needs Chromium: apt-get install chromium")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
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
        expect(page.locator(".selection")).to_contain_text("1 top left of image 1: 1 span rests on it")
        rests = page.locator(".span").evaluate_all(
            "spans => spans.map(span => Number(span.style.getPropertyValue('--rest')))"
        )
        assert rests[0] == pytest.approx(1)
        assert max(rests[1:]) < 0.01
        page.get_by_role("button", name="Heat").click()
        expect(page.locator(".frame canvas").first).to_have_css("opacity", "0")
        page.get_by_role("button", name="Top 3").click()
        expect(page.locator(".badge")).to_have_text(["1"])  # of the region that was clicked
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
            re.compile("rank agreement 0.83.*predicted and actual of 10 regions")
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


def test_a_run_is_saved_found_reopened_and_deleted(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path, "Where is the bar?")
        expect(page.locator(".answer .span")).to_have_count(1)
        assert page.url.endswith("/?run=run-0")
        again = visit(server, "/?run=run-0")
        expect(again.locator(".answer .text")).to_have_text("It is 7.")
        expect(again.get_by_role("heading", name="Where is the bar?")).to_be_visible()
        expect(again.locator(".frame img")).to_have_count(2)
        again.get_by_role("button", name="Runs").click()
        again.get_by_role("searchbox").fill("nothing like it")
        expect(again.get_by_text("No run matches.")).to_be_visible()
        again.get_by_role("searchbox").fill("the BAR")
        expect(again.locator("#run-list li")).to_have_count(1)
        remove = again.get_by_role("button", name="Delete the run")
        remove.click()
        assert server.saved  # one click is not enough
        remove.click()
        expect(again.locator("#run-list li")).to_have_count(0)
        assert not server.saved


def test_a_run_is_downloaded_as_report_events_and_film(visit, tmp_path):
    run = make_run()
    with PageServer(run) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        files = {}
        for name in ("Report", "Events", "Gaze"):
            page.get_by_text("Download", exact=True).click()
            with page.expect_download() as download:
                page.get_by_role("button", name=re.compile(name)).click()
            files[name] = download.value.path()
        lines = files["Events"].read_text(encoding="utf-8").split("\n")
        assert [json.loads(line)["event"] for line in lines].count("span") == 3
        with Image.open(files["Gaze"]) as film:
            assert len(list(ImageSequence.Iterator(film))) > 3
        report = page.context.new_page()
        (tmp_path / "report.html").write_bytes(files["Report"].read_bytes())
        report.goto((tmp_path / "report.html").as_uri())
        expect(report.locator(".answer .text")).to_have_text("It is 7.")


def test_everything_is_done_with_the_keyboard_alone(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)

        def tab_to(selector: str) -> None:
            for _ in range(60):
                if page.evaluate("selector => Boolean(document.activeElement?.matches(selector))", selector):
                    return
                page.keyboard.press("Tab")
            raise AssertionError(f"Tab never reaches {selector}")

        expect(page.locator(".gallery button")).to_have_count(1)
        tab_to(".gallery button")
        page.keyboard.press("Enter")
        expect(page.locator("#question")).to_have_value("How far?")
        expect(page.locator("#question")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        page.keyboard.press("Home")
        expect(page.locator(".span").first).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".span").nth(1)).to_be_focused()
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")
        page.keyboard.press("Escape")
        tab_to(".strip")
        page.keyboard.press("End")
        expect(page.locator(".strip")).to_have_attribute("aria-valuenow", "3")
        page.locator(".wordmark").focus()
        tab_to(".strongest button")
        page.keyboard.press("Enter")
        tab_to(".evidence .action")
        page.keyboard.press("Enter")
        expect(page.locator(".agreement")).to_contain_text("0.83")
        page.locator(".wordmark").focus()
        tab_to("#open-runs")
        page.keyboard.press("Enter")
        expect(page.locator("#runs")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#runs")).to_be_hidden()


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
    with PageServer(make_run(extra=" and so on" * 2000), gate=MIDDLE) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".span")).to_have_count(1)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".end")).to_have_text("Stopped.")
        server.go()
        assert server.left.wait(10)


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


UNREACHABLE = "The server is not reachable; trying again"


def test_while_the_server_is_gone_the_page_says_so_and_every_request_is_made_again(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        expect(page.locator(".gallery button")).to_have_count(1)
        banner = page.locator("#unreachable")

        def through_an_outage(act, outcome) -> None:
            expect(banner).to_have_text("")
            server.vanish()
            act()
            expect(banner).to_have_text(UNREACHABLE)
            server.come_back()
            outcome()
            expect(banner).to_have_text("")

        through_an_outage(
            lambda: page.locator(".gallery button").click(),
            lambda: expect(page.locator("#question")).to_have_value("How far?"),
        )
        through_an_outage(
            lambda: page.locator("#question").press("Enter"),
            lambda: expect(page.locator(".answer .text")).to_have_text("It is 7."),
        )
        through_an_outage(
            page.get_by_role("button", name="Verify").click,
            lambda: expect(page.locator(".agreement")).to_contain_text("10 regions"),
        )
        page.locator(".strongest button").first.click()
        through_an_outage(
            page.get_by_role("button", name="Hide it and ask again").click,
            lambda: expect(page.locator(".compare .verdict")).to_have_text("The answer changes."),
        )
        through_an_outage(
            page.get_by_role("button", name="Runs").click,
            lambda: expect(page.locator("#run-list li")).to_have_count(1),
        )
        page.get_by_role("button", name="Delete the run").click()
        through_an_outage(
            page.get_by_role("button", name="Delete the run").click,
            lambda: expect(page.locator("#run-list li")).to_have_count(0),
        )
        assert len(server.asked) == 1


def test_a_request_that_waits_for_the_server_can_be_given_up(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        expect(page.locator(".gallery button")).to_have_count(1)
        server.vanish()
        ask(page, tmp_path)
        expect(page.locator("#unreachable")).to_have_text(UNREACHABLE)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".end")).to_have_text("Stopped.")
        expect(page.locator("#unreachable")).to_have_text("")
        server.come_back()
        page.get_by_role("button", name="Ask about it again").click()
        expect(page.locator("#question")).to_have_value("How far is it?")  # it was not answered
        expect(page.locator(".thumbs img")).to_have_count(2)
    assert server.asked == []


@pytest.mark.parametrize("cut", [0, MIDDLE])
def test_a_stream_that_breaks_off_goes_on_where_it_was_and_shows_nothing_twice(visit, tmp_path, cut):
    cuts = {"/v1/chat/completions": cut, "/v1/verify": 4, "/v1/ask-without": MIDDLE}
    with PageServer(make_run(), cuts=cuts) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .text")).to_have_text("It is 7.")
        expect(page.locator(".thinking .text")).to_have_text(
            "The bar at the\nleft shows 3.14 km. In the other picture it is 7."
        )
        expect(page.locator(".span")).to_have_count(3)
        expect(page.locator(".side .problem")).to_be_empty()
        assert len(server.asked) == (2 if cut == 0 else 1)  # asked anew only where nothing had come
        page.get_by_role("button", name="Verify").click()
        expect(page.locator(".agreement")).to_contain_text("10 regions")
        page.locator(".strongest button").first.click()
        page.get_by_role("button", name="Hide it and ask again").click()
        expect(page.locator(".compare .verdict")).to_have_text("The answer changes.")
        expect(page.locator(".compare dd")).to_have_text(["It is 7.", "It is 9."])


def test_a_question_that_the_server_lost_is_said_to_be_cut_short_and_can_be_asked_again(visit, tmp_path):
    run = make_run()
    with PageServer(run, cuts={"/v1/chat/completions": MIDDLE}) as server:
        server.kept = MIDDLE + 1
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".end")).to_contain_text("This run was cut short")
        expect(page.locator(".span")).to_have_count(1)
        page.get_by_role("button", name="Ask about it again").click()
        page.locator("#question").press("Enter")
        expect(page.locator(".answer .text")).to_have_text("It is 7.")


def test_a_link_to_no_run_is_explained_and_leaves_the_page_usable(visit, tmp_path):
    with PageServer(make_run()) as server:
        for link in ("/?run=run-gone", "/?run=../../etc/passwd", "/?run=%00%ff<b>"):
            page = visit(server, link, expected="404")
            expect(page.locator("#bad-link")).to_contain_text("it was deleted, or the link is not whole")
            assert page.url == server.url + "/"
        ask(page, tmp_path)
        expect(page.locator(".answer .text")).to_have_text("It is 7.")
        page.get_by_role("button", name="New question").click()
        expect(page.locator("#bad-link")).to_be_hidden()


def sent_images(server) -> list[Image.Image]:
    parts = server.asked[-1]["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def test_images_above_the_servers_limit_are_made_smaller_in_the_browser(visit, tmp_path):
    gradient = Image.linear_gradient("L")
    names = [str(tmp_path / name) for name in ("tall.png", "small.png")]
    gradient.resize((300, 600)).save(names[0])
    gradient.resize((100, 100)).save(names[1])
    with PageServer(make_run(), limits={"pixels": 60_000}) as server:
        page = visit(server)
        page.locator("#files").set_input_files(names)
        expect(page.locator("#sizes")).to_contain_text("Sent smaller: image 1 as 158 × 316 pixels.")
        page.locator("#question").fill("What is it?")
        page.locator("#question").press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        large, small = sent_images(server)
        assert large.size == (158, 316)
        assert abs(large.convert("L").getpixel((80, 158)) - 128) < 4  # the whole of it, not a part
        assert (small.size, small.format) == ((100, 100), "PNG")


def test_images_that_are_too_heavy_for_a_request_are_sent_lighter(visit, tmp_path):
    names = [str(tmp_path / name) for name in ("noise.png", "flat.png")]
    Image.effect_noise((400, 300), 100).save(names[0])
    Image.new("RGB", (400, 300), "red").save(names[1])
    with PageServer(make_run(), limits={"body": 2**16 + 40_000}) as server:
        page = visit(server)
        page.locator("#files").set_input_files(names)
        page.locator("#question").fill("What is it?")
        page.locator("#question").press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        noise, flat = sent_images(server)
        assert (noise.format, flat.format) == ("JPEG", "PNG")
        assert noise.width / noise.height == pytest.approx(4 / 3, abs=0.02)
        assert len(json.dumps(server.asked[-1])) < 2**16 + 40_000


def test_an_image_that_is_transparent_and_no_format_of_the_servers_is_sent_as_it_looks(visit, tmp_path):
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 32, 64))
    image.save(tmp_path / "half.avif", quality=100)
    with PageServer(make_run()) as server:
        page = visit(server)
        page.locator("#files").set_input_files([str(tmp_path / "half.avif"), *image_files(tmp_path)[:1]])
        page.locator("#question").fill("What is it?")
        page.locator("#question").press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        half = sent_images(server)[0].convert("RGB")
        assert min(half.getpixel((48, 32))) > 250
        assert half.getpixel((16, 32))[0] > 190 > 20 > half.getpixel((16, 32))[1]


def test_more_images_than_the_server_takes_are_refused_before_they_are_sent(visit, tmp_path):
    with PageServer(make_run(), limits={"images": 1}) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".side .problem")).to_have_text(
            "The server takes 1 image at most; ask about fewer."
        )
    assert server.asked == []


def test_a_reopened_run_can_be_asked_about_again(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page = visit(server, "/?run=run-0")
        expect(page.locator(".answer .span")).to_have_count(1)
        page.get_by_role("button", name="Ask about it again").click()
        expect(page.locator(".thumbs img")).to_have_count(2)
        page.locator("#question").fill("And now?")
        page.locator("#question").press("Enter")
        expect(page.get_by_role("heading", name="And now?")).to_be_visible()
        expect(page.locator(".answer .span")).to_have_count(1)
        assert [image.size for image in sent_images(server)] == [(192, 128), (128, 128)]


def test_a_file_that_is_no_image_and_an_empty_question_are_explained(visit, tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with PageServer(make_run()) as server:
        page = visit(server)
        page.locator("#files").set_input_files(str(tmp_path / "notes.png"))
        expect(page.locator("#problem")).to_contain_text(
            "“notes.png” is not an image that this browser can read"
        )
        page.locator("#files").set_input_files(image_files(tmp_path))
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator("#problem")).to_have_text("Type a question about the image.")
        assert server.asked == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(visit, tmp_path, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()

    def complaints(page) -> str:
        return axe.run(page).generate_report() if axe.run(page).violations_count else ""

    with PageServer(make_run("attention", lost=True)) as server:
        page = visit(server, color_scheme=scheme)
        expect(page.locator(".gallery button")).to_have_count(1)
        assert complaints(page) == ""
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.locator(".strongest button").first.click()
        page.get_by_role("button", name="Hide it and ask again").click()
        expect(page.locator(".compare .verdict")).to_have_text("The answer changes.")
        page.get_by_role("button", name="Verify").click()
        expect(page.locator(".agreement")).to_contain_text("0.83")
        assert complaints(page) == ""
        page.get_by_role("button", name="Runs").click()
        expect(page.locator("#run-list li")).to_have_count(1)
        assert complaints(page) == ""


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
        image, thinking, answer, legend, numbers = (
            page.locator(name).first.bounding_box()
            for name in (".images", ".thinking", ".answer", ".legend", ".about")
        )
        below = thinking["y"] - image["y"] - image["height"]
        assert 0 <= below < 20
        assert thinking["y"] < 844 / 2 < answer["y"] < legend["y"] < numbers["y"]


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (2560, 1440)])
def test_image_verification_and_text_stand_beside_each_other_over_the_whole_width(
    visit, tmp_path, width, height
):
    with PageServer(make_run()) as server:
        page = visit(server, viewport={"width": width, "height": height})
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        verify = page.get_by_role("button", name="Verify")
        dock = page.locator(".dock").bounding_box()["y"]
        image, button, text = (
            place.bounding_box() for place in (page.locator(".images"), verify, page.locator(".trace"))
        )
        assert image["x"] < 0.05 * width
        assert image["x"] + image["width"] < button["x"] < button["x"] + button["width"] < text["x"]
        assert image["y"] <= button["y"] < button["y"] + button["height"] < dock
        assert text["x"] + text["width"] > 0.94 * width
        verify.click()
        expect(page.locator(".agreement")).to_contain_text("0.83")
        measured = page.locator(".still").first.bounding_box()
        assert measured["x"] > image["x"] + image["width"]


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


def test_every_region_has_a_number_that_is_the_same_on_the_image_and_in_every_list(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.keyboard.press("End")
        page.locator("#view h1").hover()
        expect(page.locator(".strongest .place em").first).to_have_text("10")
        expect(page.locator(".badge")).to_have_text(["10"])  # alone above a tenth of the strongest
        page.get_by_role("button", name="All numbers").click()
        numbers = page.locator(".badge").all_inner_texts()
        assert sorted(map(int, numbers)) == list(range(1, 11))
        page.locator(".more").click()
        rows = page.locator(".strongest .place").all_inner_texts()
        assert len(set(rows)) == 10  # though several regions lie in one place
        page.locator(".strongest button").first.click()
        expect(page.locator(".selection")).to_contain_text("10 bottom right of image 2:")


def test_small_numbers_have_one_form_and_none_is_a_negative_nothing(visit, tmp_path):
    run = make_run()
    small = (0.0004, -0.0004, 0.004, -0.06, 0.3, 1.234, 12.34, 123.4, 0.0, -0.0049)
    events = [
        replace(
            event,
            effects=small,
            interval=None,
            contributions=small,
            contribution_interval=None,
            log_prob=-0.0001,
            whole_image=-0.001,
        )
        if isinstance(event, SpanAttribution) and event.index == 2
        else event
        for event in run.events
    ]
    with PageServer(Run(run.prompt, run.images, tuple(events))) as server:
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


def test_a_run_that_ends_in_a_span_without_effect_shows_the_one_that_rests_most_on_the_image(visit, tmp_path):
    run = make_run()
    events = [
        replace(event, effects=(0.01,) * 10, contributions=(0.01,) * 10, whole_image=0.1, patches=None)
        if isinstance(event, SpanAttribution) and event.index == 2
        else event
        for event in run.events
    ]
    with PageServer(Run(run.prompt, run.images, tuple(events))) as server:
        page = visit(server)
        ask(page, tmp_path)
        expect(page.locator(".end")).to_have_count(1)
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")
        page.keyboard.press("End")
        expect(page.locator(".about h2")).to_contain_text("3 of 3 hardly rests on the image")
