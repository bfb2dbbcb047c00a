"""Runs on the page: kept, found again, downloaded, asked about again and deleted."""

import json
import re

import pytest
from browsing import ask, expect, sent_images
from page_server import PageServer
from PIL import Image, ImageSequence
from test_runs import make_run

pytestmark = pytest.mark.browser


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
