import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from test_page_rests import resting
from test_runs import HOSTILE, make_run, names, no_space, with_span
from test_still import claiming

from eyeline.errors import DataError
from eyeline.events import ImageInfo, SpanAttribution, Start, Text, from_json
from eyeline.report import name_regions, render_report, write_report
from eyeline.runs import Run


class Tags(HTMLParser):
    """The elements of a page, and the text of its JSON."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.json = ""
        self.in_json = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.in_json = ("type", "application/json") in attrs

    def handle_endtag(self, tag):
        self.in_json = False

    def handle_data(self, data):
        self.json += data if self.in_json else ""


@pytest.fixture(params=["nats", "attention"])
def run(request) -> Run:
    return make_run(request.param, lost=True, extra=HOSTILE)


def test_nothing_in_the_report_comes_from_elsewhere(run):
    page = render_report(run)
    outside = re.search(
        r"https?:(?!//www.w3.org/2000/svg\")|url\(|@import|\bsrc=(?!x onerror)|href=",
        page.replace("img-src", ""),
    )
    assert outside is None, outside
    assert "default-src 'none'" in page
    images = json.loads(Tags(page).json)["images"]
    assert [image["url"][:22] for image in images] == ["data:image/png;base64,"] * 2


def test_the_runs_text_is_never_markup(run):
    page, empty = Tags(render_report(run)), Tags(render_report(Run("", run.images, run.events[:1])))
    assert page.tags == empty.tags
    assert {name for name, _ in page.attributes} == {name for name, _ in empty.attributes}
    data = json.loads(page.json)
    assert data["prompt"] == run.prompt
    assert tuple(from_json(json.dumps(event)) for event in data["events"]) == run.events


def test_a_prompt_that_names_a_placeholder_is_only_text():
    run = make_run()
    page = Tags(render_report(Run("{{data}} {{title}}", run.images, run.events)))
    assert json.loads(page.json)["prompt"] == "{{data}} {{title}}"


def test_regions_are_named_by_their_place_and_image():
    places = name_regions(make_run().start)
    assert len(places) == 10
    assert places[0] == "top left of image 1"
    assert places[9] == "bottom right of image 2"


def test_a_full_disk_keeps_the_earlier_report(tmp_path, monkeypatch):
    write_report(make_run(), tmp_path / "report.html")
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr(os, "fsync", no_space)
    for name in ("report.html", "new.html"):
        with pytest.raises(DataError, match="disk is full"):
            write_report(make_run("attention"), tmp_path / name)
    assert names(tmp_path) == {"report.html"}
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_large_photograph_is_embedded_smaller_as_jpeg():
    run = make_run()
    noise = run.images[0].resize((3000, 2000)).effect_spread(400)
    assert "data:image/jpeg" in render_report(Run("", (noise, run.images[1]), run.events))


@pytest.fixture
def show(tmp_path):
    """Runs `script` inside a report in Chromium; returns what it returns."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed")
        pytest.skip("needs Chromium: apt-get install chromium")

    def show(run: Run, script: str, width: int = 1280):
        errors = "<script>window.failed = []; onerror = message => failed.push(message)</script></head>"
        driver = f"""<script>
            const press = key => (document.activeElement || document.body).dispatchEvent(
                new KeyboardEvent("keydown", {{key, bubbles: true, cancelable: true}}));
            const point = (element, type, at = {{}}) => element.dispatchEvent(
                new PointerEvent(type, {{bubbles: true, pointerType: "mouse", ...at}}));
            const all = selector => [...document.querySelectorAll(selector)];
            const on = () => all(".span").findIndex(span => span.getAttribute("aria-current") === "true");
            const result = (() => {{ {script} }})();
            parent.postMessage(JSON.stringify({{result, failed}}), "*");
        </script></body>"""
        page = render_report(run).replace("</head>", errors).replace("</body>", driver)
        (tmp_path / "report.html").write_text(page, encoding="utf-8")
        frame = f"""<pre id="result"></pre>
            <iframe src="report.html" width="{width}" height="900"></iframe>
            <script>onmessage = event => document.getElementById("result").textContent = event.data</script>"""
        (tmp_path / "frame.html").write_text(frame, encoding="utf-8")  # no window is as narrow as a telephone
        options = [
            "--headless",
            "--force-prefers-reduced-motion",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
        ]
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        address = (tmp_path / "frame.html").as_uri()
        command = [browser, *options, profile, "--virtual-time-budget=2000", "--dump-dom", address]
        dom = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
        found = re.search(r'<pre id="result">(.+?)</pre>', dom, re.DOTALL)
        assert found, dom[-2000:]
        outcome = json.loads(html.unescape(found[1]))
        assert outcome["failed"] == []
        return outcome["result"]

    return show


@pytest.mark.browser
def test_spans_are_reached_with_every_arrow_key_and_the_mouse(show):
    moves = show(
        make_run(),
        """const seen = [on()];
        const keys = "Home ArrowRight ArrowDown ArrowDown ArrowUp ArrowLeft ArrowLeft End";
        for (const key of keys.split(" ")) { press(key); seen.push(on()); }
        point(all(".span")[0], "pointermove"); seen.push(on());                   // pinned by the keys: stays
        press("Escape"); point(all(".span")[0], "pointermove"); seen.push(on());  // let go: follows the mouse
        all(".span")[1].click(); point(all(".span")[0], "pointermove"); seen.push(on());
        return seen;""",
    )
    assert moves == [1, 0, 1, 2, 2, 1, 0, 0, 2, 2, 0, 1]  # first the most visual span


@pytest.mark.browser
@pytest.mark.parametrize("patches", [True, False])
def test_the_heat_of_the_span_is_drawn_where_its_region_is(show, patches):
    colours = show(
        make_run(patches=patches),
        """press("End"); press("ArrowUp");
        // (motion is reduced here, so that the heat is there at once)
        const at = (canvas, x, y) => [...canvas.getContext("2d").getImageData(
            Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data.slice(0, 3)];
        const [first, second] = all(".frame canvas");
        const words = all(".strongest button").map(button => button.textContent);
        return [at(second, .99, .99), at(first, .5, .99), at(first, .01, .01), words];""",
    )
    strongest, against, none, words = colours
    assert strongest == [201, 44, 30]  # region 9, the strongest, has the end of the ramp
    assert against[2] > against[0] + 40  # region 4 speaks against it: blue
    assert min(none) > 250  # white, multiplied into the image: untouched
    assert words[0] == "9bottom right of image 22.40 [2.00, 2.90]"
    assert words[1] == "4bottom of image 1−0.80 [−1.20, −0.30]"


@pytest.mark.browser
def test_pointing_at_a_region_marks_the_spans_that_rest_on_it(show):
    rests = show(
        make_run(),
        """const frame = all(".frame")[0], box = frame.getBoundingClientRect();
        point(frame, "pointermove", {clientX: box.left + 3, clientY: box.top + 3});
        const rests = all(".span").map(span => Number(span.style.getPropertyValue("--rest")));
        return [rests, all(".chosen")[0].getAttribute("d").length > 0, all(".tip")[0].textContent];""",
    )
    assert rests[0] == pytest.approx([1, 0.01 / 1.8, 0.01 / 1.8])
    assert rests[1:] == [True, "0 top left of image 1: 0.01 nats here, most in span 0 (1.80)"]


@pytest.mark.browser
@pytest.mark.parametrize("unit", ["nats", "attention"])
def test_the_page_shows_all_text_as_text_and_says_what_it_measures(show, unit):
    run = make_run(unit, lost=True, extra=HOSTILE)
    page = show(
        run, "return [document.body.innerText, document.title, document.scripts.length, all('img').length];"
    )
    text, title, scripts, images = page
    assert HOSTILE.split("\u2028")[0] in text
    assert text.count("<script>") == 2  # in the prompt and in the trace
    assert title.startswith("How far is it? <script>")
    assert (scripts, images) == (4, 2)  # the page's two and the test's two; the run's two images
    assert "Lost: Span 1 has no attribution" in text
    assert ("Attention, not effect." in text) == (unit == "attention")
    assert ("eyeline fit RUN --out EST" in text) == (unit == "attention")
    assert ("nats" in text) == (unit == "nats")


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(show, width):
    inner, scroll, too_wide = show(
        make_run("attention", extra="x" * 300 + HOSTILE),
        """const right = element => element.getBoundingClientRect().right;
        return [innerWidth, document.documentElement.scrollWidth,
            all(".page *").filter(e => right(e) > innerWidth && !e.closest("svg")).map(e => e.outerHTML)];""",
        width,
    )
    assert inner == width
    assert scroll <= width
    assert too_wide == []


@pytest.mark.browser
@pytest.mark.parametrize("lost", [False, True])
def test_each_channel_shows_its_text_whole_wherever_the_run_was_cut(show, lost):
    run = make_run(lost=lost, extra=" Not finis")
    for end in range(2, len(run.events) + 1, 3):
        shown = show(
            Run(run.prompt, run.images, run.events[:end]),
            """all(".lost").forEach(note => note.remove());
            return ["thinking", "answer"].map(name => all(`.${name} .text`).map(part => part.textContent).join(""));""",
        )
        for channel, text in zip(("thinking", "answer"), shown, strict=True):
            pieces = [e.text for e in run.events[:end] if isinstance(e, Text) and e.channel == channel]
            assert text == "".join(pieces).lstrip()


@pytest.mark.browser
def test_the_page_names_regions_as_the_terminal_does(show):
    rng = np.random.default_rng(0)
    for rows, cols in ((2, 2), (3, 3), (7, 5), (9, 12), (14, 14)):
        labels = rng.integers(0, 4, (rows, cols)) if rows < 5 else np.indices((rows, cols)).sum(0) // 3
        labels = np.unique(labels, return_inverse=True)[1].reshape(rows, cols)  # 0 to K-1, each somewhere
        start = Start(
            "0",
            "m",
            None,
            "attention",
            (ImageInfo(60, 60, rows, cols),),
            (tuple(map(tuple, labels.tolist())),),
        )
        effects = tuple(
            float(labels.max() + 1 - k) for k in range(labels.max() + 1)
        )  # in the order of labels
        span = SpanAttribution(0, "thinking", 0, 1, "a", effects, *[None] * 6, None, -1.0, False, 0.1)
        run = Run("", (Image.new("RGB", (60, 60)),), (start, Text("thinking", "a", 0, 1), span))
        names = show(
            run,
            """all(".more")[0].click();
            return all(".strongest button .place").map(place => place.lastChild.textContent);""",
        )
        assert tuple(names) == name_regions(start)


@pytest.mark.browser
def test_the_report_rests_on_the_answer_and_its_chips_lead_to_sentences(show):
    words, at_first, then = show(
        resting(),
        """const words = all(".strongest button")[0].textContent, at = on();
        all(".answer .chip")[0].click();
        return [words, at, on()];""",
    )
    assert words == "6top left of image 2100 % "
    assert (at_first, then) == (2, 1)


@pytest.mark.browser
def test_the_strongest_region_has_the_full_colour_though_a_cell_of_another_holds_more(show):
    run = make_run()
    first = next(event for event in run.events if isinstance(event, SpanAttribution))
    effects = (1.8, 1.0, *[0.0] * 8)  # region 1 has all of its number in one cell
    cells = {0: (0.45,) * 4, 1: (1.0, 0.0, 0.0, 0.0)}
    left = [list(cells.get(region, (0.0,) * 4)) for region in range(10)]
    grids = tuple(tuple(tuple(left[k].pop(0) for k in row) for row in grid) for grid in run.start.regions)
    changes = {"effects": effects, "contributions": effects, "patches": grids, "whole_image": 2.8}
    colour, legend = show(
        with_span(run, first.index, **changes),
        """press("Home");
        const canvas = all(".frame canvas")[0];
        const {data} = canvas.getContext("2d").getImageData(0, canvas.height * .25, 1, 1);
        return [[...data.slice(0, 3)], all(".ticks")[0].textContent];""",
    )
    assert colour == [201, 44, 30]
    assert legend.endswith("+0.45 and more")


@pytest.mark.browser
def test_a_run_killed_before_its_first_span_still_opens(show):
    run = make_run()
    text = show(Run(run.prompt, run.images, run.events[:3]), "press('End'); return document.body.innerText;")
    assert "cut short" in text
    assert "No span was attributed" in text


@pytest.mark.browser
def test_boxes_that_the_model_claims_stand_with_the_span_that_names_them(show):
    run = claiming('It is {"bbox_2d": [0, 0, 500, 500], "label": "<b>bar"}.')
    before, after = show(
        run,
        """press("Home");
        const told = () => [all(".claim").map(claim => claim.textContent), all(".claimed").map(path => path.getAttribute("d"))];
        const before = told();
        press("End");
        return [before, told()];""",
    )
    assert before == [[], ["", ""]]
    assert after == [["says: <b>bar"], ["M0 0H3V2H0Z"] * 2]
