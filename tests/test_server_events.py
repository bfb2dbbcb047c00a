"""Events as chunks: whatever a model writes, OpenAI's client reads it back."""

import json

from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from eyeline.events import Done, Error, ImageInfo, SpanAttribution, Start, Text, from_json, to_json
from eyeline.server.chunks import FINISH, Envelope, comment, sse

ENVELOPE = Envelope("run-1", 1, "tiny")
channels = st.sampled_from(["thinking", "answer"])
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**31)
some = st.lists(numbers, min_size=2, max_size=2).map(tuple)
starts = st.tuples(words, words, st.none() | words, st.sampled_from(["nats", "attention"]))
texts = st.tuples(channels, words, counts, counts)
steps = st.none() | st.lists(st.tuples(counts, numbers), max_size=3).map(tuple)
spans = st.tuples(
    counts, channels, counts, counts, words, some, st.none() | st.tuples(some, some),
    st.none() | some, st.none() | st.tuples(some, some), steps, steps,
    st.none() | st.tuples(st.tuples(some)), st.none() | numbers, numbers, st.booleans(), numbers,
)  # fmt: skip
dones = st.tuples(words, counts, counts, numbers, numbers, st.sampled_from(list(FINISH)))
between = st.one_of(
    st.tuples(st.just(Text), texts),
    st.tuples(st.just(SpanAttribution), spans),
    st.tuples(st.just(Error), st.tuples(words)),
)
streams = st.tuples(starts, st.lists(between, max_size=8), dones)


def events_of(stream):
    """Built here, since the checks of their fields draw random numbers, which strategies must not."""
    start, some, done = stream
    info = ImageInfo(4, 2, 1, 2)
    return [Start(*start, (info,), (((0, 1),),)), *(kind(*values) for kind, values in some), Done(*done)]


def data_of(sent: bytes):
    """What a reader of server-sent events makes of it: exactly one event with one line of data."""
    assert sent.endswith(b"\n\n")
    lines = sent[:-2].decode().splitlines()  # splits at U+2028 and the like as well
    assert len(lines) == 1
    assert lines[0].startswith("data: ")
    return json.loads(lines[0].removeprefix("data: "))


@given(streams)
def test_every_event_comes_back_from_its_chunk_and_the_texts_from_the_deltas(stream):
    events = events_of(stream)
    chunks = [data_of(sse(ENVELOPE.event(json.loads(to_json(event))))) for event in events]
    assert [from_json(json.dumps(chunk["eyeline"])) for chunk in chunks] == events
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    deltas = [chunk.choices[0].delta for chunk in parsed]
    for channel, name in (
        ("answer", "content"),
        ("thinking", "reasoning"),
        ("thinking", "reasoning_content"),
    ):
        written = "".join(
            event.text for event in events if isinstance(event, Text) and event.channel == channel
        )
        assert "".join(getattr(delta, name, None) or "" for delta in deltas) == written


@given(streams, st.none() | st.lists(counts, max_size=5))
def test_a_completion_holds_the_same_texts_and_events(stream, ids):
    events = events_of(stream)
    fields = {} if ids is None else {"token_ids": ids}
    found = ENVELOPE.completion([to_json(event) for event in events], **fields)
    parsed = ChatCompletion.model_validate(json.loads(json.dumps(found)), strict=True)
    message = parsed.choices[0].message
    assert message.content == "".join(
        event.text for event in events if isinstance(event, Text) and event.channel == "answer"
    )
    kept = [from_json(json.dumps(event)) for event in message.eyeline]
    assert kept == [event for event in events if not isinstance(event, Text)]
    done = events[-1]
    assert parsed.choices[0].finish_reason == FINISH[done.reason]
    assert parsed.usage.total_tokens == done.prompt_tokens + done.tokens
    assert getattr(parsed.choices[0], "token_ids", None) == ids


@given(dones, st.lists(counts, max_size=5))
def test_the_last_chunks_are_openais(values, ids):
    done = Done(*values)
    last = ChatCompletionChunk.model_validate(data_of(sse(ENVELOPE.last(done, token_ids=ids))), strict=True)
    assert last.choices[0].token_ids == ids
    assert last.choices[0].finish_reason == FINISH[done.reason]
    usage = ChatCompletionChunk.model_validate(data_of(sse(ENVELOPE.usage(done))), strict=True)
    assert usage.choices == []
    assert usage.usage.completion_tokens == done.tokens


def test_a_comment_is_no_event():
    assert comment("waiting") == b": waiting\n\n"
