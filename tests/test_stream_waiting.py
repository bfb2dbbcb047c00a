"""Decoding, attribution and the reader at speeds of their own: who waits for whom, and how long."""

import threading
from types import SimpleNamespace

from conftest import tiny_model
from server_process import eventually
from streams import QUESTION, assert_same_spans, decoding_waits, only, sampled, without_times
from test_features import PICTURES

import eyeline.exchange
import eyeline.stream
from eyeline.events import SpanAttribution, Text
from eyeline.reader import Reader


def test_too_much_pending_makes_decoding_wait_and_changes_nothing_else(tiny, monkeypatch):
    expected = without_times(list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny))))
    work, read = eyeline.stream.work, Reader.read
    exchanges, waiting, stalls = [], [], []

    def slow(*args):
        eventually(lambda: decoding_waits(exchanges[-1]))
        waiting.append(exchanges[-1].waiting)
        stalls.append(bool(exchanges[-1].progress._waiters))
        return read(*args)

    monkeypatch.setattr(eyeline.stream, "work", lambda exchange: exchanges.append(exchange) or work(exchange))
    monkeypatch.setattr(Reader, "read", slow)
    events = list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny), pending_bytes=1))
    spans, rest = without_times(events)
    assert rest == expected[1]
    assert_same_spans(spans, expected[0])
    assert len(spans) > 4
    assert max(waiting) == 1, "no span waits while another is attributed"
    assert sum(stalls) >= len(spans) - 2
    assert events[-1].stalled_s > 0
    plenty = list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny)))
    assert plenty[-1].stalled_s == 0


def test_close_wakes_a_stream_that_waits_for_the_worker(monkeypatch):
    model, go = tiny_model("qwen3_vl"), threading.Event()
    read = Reader.read

    def stuck(*args):
        go.wait(20)
        return read(*args)

    monkeypatch.setattr(Reader, "read", stuck)
    stream = model.stream(PICTURES[0], QUESTION, **sampled(model), pending_bytes=1)
    while not only(Text, [next(stream)]):
        pass
    eventually(
        lambda: stream._exchange.progress._waiters
    )  # the first span is with the worker, and decoding waits
    stream.close()
    stream._threads[1].join(20)
    assert not stream._threads[1].is_alive(), "the producer ended although the worker is stuck"
    go.set()
    assert list(stream)[-1].reason == "cancelled"


def test_a_reader_who_comes_when_all_is_over_loses_nothing(tiny):
    expected = without_times(list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny, tokens=30))))
    stream = tiny.stream(PICTURES[0], QUESTION, **sampled(tiny, tokens=30))
    for thread in stream._threads:
        thread.join(20)
    assert without_times(list(stream)) == expected


def test_latency_counts_from_the_last_token_of_a_span_to_its_attribution(monkeypatch):
    model, read, work = tiny_model("qwen3_vl"), Reader.read, eyeline.stream.work
    exchanges, now = [], [100.0]

    def slow(*args):
        eventually(lambda: decoding_waits(exchanges[-1]))
        now[0] += 5
        return read(*args)

    monkeypatch.setattr(eyeline.stream, "work", lambda exchange: exchanges.append(exchange) or work(exchange))
    monkeypatch.setattr(Reader, "read", slow)
    monkeypatch.setattr(eyeline.exchange, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    events = list(model.stream(PICTURES[0], QUESTION, **sampled(model, tokens=20), pending_bytes=1))
    latencies = [span.latency_s for span in only(SpanAttribution, events)]
    assert set(latencies) <= {5, 10}  # twice where a span's last token was read with the span before
    assert latencies[0] == 5
    assert events[-1].stalled_s >= 5
    assert events[-1].tokens_per_s in {round(20 / (5 * spans), 2) for spans in range(1, len(latencies) + 1)}
