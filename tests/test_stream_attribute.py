"""`attribute` gives for a text that is there already what a stream gives that writes it."""

import dataclasses
import itertools

import pytest
from conftest import tiny_model
from streams import QUESTION, assert_same_spans, ids_of, only, random_estimator, sampled, without_times
from test_features import PICTURES

from eyeline import decoding, stream
from eyeline.events import Error, SpanAttribution
from eyeline.exchange import Exchange
from eyeline.reader import Reader
from eyeline.teacher_forcing import Along

run = Along._run


def test_attributing_the_ids_of_a_stream_gives_its_events(tiny):
    estimator = random_estimator(tiny)
    stream = tiny.stream(list(PICTURES), QUESTION, **sampled(tiny), estimator=estimator)
    streamed = list(stream)
    attributed = list(tiny.attribute(list(PICTURES), QUESTION, ids_of(stream), estimator=estimator))
    (our_spans, our_rest), (their_spans, their_rest) = without_times(streamed), without_times(attributed)
    assert our_rest[-1] == dataclasses.replace(their_rest[-1], reason="length")  # a limit ended the stream
    assert our_rest[:-1] == their_rest[:-1]
    assert len(our_spans) > 4
    assert_same_spans(
        our_spans, their_spans, tolerance=2e-3
    )  # units see half precision, which may round apart
    assert attributed[-1].stalled_s == 0


def test_a_trace_that_holds_the_models_own_image_token_is_attributed(tiny):
    ids = [5, tiny.adapter.image_token_id(tiny.hf), 7, 9]
    bias = {"sequence_bias": [[[token], 100.0 + 10 * n] for n, token in enumerate(ids[1:2])]}
    stream = tiny.stream(PICTURES[0], QUESTION, max_new_tokens=3, temperature=0, **bias)
    events = list(stream)
    assert ids_of(stream) == [ids[1]] * 3
    attributed = list(tiny.attribute(PICTURES[0], QUESTION, ids_of(stream)))
    assert not only(Error, events + attributed)
    assert_same_spans(only(SpanAttribution, events), only(SpanAttribution, attributed))
    assert len(only(SpanAttribution, list(tiny.attribute(PICTURES[0], QUESTION, ids)))) == 1


def test_text_is_attributed_like_its_ids():
    model = tiny_model("qwen3_vl")
    text = "A bar.\nTwo bars.\n</think>3"
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    by_text, by_ids = (list(model.attribute(PICTURES[0], QUESTION, what)) for what in (text, ids))
    assert without_times(by_text) == without_times(by_ids)
    assert (by_text[-1].reason, by_text[-1].tokens_per_s) == (
        "stop",
        0.0,
    )  # nothing was decoded, and no limit reached
    ended = list(model.attribute(PICTURES[0], QUESTION, text + model.tokenizer.eos_token))
    assert ended[-1].reason == "eos"


def one_long_span(model, tokens):
    """Ids of a text without an end of a sentence, which is cut where spans are longest."""
    (letter,) = model.tokenizer("a", add_special_tokens=False)["input_ids"]
    return [letter] * tokens


def test_a_long_text_is_read_in_passes_and_its_steps_go_while_its_spans_are_still_open(tiny, monkeypatch):
    ids, pending, passes = one_long_span(tiny, 300), [], []
    monkeypatch.setattr(decoding, "AT_ONCE", 16)
    monkeypatch.setattr(stream, "PENDING_BYTES", 1)
    keep_pace = Exchange.keep_pace

    def watched(exchange, capture):
        keep_pace(exchange, capture)
        pending.append(capture.pending_bytes)

    monkeypatch.setattr(Exchange, "keep_pace", watched)
    monkeypatch.setattr(Along, "_run", lambda along, *ends: passes.append(ends) or run(along, *ends))
    estimator = random_estimator(tiny)
    events = list(tiny.attribute(PICTURES[0], QUESTION, ids, estimator=estimator))
    assert not only(Error, events)
    assert [span.end - span.start for span in only(SpanAttribution, events)] == [128, 128, 44]
    assert max(end - start for start, end in passes[1:]) == 16
    token = sum(pending) and pending[0]  # the step of the first token, which the prompt's pass leaves
    assert max(pending) <= 3 * 32 * token
    monkeypatch.undo()
    at_once = list(tiny.attribute(PICTURES[0], QUESTION, ids, estimator=estimator))
    assert_same_spans(only(SpanAttribution, events), only(SpanAttribution, at_once), tolerance=2e-3)


@pytest.mark.parametrize("failing", [range(100), [0], [1]], ids=["all", "first", "second"])
def test_tokens_that_could_not_be_read_ahead_are_read_with_their_span(monkeypatch, failing):
    model, read_ahead, calls = tiny_model("qwen3_vl"), Reader.read_ahead, itertools.count()
    monkeypatch.setattr(decoding, "AT_ONCE", 32)

    def fails(*told):
        return 1 / 0 if next(calls) in failing else read_ahead(*told)

    ids = one_long_span(model, 100)
    expected = only(SpanAttribution, list(model.attribute(PICTURES[0], QUESTION, ids)))
    monkeypatch.setattr(Reader, "read_ahead", fails)
    events = list(model.attribute(PICTURES[0], QUESTION, ids))
    assert next(calls) > 1
    assert not only(Error, events)
    assert_same_spans(only(SpanAttribution, events), expected)
