"""A stream writes the ids of `generate`, and its events come in order and tell all of them."""

import pytest
import torch
from conftest import FAMILIES, build_tiny, tiny_model
from streams import (
    QUESTION,
    TOKENS,
    assert_same_spans,
    generated,
    ids_of,
    only,
    random_estimator,
    sampled,
    without_times,
)
from test_features import PICTURES

from eyeline.events import Done, Error, SpanAttribution, Start, Text, from_json, to_json


@pytest.mark.parametrize("images", [PICTURES[0], list(PICTURES)], ids=["one image", "two images"])
def test_greedy_ids_are_those_of_generate(tiny, images):
    stream = tiny.stream(images, QUESTION, max_new_tokens=TOKENS, temperature=0)
    events = list(stream)
    assert not only(Error, events)
    assert ids_of(stream) == generated(tiny, images, max_new_tokens=TOKENS, temperature=0)


@pytest.mark.parametrize("seed", [0, 3])
def test_sampled_ids_are_those_of_generate_after_setting_the_seed(tiny, seed):
    options = sampled(tiny, seed)
    stream = tiny.stream(PICTURES[0], QUESTION, **options)
    state = torch.get_rng_state()
    assert not only(Error, list(stream))
    assert torch.equal(torch.get_rng_state(), state), "the process's generator is not touched"
    assert ids_of(stream) == generated(tiny, PICTURES[0], **options)
    assert len(set(ids_of(stream))) > 5


def test_without_a_seed_each_stream_draws_its_own_and_leaves_the_process_generator_alone():
    model = tiny_model("qwen3_vl")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    streams = [model.stream(PICTURES[0], QUESTION, max_new_tokens=20, temperature=1.5) for _ in range(2)]
    for stream in streams:
        list(stream)
    assert ids_of(streams[0]) != ids_of(streams[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_model_streams_the_ids_that_it_generates(family):
    model = build_tiny(family)
    model.hf.to(torch.bfloat16)
    options = sampled(model)
    stream = model.stream(PICTURES[0], QUESTION, **options, estimator=random_estimator(model))
    events = list(stream)
    assert not only(Error, events)
    assert len(only(SpanAttribution, events)) > 2
    assert ids_of(stream) == generated(model, PICTURES[0], **options)


def test_start_is_first_done_last_spans_tile_the_tokens_and_texts_join_to_the_decoded_text(tiny):
    stream = tiny.stream(list(PICTURES), QUESTION, **sampled(tiny))
    events, ids = list(stream), ids_of(stream)
    spans, texts, done = only(SpanAttribution, events), only(Text, events), events[-1]
    assert isinstance(events[0], Start)
    assert len(only(Start, events)) == len(only(Done, events)) == 1
    assert isinstance(done, Done)
    assert len(spans) > 4
    assert [spans[0].start, *(span.end for span in spans)] == [*(span.start for span in spans), len(ids)] == [
        0, *(span.end for span in spans)
    ]  # fmt: skip
    decoded = tiny.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for marker in (*tiny.adapter.thinking_markers, *tiny.adapter.answer_markers):
        decoded = decoded.replace(marker, "")
    assert "".join(text.text for text in texts) == decoded
    assert "".join(span.text for span in spans) == decoded
    assert done.tokens == len(ids) == TOKENS
    assert done.reason == "length"
    assert done.answer == "".join(text.text for text in texts if text.channel == "answer").strip()
    assert done.prompt_tokens == tiny.inputs(list(PICTURES), QUESTION)["input_ids"].shape[1]
    assert [(image.width, image.height) for image in events[0].images] == [image.size for image in PICTURES]
    assert [(image.rows, image.cols) for image in events[0].images] == [
        (len(grid), len(grid[0])) for grid in events[0].regions
    ]
    assert all(from_json(to_json(event)) == event for event in events)
    assert list(stream) == [], "nothing comes after Done"


def test_markers_change_the_channel_and_stay_out_of_the_text(tiny):
    opens, closes = tiny.adapter.thinking_markers
    text = f"{opens if tiny.adapter.family == 'glm4v' else ''}A bar.\nTwo bars.\n{closes}It is 3."
    events = list(tiny.attribute(PICTURES[0], QUESTION, text))
    spans = only(SpanAttribution, events)
    assert [(span.channel, span.text) for span in spans] == [
        ("thinking", "A bar.\n"), ("thinking", "Two bars.\n"), ("answer", "It is 3."),
    ]  # fmt: skip
    assert events[-1].answer == "It is 3."


def test_two_streams_at_once_give_what_each_gives_alone(tiny):
    asked = [(PICTURES[0], 1), (list(PICTURES), 2)]
    alone = [list(tiny.stream(images, QUESTION, **sampled(tiny, seed))) for images, seed in asked]
    streams = [tiny.stream(images, QUESTION, **sampled(tiny, seed)) for images, seed in asked]
    together = [[next(streams[0])], []]
    while not all(isinstance(events[-1], Done) for events in together if events) or not together[1]:
        for stream, events in zip(streams, together, strict=True):
            events.extend(event for event in [next(stream, None)] if event is not None)
    for ours, theirs in zip(together, alone, strict=True):
        (our_spans, our_rest), (their_spans, their_rest) = without_times(ours), without_times(theirs)
        assert our_rest == their_rest
        assert len(our_spans) > 2
        assert_same_spans(our_spans, their_spans)
    assert alone[0] != alone[1]


def test_a_quantised_model_says_that_the_calibration_is_not_verified():
    model = build_tiny("qwen3_vl")
    model.hf.is_quantized = True
    estimator = random_estimator(model, fingerprint="of the model before it was quantised")
    events = list(model.stream(PICTURES[0], QUESTION, max_new_tokens=3, estimator=estimator))
    assert events[0].estimator == "random (calibration not verified)"
    assert events[0].unit == "nats"
    assert only(SpanAttribution, events)


def test_own_regions_are_used(tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[[0, 0, 32, 64]]")
    events = list(tiny_model("qwen3_vl").stream(PICTURES[0], QUESTION, max_new_tokens=3, regions=boxes))
    assert events[0].regions == (((0, 1, 1), (0, 1, 1)),)
    assert len(only(SpanAttribution, events)[0].effects) == 2
