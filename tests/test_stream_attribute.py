"""`attribute` gives for a text that is there already what a stream gives that writes it."""

from conftest import tiny_model
from streams import QUESTION, assert_same_spans, ids_of, only, random_estimator, sampled, without_times
from test_features import PICTURES

from eyeline.events import Error, SpanAttribution


def test_attributing_the_ids_of_a_stream_gives_its_events(tiny):
    estimator = random_estimator(tiny)
    stream = tiny.stream(list(PICTURES), QUESTION, **sampled(tiny), estimator=estimator)
    streamed = list(stream)
    attributed = list(tiny.attribute(list(PICTURES), QUESTION, ids_of(stream), estimator=estimator))
    (our_spans, our_rest), (their_spans, their_rest) = without_times(streamed), without_times(attributed)
    assert our_rest == their_rest
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
    assert by_text[-1].reason == "length"
    ended = list(model.attribute(PICTURES[0], QUESTION, text + model.tokenizer.eos_token))
    assert ended[-1].reason == "eos"
