"""What a model writes faster than a person reads, as the page shows it; the clock stands still but where a test moves it."""

import pytest
from browsing import MIDDLE, ask, expect, heat_at
from page_server import PageServer
from test_runs import make_run

pytestmark = pytest.mark.browser
FIRST = "The bar at the\nleft shows 3.14 km."
READ_MS = 875  # the first sentence and the space after it, 35 characters
BEAT_MS = 500
# Events that arrive at given times, and when each is shown; `told`: when much is kept, and when nothing more
PLAY = """async ([arrivals, paced]) => {
    const {createPace} = await import("/static/pace.js");
    let now = 0, timer = null;
    performance.now = () => now;
    window.setTimeout = (act, ms) => { timer = {act, at: now + ms}; };
    window.clearTimeout = () => { timer = null; };
    const seen = [], told = [];
    const show = event => seen.push([now, event.text ?? event.event]);
    const pace = createPace(show, () => paced, behind => told.push([now, behind]));
    for (const [at, event] of [...arrivals, [Infinity, null]]) {
        while (timer && timer.at <= at) { const {act} = timer; now = timer.at; timer = null; act(); }
        now = at;
        if (event) pace.push(event);
    }
    return {seen, told};
}"""


@pytest.fixture
def play(visit):
    with PageServer(make_run()) as server:
        page = visit(server)
        yield lambda arrivals, paced=True: page.evaluate(PLAY, [arrivals, paced])


@pytest.fixture
def stopped(visit):
    """Opens the page of a server with its clock stopped and motion welcome."""

    def stopped(server, path="/", **options):
        page = visit(server, **{"reduced_motion": "no-preference"} | options)
        page.clock.install(time=0)
        page.clock.pause_at(1000)
        page.goto(server.url + path)
        return page

    return stopped


def words(*texts: str, end: int = 0) -> list[dict]:
    return [
        {"event": "text", "text": text, "start": end + i, "end": end + i + 1} for i, text in enumerate(texts)
    ]


def test_text_is_shown_as_fast_as_it_is_read_and_a_span_waits_for_its_text_and_is_looked_at(play):
    span = {"event": "span", "end": 2}
    events = [*words("Four", " bars"), span, *words(" stand", end=2), {"event": "done"}]
    shown = play([(0, event) for event in events])["seen"]
    assert shown == [[0, "Four"], [100, " bars"], [225, "span"], [725, " stand"], [875, "done"]]


def test_a_span_that_was_attributed_while_the_next_was_written_is_shown_before_the_next(play):
    events = [*words("One.", " Two."), {"event": "span", "end": 1}, {"event": "span", "end": 2}]
    shown = play([(0, event) for event in events])["seen"]
    assert [what for _, what in shown] == ["One.", "span", " Two.", "span"]


def test_nothing_of_a_stream_that_is_slower_than_a_reader_is_held_back(play):
    arrivals = []
    for token in range(35):
        arrivals.append((250 * token, *words(" word", end=token)))
        if token % 7 == 6:
            arrivals.append((250 * token + 40, {"event": "span", "end": token + 1}))
    told = play(arrivals)
    assert [at for at, _ in told["seen"]] == [at for at, _ in arrivals]
    assert told["told"] == []


def test_a_stream_that_stalls_gives_no_right_to_hurry_afterwards(play):
    slow, fast = words("A", "B"), words(*["ten chars "] * 5, end=2)
    shown = play([(0, slow[0]), (60_000, slow[1]), *((60_000, word) for word in fast)])["seen"]
    assert shown[-1][0] > 60_500


def test_without_a_pace_everything_is_shown_as_it_comes(play):
    events = [*words("Four", " bars"), {"event": "done"}]
    assert [at for at, _ in play([(0, event) for event in events], False)["seen"]] == [0, 0, 0]


def test_much_that_is_kept_is_told_until_all_is_shown(play):
    told = play([(0, event) for event in words(*["ten chars "] * 8)])["told"]
    assert told == [[0, True], [1750, False]]


def test_text_and_heat_come_together_span_after_span_and_the_end_rests_on_the_most_visual(stopped, tmp_path):
    with PageServer(make_run()) as server:
        page = stopped(server)
        ask(page, tmp_path)
        expect(page.get_by_role("button", name="Jump to the end")).to_be_visible()
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()  # the model has ended
        expect(page.locator(".thinking .text")).to_have_text("The b")
        page.clock.run_for(READ_MS - 100)
        expect(page.locator(".thinking .text")).to_have_text(FIRST)
        expect(page.locator(".span")).to_have_count(0)
        page.clock.run_for(100)
        expect(page.locator(".span")).to_have_count(1)
        page.clock.run_for(BEAT_MS - 10)
        expect(page.locator(".thinking .text")).to_have_text(FIRST)
        assert heat_at(page, 0, 0.01, 0.01)[2] < 40  # it has moved there before the text goes on
        page.clock.run_for(20)
        expect(page.locator(".thinking .text")).to_have_text(FIRST + " In th")
        page.clock.run_for(10_000)
        expect(page.locator(".answer .text")).to_have_text("It is 7.")
        expect(page.locator(".end")).to_have_count(1)
        expect(page.get_by_role("button", name="Jump to the end")).to_be_hidden()
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")


def test_text_that_comes_under_a_pointer_that_rests_is_not_pointed_at(stopped, tmp_path):
    with PageServer(make_run()) as server:
        page = stopped(server)
        ask(page, tmp_path)
        expect(page.locator(".thinking .text")).to_have_text("The b")
        place = page.locator(".thinking .text").bounding_box()
        page.mouse.move(place["x"] + 20, place["y"] + 16)
        page.clock.run_for(10_000)
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")  # the most visual
        page.mouse.move(place["x"] + 24, place["y"] + 16)
        expect(page.locator(".span").first).to_have_attribute("aria-current", "true")


def test_one_can_jump_to_the_end_with_the_keyboard(stopped, tmp_path):
    with PageServer(make_run()) as server:
        page = stopped(server)
        ask(page, tmp_path)
        jump = page.get_by_role("button", name="Jump to the end")
        jump.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".answer .text")).to_have_text("It is 7.")
        expect(page.locator(".end")).to_have_count(1)
        expect(jump).to_be_hidden()
        expect(page.locator("#view")).to_be_focused()
        expect(page.get_by_role("button", name="Ask about it again")).to_be_visible()


def test_what_is_chosen_with_the_switch_is_done_at_once_and_remembered(stopped, tmp_path):
    with PageServer(make_run()) as server:
        page = stopped(server)
        ask(page, tmp_path)
        expect(page.locator(".thinking .text")).to_have_text("The b")
        switch = page.get_by_role("switch", name="Play at reading pace")
        expect(switch).to_be_checked()
        switch.focus()
        page.keyboard.press("Space")
        expect(page.locator(".end")).to_have_count(1)
        expect(switch).to_be_hidden()
        page.goto(server.url)
        page.get_by_text("Options").click()
        expect(switch).not_to_be_checked()
        ask(page, tmp_path)
        expect(page.locator(".end")).to_have_count(1)
        page.get_by_role("button", name="New question").click()
        switch.check()
        ask(page, tmp_path)
        expect(page.locator(".thinking .text")).to_have_text("The b")


def test_who_wants_less_motion_is_shown_everything_at_once(stopped, tmp_path):
    with PageServer(make_run()) as server:
        page = stopped(server, reduced_motion="reduce")
        page.get_by_text("Options").click()
        expect(page.get_by_role("switch", name="Play at reading pace")).not_to_be_checked()
        ask(page, tmp_path)
        expect(page.locator(".end")).to_have_count(1)


def test_stopping_shows_what_came_until_then(stopped, tmp_path):
    with PageServer(make_run(), gate=MIDDLE) as server:
        page = stopped(server)
        ask(page, tmp_path)
        expect(page.get_by_role("button", name="Jump to the end")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".end")).to_have_text("Stopped.")
        expect(page.locator(".span")).to_have_count(1)
        expect(page.locator(".thinking .text")).to_contain_text("In the other")
        expect(page.get_by_role("button", name="Jump to the end")).to_be_hidden()


def test_another_question_lets_go_of_what_was_kept_of_the_last(stopped, tmp_path):
    with PageServer(make_run()) as server:
        page = stopped(server)
        ask(page, tmp_path)
        expect(page.get_by_role("button", name="Jump to the end")).to_be_visible()
        page.get_by_role("button", name="New question").click()
        page.clock.run_for(10_000)
        ask(page, tmp_path, "And now?")
        expect(page.get_by_role("heading", name="And now?")).to_be_visible()
        expect(page.locator(".thinking .text")).to_have_text("The b")
        page.clock.run_for(10_000)
        expect(page.locator(".thinking .text")).to_have_text(FIRST + " In the other picture it is 7.")
        expect(page.locator(".end")).to_have_count(1)


def test_a_stream_that_breaks_off_is_caught_up_with_at_the_same_pace(stopped, tmp_path):
    with PageServer(make_run(), cuts={"/v1/chat/completions": 3}) as server:
        page = stopped(server)
        ask(page, tmp_path)
        expect(page.get_by_role("button", name="Jump to the end")).to_be_visible()
        expect(page.locator(".thinking .text")).to_have_text("The b")
        page.clock.run_for(10_000)
        expect(page.locator(".answer .text")).to_have_text("It is 7.")
        expect(page.locator(".side .problem")).to_be_empty()


def test_a_reopened_run_is_there_at_once_and_plays_from_its_beginning_when_asked(stopped, tmp_path):
    with PageServer(make_run()) as server:
        page = stopped(server)
        ask(page, tmp_path)
        page.get_by_role("button", name="Jump to the end").click()
        page.goto(server.url + "/?run=run-0")
        expect(page.locator(".answer .text")).to_have_text("It is 7.")
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")
        page.get_by_role("button", name="Play", exact=True).click()
        slider = page.get_by_role("slider", name="Span shown")
        expect(slider).to_have_attribute("aria-valuenow", "1")
        expect(page.locator(".span.later")).to_have_count(2)
        page.clock.run_for(READ_MS + BEAT_MS - 10)
        expect(slider).to_have_attribute("aria-valuenow", "1")
        page.clock.run_for(20)
        expect(slider).to_have_attribute("aria-valuenow", "2")
        page.get_by_role("button", name="Pause").click()
        page.clock.run_for(10_000)
        expect(slider).to_have_attribute("aria-valuenow", "2")
        page.get_by_role("button", name="Play", exact=True).click()
        page.clock.run_for(10_000)
        expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
        expect(slider).to_have_attribute("aria-valuenow", "2")  # it rests on the most visual again
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-pressed", "false")
