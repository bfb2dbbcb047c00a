"""How a generation ends: by itself, closed, interrupted or forgotten."""

import gc
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import build_tiny, tiny_model
from server_process import eventually
from streams import QUESTION, TOKENS, Processor, generated, ids_of, left_as_it_was, only, sampled
from test_features import PICTURES

import eyeline.stream
from eyeline.events import SpanAttribution, Start, Text


def collect(stream, events):
    for event in stream:
        events.append(event)


class Counted(queue.SimpleQueue):
    """A queue that counts what was put in, and how often somebody began to take."""

    def __init__(self):
        self.put_in = self.taken = 0
        self.lock = threading.Lock()

    def put(self, item):
        with self.lock:  # worker and producer
            self.put_in += 1
        super().put(item)

    def get(self):
        self.taken += 1
        return super().get()


def test_max_new_tokens_ends_with_length_and_by_default_the_context_does(tiny):
    assert list(tiny.stream(PICTURES[0], QUESTION, max_new_tokens=1, temperature=0))[-1].tokens == 1
    model = build_tiny(tiny.adapter.family, max_position_embeddings=64)
    done = list(model.stream(PICTURES[0], QUESTION, temperature=0))[-1]
    assert (done.reason, done.prompt_tokens + done.tokens) == ("length", 64)


def test_an_end_token_ends_with_eos_and_is_counted(tiny):
    ids = generated(tiny, PICTURES[0], max_new_tokens=20, temperature=0)
    end = next(token for at, token in enumerate(ids) if at > 3 and token not in ids[:at])
    options = {"max_new_tokens": 20, "temperature": 0, "eos_token_id": [end, 1]}
    stream = tiny.stream(PICTURES[0], QUESTION, **options)
    done = list(stream)[-1]
    assert ids_of(stream) == generated(tiny, PICTURES[0], **options) == ids[: ids.index(end) + 1]
    assert (done.reason, done.tokens) == ("eos", ids.index(end) + 1)


def test_the_models_own_end_token_ends_with_eos(tiny):
    end = tiny.hf.generation_config.eos_token_id
    options = {"max_new_tokens": 20, "temperature": 0, "sequence_bias": [[[end], 100.0]]}
    events = list(tiny.stream(PICTURES[0], QUESTION, **options))
    assert (events[-1].reason, events[-1].tokens, only(Text, events)) == ("eos", 1, [])


@pytest.mark.parametrize("option", ["stop", "stop_strings"])
def test_a_stop_string_gives_generates_ids_and_the_text_ends_before_it(tiny, option):
    options = sampled(tiny)
    ids = generated(tiny, PICTURES[0], **options)
    text = tiny.tokenizer.decode(ids)
    at = next(i for i in range(6, 60) if text[i : i + 3].isascii() and text.find(text[i : i + 3]) == i)
    stop = text[at : at + 3]
    stream = tiny.stream(PICTURES[0], QUESTION, **options, **{option: [stop, "never to be seen"]})
    events = list(stream)
    assert events[-1].reason == "stop"
    assert len(ids_of(stream)) < TOKENS
    assert ids_of(stream) == generated(tiny, PICTURES[0], **options, stop=[stop, "never to be seen"])
    assert "".join(piece.text for piece in only(Text, events)) == text[:at]
    assert only(SpanAttribution, events)[-1].end == len(ids_of(stream))


def test_a_criterion_of_the_caller_ends_with_stop():
    model = tiny_model("qwen3_vl")

    def enough(input_ids, scores, **_):
        return torch.full((1,), input_ids.shape[1] >= 45, dtype=torch.bool)

    events = list(model.stream(PICTURES[0], QUESTION, temperature=0, stopping_criteria=[enough]))
    assert (events[-1].reason, events[-1].prompt_tokens + events[-1].tokens) == ("stop", 45)


def test_close_stops_within_a_token_and_ends_with_done(tiny):
    before = left_as_it_was(tiny)
    reached, go = threading.Event(), threading.Event()
    wait = Processor(5, lambda: (reached.set(), go.wait(20)))
    stream = tiny.stream(PICTURES[0], QUESTION, temperature=0, logits_processor=[wait])
    first = next(stream)
    assert reached.wait(20)
    stream.close()
    go.set()
    events = [first, *stream]
    assert isinstance(events[0], Start)
    assert (events[-1].reason, events[-1].tokens) == ("cancelled", 5)
    assert only(SpanAttribution, events)[-1].end == 5
    assert left_as_it_was(tiny) == before
    stream.close()  # again


def test_close_ends_an_attribution_with_done():
    model = tiny_model("qwen3_vl")
    stream = model.attribute(PICTURES[0], QUESTION, "A bar.\n" * 30)
    stream.close()
    events = list(stream)
    assert isinstance(events[0], Start)
    assert events[-1].reason == "cancelled"


def test_a_finished_generation_keeps_its_reason_when_it_is_closed_afterwards():
    model = tiny_model("qwen3_vl")
    stream = model.stream(PICTURES[0], QUESTION, max_new_tokens=3, temperature=0)
    for thread in stream._threads:
        thread.join(20)
    stream.close()
    assert list(stream)[-1].reason == "length"


def test_leaving_the_context_stops_both_threads_and_leaves_the_model_as_it_was(tiny):
    before = left_as_it_was(tiny)
    with tiny.stream(PICTURES[0], QUESTION, temperature=0) as stream:
        next(stream)
        assert left_as_it_was(tiny)[0] != before[0]
    assert not any(thread.is_alive() for thread in stream._threads)
    assert left_as_it_was(tiny) == before
    assert list(stream)[-1].reason == "cancelled"


def test_a_dropped_stream_stops_its_threads(tiny):
    stream = tiny.stream(PICTURES[0], QUESTION, temperature=0)
    next(stream)
    threads, exchange = stream._threads, stream._exchange
    del stream
    gc.collect()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(exchange.ids) < tiny.context_length - exchange.asked.prompt_tokens


@pytest.fixture
def heeding_ctrl_c():
    """Python's own reaction to Ctrl-C, also where the tests run in the background and the shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_while_waiting_for_an_event_stops_generation_and_done_still_comes(tiny, monkeypatch):
    real, counted = eyeline.stream.Exchange, Counted()
    monkeypatch.setattr(eyeline.stream, "Exchange", lambda *parts: real(*parts, events=counted))

    def interrupt():
        exchange = stream._exchange
        eventually(
            lambda: not exchange.waiting and counted.taken == counted.put_in + 1
        )  # the reader waits for the next
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert exchange.cancelled.wait(20)

    begin = threading.Event()  # `stream` is there
    first = Processor(1, lambda: begin.wait(20))
    stream = tiny.stream(
        PICTURES[0], QUESTION, temperature=0, logits_processor=[first, Processor(6, interrupt)]
    )
    begin.set()
    events = []
    with pytest.raises(KeyboardInterrupt):
        collect(stream, events)
    events += list(stream)
    assert (events[-1].reason, events[-1].tokens) == ("cancelled", 6)
    assert isinstance(events[0], Start)


def test_a_script_may_end_in_the_middle_of_a_stream():
    code = (
        "from conftest import picture, tiny_model\n"
        "stream = tiny_model('qwen3_vl').stream(picture(), 'How many?', temperature=0)\n"
        "next(stream), next(stream)\n"
    )
    tests = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tests, env={"PYTHONPATH": f"{tests}:{tests.parent}", "PATH": ""},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
