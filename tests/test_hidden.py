"""Generation with regions hidden, conversations, and prompts without an image."""

import pytest
import torch
from conftest import build_tiny, picture, tiny_model
from streams import of_some_layers, random_estimator

from eyeline.ablation import METHODS, ablate
from eyeline.asked import Hidden
from eyeline.capture import AttentionCapture
from eyeline.errors import PromptError, RegionError, UnsupportedModelError
from eyeline.events import Done, Error, SpanAttribution, Start, Text

GREEDY = {"temperature": 0, "max_new_tokens": 24}
GRID = (((0, 0, 1), (2, 2, 1)),)


def asked(content, *before):
    return [*before, {"role": "user", "content": content}]


def question(text, images=1):
    return [{"type": "image"}] * images + [{"type": "text", "text": text}]


def spans_of(events):
    return [event for event in events if isinstance(event, SpanAttribution)]


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_with_regions_hidden_has_the_log_prob_that_ablation_measures(tiny, image, method):
    hidden = Hidden(GRID, (1,), method)
    stream = tiny.stream(image, "How many?", hidden=hidden, **GREEDY)
    events = list(stream)
    cells = torch.tensor([[False, False, True, False, False, True]])
    inputs = tiny.inputs(image, "How many?")
    measured = ablate(tiny, inputs, torch.tensor(stream.ids), cells, method)
    expected = measured.log_probs - measured.falls[0]
    spans = spans_of(events)
    assert spans
    for span in spans:
        total = float(expected[span.start : span.end].sum())
        assert span.log_prob == pytest.approx(total, abs=1e-3)
    assert measured.falls.abs().max() > 0.01  # hiding did something


def test_the_regions_shown_are_the_given_ones_and_knocked_out_cells_get_no_attention(image):
    model = tiny_model("qwen3_vl")
    events = list(
        model.stream(
            image, "How many?", hidden=Hidden(GRID, (1,), "attention"), estimator="attention", **GREEDY
        )
    )
    assert isinstance(events[0], Start)
    assert (events[0].regions, events[0].unit) == (GRID, "attention")
    for span in spans_of(events):
        assert span.effects[1] == 0
        assert sum(span.effects) == pytest.approx(1, abs=1e-5)


def test_knockout_reaches_layers_that_an_estimator_does_not_need(tiny, image):
    sparse = of_some_layers(random_estimator(tiny, hiding="attention"), [1])
    hidden = Hidden(GRID, (1,), "attention")
    stream = tiny.stream(image, "How many?", hidden=hidden, estimator=sparse, **GREEDY)
    events = list(stream)
    plain = tiny.stream(image, "How many?", hidden=hidden, **GREEDY)
    list(plain)
    assert stream.ids == plain.ids
    cells = torch.tensor([[False, False, True, False, False, True]])
    measured = ablate(tiny, tiny.inputs(image, "How many?"), torch.tensor(stream.ids), cells, "attention")
    expected = measured.log_probs - measured.falls[0]
    spans = spans_of(events)
    assert spans
    for span in spans:
        assert span.log_prob == pytest.approx(float(expected[span.start : span.end].sum()), abs=1e-3)
        assert span.effects[1] == pytest.approx(0, abs=1e-5)
    assert measured.falls.abs().max() > 0.01


def test_hiding_nothing_gives_the_same_ids(tiny, image):
    plain = tiny.stream(image, "How many?", **GREEDY)
    list(plain)
    for method in METHODS:
        hidden = tiny.stream(image, "How many?", hidden=Hidden(GRID, (), method), **GREEDY)
        list(hidden)
        assert hidden.ids == plain.ids


def test_only_tokens_after_the_image_are_knocked_out_of_two_images(tiny):
    pictures = [picture(), picture(64, 64, seed=1)]
    grids = (GRID[0], ((3, 3), (4, 4)))
    hidden = Hidden(grids, (0, 4), "attention")
    stream = tiny.stream(pictures, "Which?", hidden=hidden, **GREEDY)
    events = list(stream)
    cells = torch.tensor([[True, True, False, False, False, False, False, False, True, True]])
    measured = ablate(tiny, tiny.inputs(pictures, "Which?"), torch.tensor(stream.ids), cells, "attention")
    for span in spans_of(events):
        expected = (measured.log_probs - measured.falls[0])[span.start : span.end].sum()
        assert span.log_prob == pytest.approx(float(expected), abs=1e-3)


def test_regions_of_other_images_are_refused(image):
    with pytest.raises(RegionError, match="other images"):
        tiny_model("qwen3_vl").stream(image, "How many?", hidden=Hidden((((0, 1),),), (0,), "pixels"))


def test_knockout_refuses_sliding_windows(image):
    model = build_tiny("qwen2_5_vl", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    events = list(model.stream(image, "How many?", hidden=Hidden(GRID, (1,), "attention"), **GREEDY))
    assert any(isinstance(event, Error) and "hide pixels" in event.message for event in events)
    inputs = model.inputs(image, "?")
    with pytest.raises(UnsupportedModelError, match="hide pixels"):
        AttentionCapture(model, inputs, hidden=torch.zeros(6, dtype=torch.bool))


def test_a_conversation_of_one_turn_is_the_plain_question(tiny, image):
    plain = tiny.inputs(image, "How many?")
    turns = tiny.inputs([image], asked(question("How many?")))
    assert all(torch.equal(plain[name], turns[name]) for name in plain)


def test_a_conversation_keeps_its_images_where_they_are_said(tiny):
    pictures = [picture(), picture(64, 64, seed=1)]
    turns = asked(
        question("And this?"),
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": question("How many?")},
        {"role": "assistant", "content": "3"},
    )
    inputs = tiny.inputs(pictures, turns)
    first, second = tiny.image_grids(inputs)
    between = tiny.tokenizer.decode(
        inputs["input_ids"][0, int(first.positions[-1]) + 1 : int(second.positions[0])]
    )
    assert (len(first), len(second)) == (6, 4)
    assert "How many?" in between
    assert "3" in between
    events = list(tiny.stream(pictures, turns, **GREEDY))
    assert spans_of(events)
    assert isinstance(events[-1], Done)
    with pytest.raises(PromptError, match="image tokens"):
        tiny.inputs([picture()], turns)


def test_a_conversation_without_an_image_is_answered_without_attribution_and_says_so(tiny):
    turns = asked("How many?")
    stream = tiny.stream([], turns, **GREEDY)
    start, *between, done = list(stream)
    assert isinstance(start, Start)
    assert (start.images, start.regions) == ((), ())
    (said,) = [event.message for event in between if isinstance(event, Error)]
    assert "without attribution" in said
    assert all(isinstance(event, Text | Error) for event in between)
    assert isinstance(done, Done)
    assert (done.tokens, done.reason) == (24, "length")
    inputs = tiny.inputs([], turns)
    ids = tiny.hf.generate(**inputs, do_sample=False, max_new_tokens=24)[0, inputs["input_ids"].shape[1] :]
    assert stream.ids == ids.tolist()
