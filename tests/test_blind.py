"""The text read once more without its images: against ablation, in whatever pieces it comes, and as events carry it."""

import pytest
import torch
from streams import QUESTION, ids_of, only, random_estimator, sampled, threads_set_to
from test_features import PICTURES
from test_stream_numbers import labels_of

from eyeline.ablation import ablate
from eyeline.blind import Blind, is_measured
from eyeline.errors import EstimatorError
from eyeline.evaluation.prediction import estimated
from eyeline.events import Error, SpanAttribution
from eyeline.reader import plain
from eyeline.spans import Span

IDS = [17, 5, 80, 33, 9, 41, 60, 2, 7]


def without_image(model, images, ids):
    """Of each token, how far its log-prob falls and what is left."""
    inputs = model.inputs(images, QUESTION)
    everything = torch.ones(1, sum(map(len, model.image_grids(inputs))), dtype=torch.bool)
    truth = ablate(model, inputs, torch.tensor(ids), everything)
    return truth.falls[0], truth.log_probs - truth.falls[0]


def test_log_probs_are_those_with_everything_hidden_in_whatever_pieces_they_are_asked(tiny):
    _, left = without_image(tiny, PICTURES, IDS)
    for pieces in ([(0, 9)], [(0, 4), (4, 9)], [(0, 5), (2, 7), (0, 9)]):
        blind = Blind(tiny, tiny.inputs(PICTURES, QUESTION), "pixels")
        for start, end in pieces:
            found = blind.log_probs(start, IDS[start:end])
            assert found.tolist() == pytest.approx(left[start:end].tolist(), abs=2e-4)


def test_behind_tokens_that_never_came_nothing_is_said(tiny):
    blind = Blind(tiny, tiny.inputs(PICTURES, QUESTION), "pixels")
    assert blind.log_probs(2, IDS[2:4]) is None
    assert blind.log_probs(0, IDS[:2]) is not None
    assert blind.log_probs(3, IDS[3:4]) is None
    assert blind.log_probs(2, IDS[2:4]) is not None


def test_an_event_carries_what_hiding_everything_does(tiny):
    estimator = random_estimator(tiny)
    with threads_set_to(1):
        stream = tiny.stream(
            PICTURES, QUESTION, **sampled(tiny, tokens=40), estimator=estimator, measure_whole=True
        )
        spans = only(SpanAttribution, found := list(stream))
        assert not only(Error, found)
        predicted = only(
            SpanAttribution,
            list(tiny.attribute(PICTURES, QUESTION, ids_of(stream), estimator=estimator)),
        )
    falls, _ = without_image(tiny, PICTURES, ids_of(stream))
    assert [notice.kind for notice in found[0].notices] == ["whole"]
    assert is_measured(found[0])
    assert len(spans) > 3
    for span, guessed in zip(spans, predicted, strict=True):
        measured = float(falls[span.start : span.end].sum())
        assert span.whole_image == pytest.approx(measured, abs=5e-3)
        assert sum(span.contributions) == pytest.approx(span.whole_image, abs=1e-3)
        assert abs(guessed.whole_image - measured) > 1e-2
        assert stream.joint(span.index).whole_image == pytest.approx(span.whole_image, abs=1e-4)


def test_evaluation_scores_what_such_an_event_carries_to_the_last_digit(tiny):
    estimator, ids = random_estimator(tiny), torch.tensor(IDS)
    with threads_set_to(1):
        start, *events = tiny.attribute(PICTURES, QUESTION, IDS, estimator=estimator, measure_whole=True)
        spans = [
            Span(event.index, event.channel, event.start, event.end, event.text, event.cut)
            for event in only(SpanAttribution, events)
        ]
        scored = estimated(estimator, measure_whole=True)(
            tiny, tiny.inputs(PICTURES, QUESTION), ids, spans, labels_of(start)
        )
    assert spans
    for at, event in enumerate(only(SpanAttribution, events)):
        assert event.shown == plain(scored.shown[at])
        assert event.whole_image == plain(scored.games[at].whole())


@pytest.mark.parametrize("estimator", ["attention", None])
def test_where_sizes_are_not_calibrated_it_is_refused(tiny, estimator):
    with pytest.raises(EstimatorError, match=r"sizes are not calibrated here.*leave measure_whole out"):
        tiny.stream(PICTURES, QUESTION, estimator=estimator, measure_whole=True)


def test_an_estimator_of_attention_knockout_is_refused(tiny):
    knockout = random_estimator(tiny, hiding="attention")
    with pytest.raises(EstimatorError, match="only filled images can be read once more"):
        tiny.attribute(PICTURES, QUESTION, IDS, estimator=knockout, measure_whole=True)
