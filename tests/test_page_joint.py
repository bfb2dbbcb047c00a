"""Several regions and selected words on the page, over a tiny model with an estimator: predicted, and measured."""

import re

import pytest
from browsing import expect
from test_server_joint import server  # noqa: F401  a fixture

import eyeline
from eyeline.runs import read_run

pytestmark = pytest.mark.browser
SELECT = """([from, to]) => {
    const node = [...document.querySelector("#span-0").childNodes].find(each => each.nodeType === Node.TEXT_NODE);
    getSelection().setBaseAndExtent(node, from, node, to);
    document.querySelector(".trace").dispatchEvent(new PointerEvent("pointerup"));
}"""


def asked(server, visit):  # noqa: F811
    """The page after a question, its first span shown."""
    page = visit(server)
    page.set_default_timeout(60_000)
    page.locator(".gallery button").first.click()
    page.get_by_text("Options").click()
    page.get_by_label("Longest answer").fill("60")
    page.locator("#question").press("Enter")
    page.locator(".end").wait_for()
    page.keyboard.press("Home")
    return page


def test_regions_chosen_together_have_a_joint_fall_predicted_and_measured(server, visit):  # noqa: F811
    page = asked(server, visit)
    page.locator(".strongest button").nth(0).click()
    page.locator(".strongest button").nth(1).click(modifiers=["Control"])
    together = page.locator(".together")
    expect(together).to_contain_text("Hidden together")
    expect(together).to_contain_text(
        re.compile(r"span 1 would lose −?[\d.]+ nats; each alone, added up: −?[\d.]+")
    )
    page.get_by_role("button", name="Verify together").click()
    expect(together).to_contain_text(re.compile(r"actual −?[\d.]+ nats"))


def test_selected_words_are_shown_as_a_sentence_is(server, visit):  # noqa: F811
    page = asked(server, visit)
    run = read_run(server.data / "runs" / re.search(r"run=(run-\w+)", page.url)[1])
    first = next(event for event in run.events if isinstance(event, eyeline.SpanAttribution))
    lead = len(first.text) - len(first.text.lstrip())
    words = run.joint((lead, lead + 3)).contributions
    page.evaluate(SELECT, [0, 3])
    expect(page.locator(".about h2")).to_contain_text("“")
    strongest = max(range(len(words)), key=lambda region: abs(words[region]))
    expect(page.locator(".strongest button").first).to_have_attribute("data-region", str(strongest))
    page.evaluate("getSelection().removeAllRanges()")
    page.keyboard.press("Home")
    expect(page.locator(".about h2")).to_contain_text(re.compile(r" 1 of \d+ "))
