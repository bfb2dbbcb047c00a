"""A trace that is pushed in pieces gives the events of the stream that wrote it."""

import threading

import pytest
from conftest import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from streams import QUESTION, assert_same_spans, ids_of, only, random_estimator, sampled, without_times
from test_features import PICTURES

from eyeline.agreement import ENOUGH, FAR, Comparison
from eyeline.elsewhere import MOST_UNREAD
from eyeline.errors import ImageError, PromptError
from eyeline.events import Done, Error, Notice, SpanAttribution, Start, Text, from_json, to_json


def pushed(following, ids, sizes, reason="length", log_probs=None):
    """All events, of ids that come in pieces of these sizes, over and over."""
    with following:
        at, turn = 0, 0
        while at < len(ids):
            end = at + sizes[turn % len(sizes)]
            following.push(ids[at:end], log_probs and log_probs[at:end])
            at, turn = end, turn + 1
        following.finish(reason)
        return list(following)


@pytest.fixture(scope="module")
def written():
    """A stream that has ended, and its events."""
    model = tiny_model("qwen3_vl")
    stream = model.stream(list(PICTURES), QUESTION, **sampled(model), top_logprobs=0)
    return stream, list(stream)


def test_pushing_the_ids_of_a_stream_gives_its_events(tiny):
    estimator = random_estimator(tiny)
    stream = tiny.stream(list(PICTURES), QUESTION, **sampled(tiny), estimator=estimator)
    streamed = list(stream)
    following = tiny.follow(list(PICTURES), QUESTION, estimator=estimator)
    followed = pushed(following, ids_of(stream), [1, 7, 2])
    (our_spans, our_rest), (their_spans, their_rest) = without_times(streamed), without_times(followed)
    assert our_rest == their_rest
    assert len(our_spans) > 4
    assert_same_spans(our_spans, their_spans, tolerance=2e-3)


@given(sizes=st.lists(st.integers(1, 2 * MOST_UNREAD), min_size=1, max_size=6))
def test_the_sizes_of_the_pieces_do_not_matter(written, sizes):
    stream, events = written
    followed = pushed(tiny_model("qwen3_vl").follow(list(PICTURES), QUESTION), ids_of(stream), sizes)
    (our_spans, our_rest), (their_spans, their_rest) = without_times(events), without_times(followed)
    assert our_rest == their_rest
    assert_same_spans(our_spans, their_spans)


def test_texts_and_the_spans_before_the_last_come_while_the_trace_is_written(written):
    stream, events = written
    following = tiny_model("qwen3_vl").follow(list(PICTURES), QUESTION)
    ids = ids_of(stream)
    expected = [event for event in events if isinstance(event, SpanAttribution)][:-2]
    with following:
        following.push(ids)  # and no end
        spans = []
        while len(spans) < len(expected):
            event = next(following)
            assert not isinstance(event, Done | Error)
            spans += [event] if isinstance(event, SpanAttribution) else []
    assert_same_spans(spans, expected)
    assert list(following)[-1].reason == "cancelled"


def test_the_servers_prompt_is_read_in_place_of_ours_and_said_to_be_another():
    model = tiny_model("qwen3_vl")
    theirs = model.inputs(PICTURES[0], "Which of them?")["input_ids"][0].tolist()
    stream = model.stream(PICTURES[0], "Which of them?", max_new_tokens=20, temperature=0)
    streamed = list(stream)
    same = pushed(model.follow(PICTURES[0], QUESTION, prompt_ids=theirs), ids_of(stream), [4])
    assert_same_spans(only(SpanAttribution, same), only(SpanAttribution, streamed))
    notice, general = same[0].notices
    assert (notice.kind, general.kind) == ("prompt", "general")
    assert f"{len(theirs)} tokens" in notice.message
    given = (Notice("ids", "They are the server's."),)
    ours = model.follow(PICTURES[0], "Which of them?", prompt_ids=theirs, notices=given)
    assert pushed(ours, ids_of(stream), [4])[0].notices == (*given, general)


def test_images_of_another_size_are_refused_with_both_sizes():
    model = tiny_model("qwen3_vl")
    larger = model.inputs(PICTURES[0].resize((128, 64)), QUESTION)["input_ids"][0].tolist()
    with pytest.raises(ImageError, match="as 8 visual tokens, our copy as 6"):
        model.follow(PICTURES[0], QUESTION, prompt_ids=larger)
    none = model.tokenizer(QUESTION)["input_ids"]
    with pytest.raises(ImageError, match="as none visual tokens"):
        model.follow(PICTURES[0], QUESTION, prompt_ids=none)


def test_log_probs_that_are_ours_agree_and_others_raise_an_alarm(written):
    stream, _ = written
    model, ids = tiny_model("qwen3_vl"), ids_of(stream)
    log_probs = [each.log_prob for each in stream.likely]
    same = pushed(model.follow(list(PICTURES), QUESTION), ids, [5], log_probs=log_probs)
    assert same[-1].agreement.tokens == len(ids) > ENOUGH
    assert same[-1].agreement.worst == pytest.approx(0, abs=1e-4)
    assert not only(Error, same)
    log_probs[3] = None
    off = [each and each - 2 * FAR for each in log_probs]
    other = pushed(model.follow(list(PICTURES), QUESTION), ids, [5], log_probs=off)
    assert other[-1].agreement.tokens == len(ids) - 1
    assert other[-1].agreement.mean == pytest.approx(2 * FAR, abs=1e-3)
    (alarm,) = only(Error, other)
    assert "other weights" in alarm.message
    assert from_json(to_json(other[-1])) == other[-1]


def test_without_log_probs_nothing_is_compared():
    assert Comparison().result is None
    model = tiny_model("qwen3_vl")
    events = pushed(model.follow(PICTURES[0], QUESTION), [5, 6, 7], [1])
    assert events[-1].agreement is None


def test_an_end_with_a_message_is_an_error_and_keeps_what_came_before():
    model = tiny_model("qwen3_vl")
    ids = model.tokenizer("A bar. Two bars.", add_special_tokens=False)["input_ids"]
    with model.follow(PICTURES[0], QUESTION) as following:
        following.push(ids)
        following.finish("error", "The server went away.")
        events = list(following)
    assert only(Error, events) == [Error("The server went away.")]
    assert (events[-1].reason, events[-1].tokens) == ("error", len(ids))
    spans = only(SpanAttribution, events)
    assert (spans[0].start, spans[-1].end) == (0, len(ids))
    assert "".join(text.text for text in only(Text, events)) == "A bar. Two bars."


def test_what_cannot_be_followed_is_refused_when_it_is_pushed(tiny):
    entries = tiny.hf.get_input_embeddings().num_embeddings
    with tiny.follow(PICTURES[0], QUESTION) as following:
        with pytest.raises(PromptError, match=f"expected 0 to {entries - 1}"):
            following.push([entries])
        with pytest.raises(PromptError, match="2 log-probs for 1 ids"):
            following.push([1], [0.0, 0.0])
        with pytest.raises(PromptError, match="context leaves"):
            following.push([1] * tiny.context_length)
        following.finish("length")
        with pytest.raises(PromptError, match="ended already"):
            following.push([1])
    with pytest.raises(ImageError, match="no image"):
        tiny.follow([], [{"role": "user", "content": "Hello"}])


def test_closing_ends_a_trace_that_nobody_ends_and_leaves_the_model_as_it_was(written):
    model = tiny_model("qwen3_vl")
    before = threading.active_count()
    with model.follow(PICTURES[0], QUESTION) as following:
        following.push([5, 6])
        assert isinstance(next(following), Start)
    assert threading.active_count() == before
    assert list(following)[-1].reason == "cancelled"
    again = model.stream(list(PICTURES), QUESTION, **sampled(model))
    list(again)
    assert ids_of(again) == ids_of(written[0])


def test_several_traces_are_followed_at_once(written):
    stream, events = written
    model, found = tiny_model("qwen3_vl"), []

    def one():
        found.append(pushed(model.follow(list(PICTURES), QUESTION), ids_of(stream), [3]))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 4
    for each in found:
        assert_same_spans(only(SpanAttribution, each), only(SpanAttribution, events))
