"""The numbers of a span's event are those of their slow definition and of everybody else who asks."""

import math

import numpy as np
import pytest
import torch
from conftest import picture
from streams import NUMBERS, QUESTION, flat, ids_of, only, random_estimator, sampled, threads_set_to
from test_features import PICTURES, slow_features
from test_leak import mapped
from test_rereading import slow_change

from eyeline.errors import DataError, RegionError
from eyeline.estimator_files import general_estimator
from eyeline.evaluation.prediction import estimated
from eyeline.events import Error, SpanAttribution, Start
from eyeline.features import KINDS
from eyeline.game import ENOUGH, NOTHING, Game, orders
from eyeline.head_set import as_set, is_set, of_heads
from eyeline.reader import plain
from eyeline.regions import Regions
from eyeline.spans import Span


def lowered(log_prob, scores, link):
    """The falls of a log-prob whose odds fall by factors e^score."""
    if link == "identity":
        return scores
    odds = math.exp(log_prob) / (1 - math.exp(log_prob)) * (-scores).exp()
    return log_prob - (odds / (1 + odds)).log()


def silu(values):
    return values / (1 + (-values).exp())


def score_of(estimator, features, log_prob):
    """What a set of hidden regions (subset, region) takes off one token's log-odds, by its features (feature, region)."""
    sure = 1 / (1 + math.exp((5 - log_prob + math.log(1 - math.exp(log_prob))) / 1.5))

    def mixed(pair):
        return (1 - sure) * pair[0].double() + sure * pair[1].double()

    if estimator.link == "identity":
        return lambda hidden: hidden @ (estimator.weights[0].double() @ features)
    network, linear = estimator.network, mixed(estimator.weights) @ features
    if network is None:
        return lambda hidden: hidden @ linear

    def logged(values):
        return values.sign() * (1 + values.abs()).log()

    unit = network.unit.double()
    own = network.inward.double() @ logged(features * unit[:, None])  # (unit, region)
    rest = network.context.double() @ logged(features.sum(1) * unit) + mixed(network.bias)
    outward, apart = mixed(network.outward), (len(rest) + 1) // 2

    def score(hidden):
        found = hidden @ linear
        for unit in range(
            len(rest)
        ):  # the first half sees regions one by one, the others all that is hidden as one
            if unit < apart:
                added = hidden @ (silu(own[unit] + rest[unit]) - silu(rest[unit]))
            else:
                added = silu(hidden @ own[unit] + rest[unit]) - silu(rest[unit])
            found = found + outward[unit] * added
        return found

    return score


def weights_of(estimator, log_odds, features):
    """Of the features of each head, by which visual tokens are summed: of heads as a set `change` alone, all heads alike."""
    if is_set(estimator.kinds):
        return (torch.arange(features) // (features // len(KINDS)) == KINDS.index("change")).double()
    return estimator.of_tokens(torch.tensor([log_odds]))[0].double()


def interval_of(values, spread):
    """Ends of an interval, linear between the knots of a spread and level beyond."""
    ends = [np.interp(values, spread[:, 0], spread[:, column]) for column in (1, 2)]
    return [(value + low, value + high) for value, low, high in zip(values, *ends, strict=True)]


def greedily(value, regions, showing):
    """Region after region, each the one with which most is lost, or kept where they are shown, and what is then."""
    chosen, everything = [], set(range(regions))
    while len(chosen) < regions:
        left = sorted(everything - set(chosen))
        sets = [{*chosen, region} for region in left]
        if showing:
            whole, *hidden = value([everything, *(everything - some for some in sets)])
            after = [whole - each for each in hidden]
        else:
            after = value(sets)
        best = max(range(len(left)), key=after.__getitem__)
        chosen.append(left[best])
        yield left[best], after[best]


def expected_spans(model, images, ids, estimator, spans, grids, shares):
    """The numbers of spans from the slow definition; `shares` (region, patch) is the part of each region in each visual token."""
    labels = grids.of_patch.tolist()
    slow, log_probs = slow_features(model.adapter.family, images, QUESTION, torch.tensor(ids))
    regions = max(labels) + 1
    if estimator is not None:
        change = slow_change(
            model, model.inputs(images, QUESTION), torch.tensor(ids), grids, estimator.hiding
        )
        of_cells = dict(zip(KINDS, [*slow[:3], change[1]], strict=True))
        of_regions = dict(zip(KINDS, [*(slow[:3] @ shares.T), change[0]], strict=True))
    for span in spans:
        columns = slow[:, :, :, span.start : span.end]  # (kind, layer, head, token, patch)
        found = {"log_prob": float(log_probs[span.start : span.end].sum())}
        if estimator is None:
            heat = columns[0].sum((0, 1, 2))
            heat = heat / heat.sum()
            found["effects"] = [
                sum(float(heat[patch]) for patch, label in enumerate(labels) if label == region)
                for region in range(regions)
            ]
            yield found | {"patches": heat.tolist()}
            continue
        tokens = slice(span.start, span.end)
        chosen, of_each = (
            torch.cat([of[kind][:, :, tokens].flatten(0, 1) for kind in of_heads(estimator.kinds)]).double()
            for of in (of_cells, of_regions)
        )  # (feature, token, patch or region)
        if is_set(estimator.kinds):
            of_each = as_set(of_each.permute(1, 2, 0)).permute(2, 0, 1)
        written = log_probs[span.start : span.end].tolist()
        scores = [score_of(estimator, of_each[:, token], log_prob) for token, log_prob in enumerate(written)]

        def falls(sets, scores=scores, written=written):
            hidden = torch.tensor([[float(region in some) for region in range(regions)] for some in sets])
            return torch.stack([
                lowered(log_prob, score(hidden.double()), estimator.link)
                for score, log_prob in zip(scores, written, strict=True)
            ])  # fmt: skip

        def value(sets, falls=falls):
            return falls(sets).sum(0).tolist()

        everything = set(range(regions))
        effects, (whole,) = value([{region} for region in range(regions)]), value([everything])
        contributions, ways = [0.0] * regions, [*orders(regions).tolist(), *orders(regions).flip(1).tolist()]
        for order in ways:
            after = value([set(order[:place]) for place in range(regions + 1)])
            for place, region in enumerate(order):
                contributions[region] += (after[place + 1] - after[place]) / len(ways)
        heat = torch.zeros(len(labels))
        for token, (log_prob, fall) in enumerate(
            zip(written, falls([everything])[:, 0].tolist(), strict=True)
        ):
            odds = log_prob - math.log(1 - math.exp(log_prob))
            weights = weights_of(estimator, odds, len(chosen))
            heat += max(fall, 0.0) * (weights @ chosen[:, token]).float()
        cells = heat.clamp(min=0).tolist()
        patches = []
        for cell, label in zip(cells, labels, strict=True):
            own = [other for other, of in zip(cells, labels, strict=True) if of == label]
            patches.append(contributions[label] * (cell / sum(own) if sum(own) > 0 else 1 / len(own)))
        shown = list(greedily(value, regions, showing=True)) if whole >= NOTHING else []
        enough = next((n for n, (_, kept) in enumerate(shown, start=1) if kept >= ENOUGH * whole), len(shown))
        if estimator.has_intervals:
            found["interval"] = interval_of(effects, estimator.effect_spread)
            found["contribution_interval"] = interval_of(contributions, estimator.contribution_spread)
        yield found | {
            "effects": effects,
            "contributions": contributions,
            "evidence": shown[:enough],
            "breaks": list(greedily(value, regions, showing=False))[:5] if whole >= NOTHING else [],
            "patches": patches,
            "whole_image": whole,
        }


def numbers(values):
    """All numbers in a value, one after the other."""
    if isinstance(values, list | tuple):
        return [number for value in values for number in numbers(value)]
    return [values]


def labels_of(start):
    return Regions(tuple(map(torch.tensor, start.regions)), 1 + max(flat(start.regions)))


@pytest.mark.parametrize(
    ("kinds", "link", "hiding"),
    [
        (None, None, None),
        (("attention",), "identity", "attention"),
        (KINDS, "log-odds", "attention"),
        (("change", "odds", "value"), "log-odds", "pixels"),
        ("general", "log-odds", "pixels"),
    ],
    ids=str,
)
@pytest.mark.parametrize("teacher_forced", [False, True], ids=["stream", "attribute"])
def test_attributions_equal_their_slow_definition(tiny, kinds, link, hiding, teacher_forced, monkeypatch):
    if kinds is None:
        given, estimator, told = "attention", None, ("attention", None, None, "none")
    elif kinds == "general":  # what a model without one of its own gets
        given, estimator, told = None, general_estimator(), ("relative", "general", hiding, "none")
    else:
        given = estimator = random_estimator(tiny, kinds, link, hiding=hiding)
        told = ("nats", "random", hiding, "fitted")
    monkeypatch.setattr(Game, "rounded", lambda game: game)  # to half precision, as games are kept
    images = [picture(128, 96, seed=2), PICTURES[1]]
    options = sampled(tiny, seed=4, tokens=24)
    stream = tiny.stream(images, QUESTION, **options, estimator=given)
    events = list(stream)
    ids = ids_of(stream)
    if teacher_forced:
        events = list(tiny.attribute(images, QUESTION, ids, estimator=given))
    start, spans = events[0], only(SpanAttribution, events)
    assert isinstance(start, Start)
    assert not only(Error, events)
    assert (start.unit, start.estimator, start.hiding, start.level) == told
    labels = flat(start.regions)
    assert len(set(labels)) == max(labels) + 1 > 6
    assert len(spans) > 2
    shares = torch.nn.functional.one_hot(torch.tensor(labels)).T.float()
    if hiding == "pixels":
        own, shares = shares, mapped(tiny, tiny.inputs(images, QUESTION), labels_of(start))
        assert (shares - own).abs().max() > 0.05
    slow = expected_spans(tiny, images, ids, estimator, spans, labels_of(start), shares)
    for span, expected in zip(spans, slow, strict=True):
        for name in NUMBERS:
            if name in expected:
                found = numbers(getattr(span, name))
                assert found == pytest.approx(numbers(expected[name]), rel=5e-3, abs=5e-4), name
            else:
                assert getattr(span, name) is None
        assert max(span.effects) - min(span.effects) > 1e-3


def test_an_event_carries_what_evaluation_scores_to_the_last_digit(tiny):
    images, estimator = [picture(128, 96, seed=2), PICTURES[1]], random_estimator(tiny)
    with threads_set_to(1):  # as many as the worker has: sums come in the same order
        stream = tiny.stream(images, QUESTION, **sampled(tiny, tokens=40), estimator=estimator)
        list(stream)
        start, *events = tiny.attribute(images, QUESTION, ids_of(stream), estimator=estimator)
        spans = [
            Span(event.index, event.channel, event.start, event.end, event.text, event.cut)
            for event in only(SpanAttribution, events)
        ]
        inputs, ids = tiny.inputs(images, QUESTION), torch.tensor(ids_of(stream))
        scored = estimated(estimator)(tiny, inputs, ids, spans, labels_of(start))
        everything = scored.together(torch.ones(1, len(scored.shown[0]), dtype=torch.bool))[:, 0]
    assert len(spans) > 3
    for at, event in enumerate(only(SpanAttribution, events)):
        assert event.shown == plain(scored.shown[at])
        assert event.contribution_interval == plain(scored.shown_intervals[at])
        assert event.effects == plain(scored.effects[at])
        assert event.interval == plain(scored.intervals[at])
        assert event.whole_image == plain(everything[at])


def test_whoever_asks_a_stream_about_a_span_gets_the_numbers_of_its_event(tiny):
    stream = tiny.stream(PICTURES[0], QUESTION, **sampled(tiny), estimator=random_estimator(tiny))
    spans = only(SpanAttribution, list(stream))
    assert len(spans) > 3
    for span in spans:
        regions = [region for region, _ in span.breaks[:2]] or [0, 1]
        found = stream.joint(span.index, regions)
        if span.breaks:
            assert found.fall == pytest.approx(span.breaks[1][1], rel=1e-4, abs=1e-5)
        assert found.whole_image == pytest.approx(span.whole_image, rel=1e-4, abs=1e-5)
        assert found.contributions == pytest.approx(span.contributions, rel=1e-3, abs=1e-4)
        assert found.parts == pytest.approx(sum(span.effects[region] for region in regions), abs=1e-4)
    with pytest.raises(RegionError, match="There is no region 99"):
        stream.joint(0, [99])
    with pytest.raises(DataError, match="There is no span 99"):
        stream.joint(99)


def test_patches_sum_to_the_shown_number_of_each_region_and_shares_to_one(tiny):
    image = picture(256, 160, seed=4)  # more than 32 visual tokens in some family: regions of several cells
    for estimator in ("attention", None, random_estimator(tiny)):
        events = list(tiny.stream(image, QUESTION, **sampled(tiny), estimator=estimator))
        labels, spans = flat(events[0].regions), only(SpanAttribution, events)
        assert len(spans) > 2
        for span in spans:
            sums = [0.0] * len(span.effects)
            for label, value in zip(labels, flat(span.patches), strict=True):
                sums[label] += value
            assert sums == pytest.approx(list(span.shown), abs=1e-5)
            if estimator == "attention":
                assert min(span.effects) >= 0
                assert sum(span.effects) == pytest.approx(1, abs=1e-5)
