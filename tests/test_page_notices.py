"""What should be known before an answer is read stands on the page, beside it."""

from dataclasses import replace

import pytest
from browsing import ask, expect
from page_server import PageServer
from test_runs import make_run

from eyeline.events import Notice, Start
from eyeline.runs import Run

pytestmark = pytest.mark.browser


def noticed(*messages: str) -> Run:
    run = make_run()
    notices = tuple(Notice("unlike", message) for message in messages)
    events = (replace(event, notices=notices) if isinstance(event, Start) else event for event in run.events)
    return Run(run.prompt, run.images, tuple(events))


def test_notices_of_a_run_stand_above_its_text_as_plain_text(visit, tmp_path):
    with PageServer(
        noticed("The image is <b>unlike</b> what this model can read.", "Ids were guessed.")
    ) as server:
        page = visit(server)
        ask(page, tmp_path)
        page.locator(".end").wait_for()
        expect(page.locator(".notice p")).to_have_text(
            ["Note. The image is <b>unlike</b> what this model can read.", "Note. Ids were guessed."]
        )


def test_a_run_without_notices_shows_none(visit, tmp_path):
    with PageServer(noticed()) as server:
        page = visit(server)
        ask(page, tmp_path)
        page.locator(".end").wait_for()
        expect(page.locator(".notice")).to_be_hidden()
