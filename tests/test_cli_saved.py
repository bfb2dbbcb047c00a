"""Questions about a saved run."""

import json
from pathlib import Path

import pytest
from command import ask, events, refuse, succeed

from eyeline.events import SpanAttribution


def test_a_saved_run_is_asked_about_a_span_words_or_characters_without_the_model(
    here, estimator, monkeypatch
):
    trace = "The bar is tall.\nIt is red.</think>Left."
    words = (
        "attribute",
        "a.png",
        "Which?",
        "--model",
        "model",
        "--estimator",
        estimator,
        "--json",
        "--text",
        "-",
    )
    read = events(succeed(*words, "--save", "run", stdin=trace).stdout)
    span = next(event for event in read if isinstance(event, SpanAttribution))
    monkeypatch.setattr("eyeline.load", lambda *_: pytest.fail("loaded"))
    by = {
        target: json.loads(succeed("joint", "run", *target, "--regions", "0,2", "--json").stdout)
        for target in (
            ("--span", 0),
            ("--words", "The bar is tall."),
            ("--characters", "0,16"),
            ("--words", "bar"),
        )
    }
    whole, words, characters, bar = by.values()
    assert words == characters != bar
    assert whole["whole_image"] == pytest.approx(span.whole_image, rel=1e-4, abs=1e-5)
    assert whole["effects"] == pytest.approx(span.effects, rel=1e-4, abs=1e-5)
    assert whole["parts"] == pytest.approx(span.effects[0] + span.effects[2], rel=1e-4, abs=1e-5)
    assert whole["regions"] == [0, 2]
    shown = succeed("joint", "run", "--span", 0, "--regions", "0,2").stdout
    assert f"regions 0, 2 hidden together: {whole['fall']:.2f} nats" in shown
    assert f"everything hidden: {span.whole_image:.2f} nats" in shown
    strongest = max(span.contributions)
    assert (
        f"  region {span.contributions.index(strongest)}: {strongest:.2f} nats (alone "
        in shown.splitlines()[2]
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "Give one of --span, --words or --characters"),
        (("--span", 0, "--words", "It"), "Give one of --span, --words or --characters"),
        (("--span", 99), "There is no span 99"),
        (("--words", "nowhere to be seen"), "do not stand in the text"),
        (("--characters", "3,1"), "The characters 3 to 1 are none of the text's"),
        (("--characters", "3"), "no range of characters"),
        (("--span", 0, "--regions", "0,99"), "There is no region 99"),
        (("--span", 0, "--regions", "most"), "'most' is not a valid integer"),
    ],
)
def test_a_question_about_a_saved_run_that_cannot_be_answered_is_told_in_one_sentence(
    here, asked, words, expected
):
    assert expected in refuse("joint", asked, *words)


@pytest.fixture(scope="module")
def asked(folders, estimator, tmp_path_factory) -> Path:
    """A saved run that can be asked about."""
    out = tmp_path_factory.mktemp("asked") / "run"
    words = ("attribute", folders / "a.png", "Which?", "--model", folders / "model", "--estimator", estimator)
    succeed(*words, "--text", "-", "--save", out, stdin="It is red.")
    return out


def test_a_run_without_an_estimator_says_that_it_keeps_nothing_to_ask_about(here):
    ask("--save", "run")
    assert "not kept" in refuse("joint", "run", "--span", 0)
