"""A stream captures the layers that its estimator reads, and no others."""

import dataclasses

import pytest
from conftest import picture, tiny_model
from streams import (
    QUESTION,
    assert_same_spans,
    flat,
    ids_of,
    of_some_layers,
    only,
    random_estimator,
    sampled,
    without_times,
)
from test_features import PICTURES

import eyeline.producer
from eyeline.estimator import Estimator
from eyeline.events import Error, SpanAttribution


@pytest.fixture
def captured(monkeypatch):
    """The layers that streams have captured since, all as None."""
    seen, real = [], eyeline.producer.AttentionCapture

    def capture(*args, layers, **options):
        seen.append(layers)
        return real(*args, layers=layers, **options)

    monkeypatch.setattr(eyeline.producer, "AttentionCapture", capture)
    return seen


@pytest.mark.parametrize("layers", [[1], [0, 2]])
@pytest.mark.parametrize("link", ["log-odds", "identity"])
def test_layers_without_a_weight_are_not_captured_and_attributions_stay_the_same(
    tiny, layers, link, captured, monkeypatch
):
    whole = random_estimator(tiny, link=link)
    estimators = [of_some_layers(whole, layers)]
    if whole.network is not None:  # one that keeps a unit of what its network does not read
        unit = {"unit": whole.network.unit}
        network = dataclasses.replace(estimators[0].network, **unit)
        estimators.append(dataclasses.replace(estimators[0], network=network))
    image, options = picture(256, 160, seed=4), sampled(tiny, tokens=30)  # regions of several cells
    for estimator in estimators:
        stream = tiny.stream(image, QUESTION, **options, estimator=estimator)
        streamed = list(stream)
        attributed = list(tiny.attribute(image, QUESTION, ids_of(stream), estimator=estimator))
        assert captured[-2:] == [layers, layers]
        with monkeypatch.context() as patch:
            patch.setattr(Estimator, "layers", lambda self, count: list(range(count)))
            expected = list(tiny.stream(image, QUESTION, **options, estimator=estimator))
        assert captured[-1] == [0, 1, 2]
        assert not only(Error, streamed + attributed + expected)
        spans = only(SpanAttribution, expected)
        assert len(spans) > 2
        assert all(max(span.effects) - min(span.effects) > 1e-2 for span in spans)
        assert without_times(streamed)[1] == without_times(expected)[1]
        assert_same_spans(only(SpanAttribution, streamed), spans)
        assert_same_spans(
            only(SpanAttribution, attributed), spans, tolerance=2e-3
        )  # half precision may round apart


def test_all_layers_are_captured_for_attention_and_for_an_estimator_of_all(captured):
    model = tiny_model("qwen3_vl")
    for estimator in ("attention", None, random_estimator(model)):
        list(model.stream(PICTURES[0], QUESTION, max_new_tokens=3, estimator=estimator))
    assert captured == [None, [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("link", ["log-odds", "identity"])
def test_an_estimator_without_any_weight_predicts_no_effect(tiny, link, captured):
    estimator = of_some_layers(random_estimator(tiny, link=link), [])
    events = list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny), estimator=estimator))
    assert captured == [[0]]
    assert not only(Error, events)
    spans = only(SpanAttribution, events)
    assert len(spans) > 2
    assert all(flat(span.effects) == pytest.approx([0.0] * len(span.effects), abs=1e-5) for span in spans)
