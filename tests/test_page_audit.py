"""What the page says of a server that checks itself while it idles."""

import re

import pytest
from browsing import expect
from page_server import PageServer
from test_runs import make_run

pytestmark = pytest.mark.browser

TOLD = {
    "on": True, "share": 0.2, "seconds": 3.0, "spans": 12, "questions": 2, "measured": 12, "without_effect": 4,
    "lds": [0.712, 0.651, 0.763], "r2": [0.5, 0.4, 0.6], "expected": None, "bound": 0.3, "short": 0.0, "drifted": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Checked by hiding parts for real, 12 spans of 2 questions: LDS 0.71 [0.65, 0.76], R2 0.50 [0.40, 0.60]"),
        ({"lds": [0.71, None, None], "r2": [0.5, None, None], "questions": 1, "spans": 1},
         "1 span of 1 question: LDS 0.71, R2 0.50"),
        ({"lds": None, "r2": None}, "12 spans of 2 questions: hiding changed nothing in them, so they do not tell"),
        ({"lds": None, "r2": None, "spans": 0, "questions": 0}, "none has been checked yet"),
    ],
)  # fmt: skip
def test_the_page_tells_how_well_predictions_hold(visit, changes, words):
    with PageServer(make_run()) as server:
        server.audit = TOLD | changes
        page = visit(server)
        expect(page.locator("#audit")).to_contain_text(words)
        expect(page.locator("#audit")).not_to_have_class(re.compile("drifted"))


def test_an_estimator_that_drifted_is_told_as_a_warning_and_a_server_without_an_audit_says_nothing(visit):
    with PageServer(make_run()) as server:
        server.audit = TOLD | {"drifted": True, "lds": [0.05, 0.01, 0.1]}
        page = visit(server)
        expect(page.locator("#audit")).to_contain_text("Do not rely on the numbers")
        expect(page.locator("#audit")).to_have_class(re.compile("drifted"))
    with PageServer(make_run()) as server:
        page = visit(server)
        page.locator("#gallery li").first.wait_for()
        expect(page.locator("#audit")).to_be_empty()
