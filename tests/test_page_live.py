"""The page and the server together, over a tiny model with random weights: nothing scripted between them."""

import re

import pytest
from browsing import expect
from server_process import running

from eyeline.server.gallery import SCENES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    with running(model_folder, tmp_path_factory.mktemp("page") / "data", "--max-tokens", "700") as server:
        yield server


def test_a_question_is_asked_watched_verified_asked_without_and_found_again(server, visit, tmp_path):
    page = visit(server)
    page.set_default_timeout(60_000)
    expect(page.locator(".gallery button")).to_have_count(len(SCENES) + 1, timeout=60_000)
    page.locator(".gallery button").first.click()
    expect(page.locator(".thumbs img")).to_have_count(1)
    page.get_by_text("Options").click()
    page.get_by_label("Longest answer").fill("600")
    page.get_by_label("Seed").fill("3")
    page.locator("#question").press("Enter")
    page.locator("main.live").wait_for()  # what is written is seen while it is being written
    page.locator(".span").first.wait_for()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden(timeout=60_000)
    expect(page.locator(".end")).to_contain_text(re.compile(r"\d+ tokens"))
    assert re.search(r"\?run=run-\w+$", page.url)
    page.keyboard.press("Home")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_role("button", name="Verify again")).to_be_visible(timeout=60_000)
    expect(page.locator(".agreement")).to_contain_text(
        re.compile(r"rank agreement −?[01]\.\d\d|rank agreement …")
    )
    expect(page.locator(".strongest li").first).to_contain_text("actual")
    page.locator(".strongest button").first.click()
    page.get_by_role("button", name="Hide it and ask again").click()
    expect(page.locator(".compare .verdict")).to_have_text(
        re.compile(r"The answer (changes|stays the same)\."), timeout=60_000
    )
    page.get_by_text("Download", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Report").click()
    (tmp_path / "report.html").write_bytes(download.value.path().read_bytes())
    trace = page.locator(".trace").inner_text()
    report = page.context.new_page()
    report.goto((tmp_path / "report.html").as_uri())
    assert report.locator(".trace").inner_text() == trace
    again = visit(server, page.url.removeprefix(server.url))
    again.locator(".end").wait_for()
    assert again.locator(".trace").inner_text() == trace


def test_what_the_server_refuses_is_said_in_its_words(server, visit, tmp_path):
    page = visit(server, "/?run=run-none", expected="404")
    expect(page.locator("#bad-link")).to_contain_text("There is no run “run-none” here")
    page = visit(server, expected="400")
    page.locator(".gallery button").first.click()
    page.get_by_text("Options").click()
    page.get_by_label("Longest answer").fill("1000000")
    page.locator("#question").press("Enter")
    expect(page.locator(".side .problem")).to_contain_text("max_tokens")
