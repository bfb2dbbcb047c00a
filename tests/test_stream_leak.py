"""What a stream does while the leak map of its images is measured."""

import threading

import pytest
from conftest import tiny_model
from server_process import eventually
from streams import QUESTION, TOKENS, assert_same_spans, ids_of, only, random_estimator, sampled
from test_features import PICTURES

import eyeline.reader
from eyeline.events import Error, SpanAttribution, Start, Text


def test_start_and_text_come_before_the_leak_map_and_the_spans_that_closed_meanwhile_in_order_after(
    tiny, monkeypatch
):
    estimator, options = random_estimator(tiny), sampled(tiny)
    expected = only(SpanAttribution, list(tiny.stream(PICTURES[0], QUESTION, **options, estimator=estimator)))
    go, real = threading.Event(), eyeline.reader.fill_regions

    def late(*args):
        assert go.wait(60)
        return real(*args)

    monkeypatch.setattr(eyeline.reader, "fill_regions", late)
    stream = tiny.stream(PICTURES[0], QUESTION, **options, estimator=estimator)
    first = next(stream)
    assert isinstance(first, Start)
    assert len(first.regions[0]) > 1
    stream._threads[1].join(60)
    assert len(ids_of(stream)) == TOKENS, "all is written while the leak map is measured"
    before = [next(stream) for _ in range(stream._exchange.events.qsize())]
    assert {type(event) for event in before} == {Text}
    go.set()
    spans = only(SpanAttribution, list(stream))
    assert [span.index for span in spans] == list(range(len(spans)))
    assert len(spans) > 4
    assert_same_spans(spans, expected)


def test_a_stream_that_is_closed_stops_measuring_the_leak_map(tiny, monkeypatch):
    reached, asked, real = threading.Event(), [], eyeline.reader.fill_regions

    def closed_meanwhile(model, inputs, regions, hiding, stopped):
        reached.set()
        eventually(stopped)
        asked.append(stopped())
        return real(model, inputs, regions, hiding, stopped)

    monkeypatch.setattr(eyeline.reader, "fill_regions", closed_meanwhile)
    stream = tiny.stream(PICTURES[0], QUESTION, temperature=0, estimator=random_estimator(tiny))
    next(stream)
    assert reached.wait(60)
    stream.close()
    assert list(stream)[-1].reason == "cancelled"
    assert asked == [True]


def test_hiding_by_attention_needs_no_leak_map(monkeypatch):
    model = tiny_model("qwen3_vl")
    monkeypatch.setattr(eyeline.reader, "fill_regions", lambda *_: pytest.fail("measured"))
    shares = "attention"  # in place of an estimator's numbers
    for estimator in (random_estimator(model, hiding="attention"), shares):
        events = list(model.stream(PICTURES[0], QUESTION, **sampled(model), estimator=estimator))
        assert only(SpanAttribution, events)
        assert not only(Error, events)
