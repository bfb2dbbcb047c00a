"""Several regions, selected words and thinking again on the page, over a tiny model with an estimator."""

import json
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
        re.compile(r"span 0 would lose −?[\d.]+ nats; each alone, added up: −?[\d.]+")
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
    expect(page.locator(".about h2")).to_contain_text(" 0 ")


TOLD = {
    "event": "rethought", "thinking": "Bar 1 has 15.", "answer": "<b>salt</b>", "log_prob": -0.1, "hiding": "pixels",
    "samples": 1,
    "sets": [
        {
            "regions": [0], "changes": 1.0, "total": 17.1, "direct": -0.5, "through": 17.6, "interaction": 0.0,
            "predicted": {"changes": 0.94, "total": 9.0, "direct": 0.1},
            "again": [
                {
                    "thinking": "Bar 1 has 5.", "answer": "corn", "closed": False,
                    "differences": [
                        ["same", "Bar 1 has"], ["first", " 15."], ["again", " 5."],
                        ["first", "\n\n<b>salt</b>"], ["again", "\n\ncorn"],
                    ],
                }
            ],
        }
    ],
    "nulls": [],
}  # fmt: skip


def answering(page, *events):
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    page.route(
        "**/v1/rethink",
        lambda route: route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=body),
    )
    page.locator(".strongest button").first.click()
    with page.expect_request("**/v1/rethink") as request:
        page.get_by_role("button", name="Think again without it").click()
    return json.loads(request.value.post_data)


def test_both_traces_stand_side_by_side_with_what_differs_marked(server, visit):  # noqa: F811
    page = asked(server, visit)
    region = int(page.locator(".strongest button").first.get_attribute("data-region"))
    body = answering(page, {"event": "waiting"}, TOLD, {"event": "done"})
    assert body["regions"] == [region]
    section = page.locator(".rethought")
    expect(section.locator(".verdict")).to_have_text("The answer changes.")
    first, again = section.locator(".traces dd").all()
    expect(first).to_have_text("Bar 1 has 15.\n\n<b>salt</b>")
    expect(again).to_have_text("Bar 1 has 5.\n\ncorn")
    assert first.locator("del").all_inner_texts()[0].strip() == "15."
    assert again.locator("ins").all_inner_texts()[0].strip() == "5."
    expect(section).to_contain_text(
        "loses 17.1 nats: directly −0.50, through the thinking 17.6; predicted: 94 % likely to change"
    )


def test_what_went_wrong_is_told_where_the_traces_would_stand(server, visit):  # noqa: F811
    page = asked(server, visit)
    answering(page, {"event": "error", "message": "The thinking was cut off."})
    expect(page.locator(".rethought .verdict")).to_have_text("The thinking was cut off.")
