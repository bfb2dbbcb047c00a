"""What is said to be grounded: by words, by games and links, and by what is measured."""

import dataclasses
import io

import pytest
import torch
from conftest import picture
from streams import only
from test_earlier import knowing

from eyeline import load
from eyeline.ablation import ablate
from eyeline.asked import question_of
from eyeline.evaluation import ungrounded as evaluation
from eyeline.evaluation.ungrounded import Judged, measure, rows_of
from eyeline.events import SpanAttribution
from eyeline.game import Game
from eyeline.generation import cut
from eyeline.grounding import ENOUGH, TRUE, Grounding
from eyeline.images import open_image
from eyeline.links import Links
from eyeline.server import gallery
from eyeline.statements import states
from eyeline.stream import attribute

QUESTION = "Which bar is the tallest?"


@pytest.mark.parametrize("sentence", [
    "Bar 3 has 15.",
    "The liquid is yellow.", "Soup", "<li>fish</li>", "Das ist rot.", "values = [1, 2]", "它是红色的", "The second is owl.",
])  # fmt: skip
def test_numbers_and_words_that_are_not_of_reasoning_state_something(sentence):
    assert states(sentence, QUESTION)


@pytest.mark.parametrize("sentence", [
    "Let me look at the image again.",
    "Wait, let me check this.", "The tallest bar?", "</body>", "...", "", "This answers the question.",
    "So, what was asked?",
])  # fmt: skip
def test_reasoning_aloud_and_the_questions_own_words_state_nothing(sentence):
    assert not states(sentence, QUESTION)


def test_the_question_is_the_users_last_turn():
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}, {"type": "text", "text": "Briefly."}]
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "user", "content": parts},
    ]
    assert question_of(turns) == "What?\nBriefly."
    assert question_of(turns[:2]) == "Hello"
    assert question_of("Why?") == "Why?"


def game(*scores, odds=8.0):
    apart, none = torch.tensor([scores]), torch.zeros(1, 0)
    return Game(apart, torch.zeros(1, 0, len(scores)), none, none, torch.tensor([odds]))


def links(*earlier):
    return Links(torch.tensor([[at for at, _ in earlier]]), torch.tensor([[nats for _, nats in earlier]]))


def test_what_follows_from_a_grounded_sentence_is_grounded_and_what_follows_from_another_is_not():
    found = Grounding()
    assert found.add(0, game(6.0, 9.0), links((0, 0.0)), -0.1)  # read from the image: falls by 7 nats
    assert found.add(1, game(0.2, 0.1), links((0, 0.0)), -0.5) is False  # from nothing
    assert found.add(2, game(0.0, 0.0), links((0, 12.0)), -0.1)  # copied from the first
    assert found.add(3, game(0.0, 0.0), links((1, 12.0)), -0.1) is False  # copied from the second
    assert found.grounded == [(0, 1), (2, 3)]


def test_image_and_earlier_text_count_together_and_doubt_counts_against_it():
    alone = ENOUGH + 7.5  # as log-odds: with the token's own of 8 it falls by a little less than ENOUGH
    found = Grounding()
    found.grounded.append((0, 1))
    assert Grounding().add(1, game(alone - 1), links((0, 3.0)), 0.0) is None  # half a nat: neither
    assert found.add(1, game(alone - 1), links((0, 3.0)), 0.0)
    assert found.add(2, game(alone - 1), links((0, 3.0)), -7.0) is False


def spans_and_ids(model):
    ids = model.tokenizer("one bar.\nIt is red.\nAnd 2 more.\n</think>Two bars.", add_special_tokens=False)[
        "input_ids"
    ]
    return ids, cut(model, model.inputs([picture()], "What?"), ids)


def test_measured_falls_are_of_the_image_and_of_earlier_grounded_sentences_together(tiny, monkeypatch):
    ids, spans = spans_and_ids(tiny)
    inputs = tiny.inputs([picture()], "What?")
    tokens = torch.tensor(ids)
    everything = torch.ones(1, sum(map(len, tiny.image_grids(inputs))), dtype=torch.bool)
    direct = ablate(tiny, inputs, tokens, everything).falls[0]
    alone = [float(direct[span.start : span.end].sum()) for span in spans]
    monkeypatch.setattr(evaluation, "TRUE", float("inf"))
    assert measure(tiny, inputs, tokens, spans) == pytest.approx(alone, abs=1e-4)
    monkeypatch.setattr(evaluation, "TRUE", -float("inf"))
    together = measure(tiny, inputs, tokens, spans)
    assert together[0] == pytest.approx(alone[0], abs=1e-4)
    assert all(abs(one - other) > 1e-4 for one, other in zip(together[1:], alone[1:], strict=True))


def test_events_say_it_only_of_sentences_that_state_something_and_only_where_sizes_are_calibrated(tiny):
    ids, _ = spans_and_ids(tiny)

    def said(**card):
        estimator = knowing(tiny, **card)
        with attribute(tiny, picture(), "What is it?", ids, estimator=estimator) as events:
            return {span.text.strip(): span.grounded for span in only(SpanAttribution, list(events))}

    known = said()
    assert known["And 2 more."] is not None
    assert known["It is red."] is not None
    assert set(said(level="none").values()) == {None}
    with attribute(tiny, picture(), "What?", ids, estimator=knowing(tiny), sources=False) as events:
        assert {span.grounded for span in only(SpanAttribution, list(events))} == {None}


def test_rows_are_shares_of_sentences_with_intervals_over_scenes():
    judged = [
        Judged(
            f"scene-{number}",
            "math",
            "own",
            (True, True, False, False),
            (False, number == 0, True, number < 2),
        )
        for number in range(4)
    ]
    rows = {(row.traces, row.family, row.measure): row for row in rows_of(judged)}
    recall, precision, false = (rows["own", "math", name] for name in ("recall", "precision", "false alarms"))
    assert (recall.value, recall.sentences, recall.ungrounded) == (6 / 8, 16, 8)
    assert precision.value == pytest.approx(6 / 7)
    assert false.value == pytest.approx(1 / 8)
    assert recall.low <= recall.value <= recall.high
    assert rows["all", "all", "recall"].value == recall.value
    nothing = [dataclasses.replace(each, grounded=(), marked=()) for each in judged]
    assert all(row.value is None for row in rows_of(nothing))
    assert TRUE > 0


def test_the_embedded_model_is_caught_where_the_gallery_has_erased_what_is_asked_about():
    name = next(name for name in gallery.scenes() if name.startswith("erased"))
    picture_of = open_image(io.BytesIO(gallery.draw_png(name)).getvalue())
    with load("mini").stream(picture_of, gallery.scenes()[name]["prompt"], temperature=0) as events:
        spans = only(SpanAttribution, list(events))
    assert [span.grounded for span in spans if span.channel == "answer"] == [False]
    assert sum(span.grounded is False for span in spans) >= 2
    assert not any(span.grounded for span in spans)
