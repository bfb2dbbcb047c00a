"""The page while the server is gone, and where it loses a connection: nothing is lost, nothing shown twice."""

import pytest
from browsing import MIDDLE, ask, expect
from page_server import PageServer
from test_runs import make_run

pytestmark = pytest.mark.browser

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
            lambda: expect(page.locator(".thumbs img")).to_have_count(1),
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
        page.wait_for_load_state("networkidle")  # nothing else waits for the server
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
