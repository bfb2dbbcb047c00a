"""Earlier text as a source of a span: its features by their slow definition, and what is made of them."""

import dataclasses

import pytest
import torch
from conftest import picture
from streams import only, random_estimator
from test_features import PICTURES, QUESTION, slow_features, trace_of

from eyeline.ablation import read_trace
from eyeline.capture import AttentionCapture
from eyeline.earlier import KINDS, EarlierText
from eyeline.events import Done, SpanAttribution
from eyeline.game import fall
from eyeline.links import Links, sources_game, strongest
from eyeline.stream import attribute, stream


def reading(model, trace_ids):
    inputs = model.inputs(list(PICTURES), QUESTION)
    with torch.inference_mode(), AttentionCapture(model, inputs) as capture:
        read_trace(model, inputs, trace_ids)
    return EarlierText(model, capture), capture


@torch.inference_mode()
def test_features_of_earlier_tokens_equal_their_slow_definition(tiny):
    trace_ids = trace_of(tiny)
    with torch.inference_mode(False):
        slow, _ = slow_features(tiny.adapter.family, PICTURES, QUESTION, trace_ids, of_text=True)
    means = [each.mean((0, 1)) for each in (slow[0], slow[1], slow[0] * slow[1])]  # (token, earlier)
    text, capture = reading(tiny, trace_ids)
    for start, end in ((0, 1), (1, 3), (3, 7)):  # norms of values are kept from one to the next
        found = text.features(capture.take(start, end))
        assert found.shape == (end - start, end - 1, len(KINDS))
        for token in range(max(start, 1), end):
            looks, written, seen = (mean[token, : end - 1] for mean in means)
            shares = [looks, written / written.sum() * looks.sum(), seen / written.sum() * looks.sum()]
            expected = torch.stack(shares, dim=-1)
            torch.testing.assert_close(found[token - start], expected, rtol=2e-3, atol=2e-5)
            if token > 3:
                assert expected.amax(0).min() > 1e-4


@torch.inference_mode()
def test_a_few_layers_at_a_time_give_the_same(tiny, monkeypatch):
    trace_ids = trace_of(tiny)
    text, capture = reading(tiny, trace_ids)
    at_once = text.features(capture.take(2, 7))
    monkeypatch.setattr("eyeline.attention.WEIGHTS_AT_ONCE", 1)
    torch.testing.assert_close(reading(tiny, trace_ids)[0].features(capture.take(2, 7)), at_once)


def test_the_strongest_links_are_the_largest_scores_and_always_as_many():
    scores = torch.tensor([[0.5, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 3.0]])
    found = strongest(scores, count=2)
    assert found.earlier.tolist() == [[2, 0], [3, 0]]
    assert found.scores.tolist() == [[2.0, 0.5], [3.0, 0.0]]
    assert strongest(scores[:, :0], count=2).scores.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_game_of_sources_hides_all_tokens_of_a_stretch_together():
    links = Links(torch.tensor([[0, 1, 4], [4, 5, 0]]), torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.25, 0.0]]))
    odds = torch.tensor([1.5, -0.5])
    game = sources_game(links, [(0, 2), (2, 4), (4, 6)], odds)
    assert game.apart.tolist() == [[3.0, 0.0, 0.5], [0.0, 0.0, 3.25]]
    both = game(torch.tensor([[1.0], [0.0], [1.0]]))
    assert float(both) == pytest.approx(float(fall(torch.tensor([3.5, 3.25]), odds).sum()))


def knowing(model, **card):
    """An estimator that knows earlier text and what answers rest on."""
    text = torch.rand(2, len(KINDS), generator=torch.Generator().manual_seed(3)) * 4
    chances = {"bias": 0.3, "reached": 1.2, "share": 0.8, "cost": 7.0}
    return dataclasses.replace(random_estimator(model, chances=chances, **card), text=text)


def test_a_stream_and_the_reading_of_its_text_say_the_same_of_sources_and_of_the_answer(tiny):
    estimator = knowing(tiny)
    text = "one bar.\nIt is red.\nAnd two more.\n</think>Two.\nTwo bars."
    ids = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]

    class Force:
        """Lets only the next id of the text be written."""

        def __call__(self, input_ids, scores):
            at = input_ids.shape[1] - length
            only_id = ids[at] if at < len(ids) else tiny.tokenizer.eos_token_id
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([only_id]), 0.0)

    length = tiny.inputs(picture(), "What?")["input_ids"].shape[1]
    with stream(
        tiny, picture(), "What?", estimator=estimator, temperature=0, max_new_tokens=len(ids),
        logits_processor=[Force()],
    ) as live:  # fmt: skip
        first = list(live)
        assert live.ids == ids
        kept = live.rests_on([[0], [0, 1]])
    with attribute(tiny, picture(), "What?", ids, estimator=estimator) as read:
        second = list(read)
    ours, theirs = only(SpanAttribution, first), only(SpanAttribution, second)
    assert [span.channel for span in ours][-1] == "answer"
    assert ours[0].sources == ()
    assert any(span.sources for span in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert [place for place, _ in one.sources] == [place for place, _ in other.sources]
        assert [nats for _, nats in one.sources] == pytest.approx(
            [nats for _, nats in other.sources], abs=2e-3
        )
        assert all(place < one.index for place, _ in one.sources)
    rests, again = only(Done, first)[0].rests_on, only(Done, second)[0].rests_on
    assert rests is not None
    assert again is not None
    assert rests.changes == pytest.approx(again.changes, abs=2e-3)
    assert rests.direct == pytest.approx(again.direct, abs=2e-3)
    assert kept.changes[0] == pytest.approx(rests.changes[0], abs=1e-6)
    assert kept.changes[1] >= kept.changes[0] - 1e-6


def test_without_sources_nothing_is_said_of_earlier_text(tiny):
    ids = tiny.tokenizer("one.\ntwo.\n", add_special_tokens=False)["input_ids"]
    for options in ({"estimator": knowing(tiny), "sources": False}, {"estimator": random_estimator(tiny)}):
        with attribute(tiny, picture(), "What?", ids, **options) as read:
            events = list(read)
        assert all(span.sources is None for span in only(SpanAttribution, events))
        assert only(Done, events)[0].rests_on is None
