"""A crash anywhere in a stream is an `Error` among its events, and `Done` still comes."""

import pytest
from conftest import tiny_model
from streams import (
    QUESTION,
    TOKENS,
    Processor,
    assert_same_spans,
    generated,
    ids_of,
    left_as_it_was,
    only,
    sampled,
    without_times,
)
from test_features import PICTURES

import eyeline.features
import eyeline.worker
from eyeline.events import Done, Error, SpanAttribution, Start, Text


def test_a_crash_in_the_worker_is_an_error_and_generation_goes_on_with_the_same_ids(tiny, monkeypatch):
    expected = without_times(list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny), sources=False)))
    calls, real = [], eyeline.features.token_features

    def crash(*args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory\nand more")
        return real(*args)

    monkeypatch.setattr(eyeline.features, "token_features", crash)
    stream = tiny.stream(PICTURES[0], QUESTION, **sampled(tiny), sources=False)
    spans, rest = without_times(list(stream))
    errors = only(Error, rest)
    assert [error.message for error in errors] == [
        "Lost the attribution of span 1, generation goes on: RuntimeError: out of memory"
    ]
    assert [event for event in rest if event not in errors] == expected[1]
    assert_same_spans(spans, [span for span in expected[0] if span.index != 1])
    assert ids_of(stream) == generated(tiny, PICTURES[0], **sampled(tiny))


def test_a_crash_while_reading_the_images_leaves_text_and_done(tiny, monkeypatch):
    def crash(*_):
        raise RuntimeError("no regions")

    monkeypatch.setattr(eyeline.worker, "regions_for", crash)
    events = list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny)))
    assert isinstance(events[0], Start)
    assert events[0].regions == (((0, 0, 0), (0, 0, 0)),)  # the image as one
    assert [error.message for error in only(Error, events)] == [
        "Lost all attributions, generation goes on: RuntimeError: no regions"
    ]
    assert only(SpanAttribution, events) == []
    assert only(Text, events)
    assert (events[-1].reason, events[-1].tokens) == ("length", TOKENS)


@pytest.mark.parametrize("at", [1, 9])
def test_a_crash_of_the_model_is_an_error_and_then_done(tiny, at):
    before = left_as_it_was(tiny)

    def crash():
        raise RuntimeError("no luck\nat all")

    events = list(tiny.stream(PICTURES[0], QUESTION, temperature=0, logits_processor=[Processor(at, crash)]))
    assert isinstance(events[0], Start)
    assert [error.message for error in only(Error, events)] == [
        f"Generation failed after {at - 1} tokens: RuntimeError: no luck"
    ]
    assert (events[-1].reason, events[-1].tokens) == ("error", at - 1)
    assert left_as_it_was(tiny) == before


def test_a_crash_before_the_prompt_is_read_is_start_error_and_done(tiny):
    events = list(tiny.stream(PICTURES[0], QUESTION, temperature=1.0, top_p=-2.0))
    assert [type(event) for event in events] == [Start, Error, Done]
    assert "top_p" in events[1].message
    assert events[-1].reason == "error"


def test_a_crash_of_the_worker_itself_still_ends_with_done(monkeypatch):
    def crash(_):
        raise RuntimeError("no stream")

    monkeypatch.setattr(eyeline.worker, "_attribute", crash)
    events = list(tiny_model("qwen3_vl").stream(PICTURES[0], QUESTION, temperature=0))
    assert [type(event) for event in events if not isinstance(event, Text)] == [Start, Error, Done]
