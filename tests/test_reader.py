"""The worker's part of a stream by itself: what is read of a span, and what of that an event carries."""

import dataclasses

import pytest
import torch
from conftest import SPREADS, picture, tiny_model
from test_features import trace_of
from test_leak import asked

from eyeline import features, reader
from eyeline.ablation import read_trace
from eyeline.attribution import Attribution, attribute
from eyeline.capture import AttentionCapture
from eyeline.estimator import Estimator
from eyeline.evaluation.evaluate import Settings, evaluate, read_evaluated
from eyeline.evaluation.prediction import estimated
from eyeline.events import SpanAttribution
from eyeline.examples import Example
from eyeline.features import KINDS, Parts, captured_features, own_parts
from eyeline.fingerprint import fingerprint
from eyeline.game import orders
from eyeline.generation import write
from eyeline.leak import fill_regions, leak_map
from eyeline.reader import DECIMALS, Reader, ReadSpan, plain
from eyeline.rereading import read_again
from eyeline.spans import Span
from eyeline.training.collect import WHOLE

SPANS = [Span(0, "thinking", 0, 4, "a bar", False), Span(1, "answer", 4, 7, "3", True)]


def estimator_of(hiding="pixels", kinds=KINDS):
    """Effects of nats, so that joint falls are no sums."""
    weights = 20 * torch.randn(2, 3 * 4 * len(kinds), generator=torch.Generator().manual_seed(1))
    return Estimator("mine", weights, *SPREADS, kinds, card={"hiding": hiding})


def reading(model, estimator, count=2):
    """A reader of a trace that is given, and what it reads of."""
    inputs, regions = asked(model, count)
    with torch.inference_mode(), AttentionCapture(model, inputs, outputs=True) as capture:
        read_trace(model, inputs, trace_of(model))
        return Reader(model, inputs, capture, regions, estimator)


@torch.inference_mode()
def read_of(one, span):
    return one.read(span, trace_of(one.model)[span.start : span.end].tolist())


@pytest.mark.parametrize("kinds", [KINDS, ("odds", "value")])
@pytest.mark.parametrize("hiding", ["pixels", "attention"])
def test_what_is_read_of_a_span_is_the_game_of_its_features_kept_in_half_precision(tiny, hiding, kinds):
    estimator = estimator_of(hiding, kinds)
    one = reading(tiny, estimator)
    one.measure_leak()
    labels, count = one.regions.of_patch, one.regions.count
    parts, ids = own_parts(labels, count), trace_of(tiny)
    if hiding == "pixels":
        fills = fill_regions(tiny, one.inputs, one.regions, hiding)
        without = read_again(tiny, one.inputs, one.regions, fills, one.capture.layers)
        parts = Parts(labels, count, leak_map(fills, one.regions), without)
    for span in SPANS:
        found = read_of(one, span)
        with torch.inference_mode():
            seen = captured_features(tiny, one.capture, ids, [span], parts, kinds)
        game = estimator.game(seen.features, seen.log_odds).rounded()
        expected = attribute(game, estimator, orders(count))
        assert found.said is not None
        assert found.game is not None
        for name in ("effects", "interval", "contributions", "contribution_interval", "whole"):
            torch.testing.assert_close(
                getattr(found.said, name), getattr(expected, name), rtol=1e-4, atol=1e-4
            )
        assert torch.equal(found.shown, found.said.contributions)
        assert torch.equal(found.game.rounded().together, found.game.together), (
            "whoever asks later gets the same"
        )
        by_region = features.pool(found.heat, labels, count)
        torch.testing.assert_close(by_region, found.shown, rtol=1e-4, atol=1e-4)


def test_without_an_estimator_shares_of_attention_are_read_and_nothing_is_said(tiny):
    one = reading(tiny, None)
    one.measure_leak()  # takes nothing: attention is where it is
    found = read_of(one, SPANS[0])
    assert found.said is found.game is None
    assert float(found.shown.sum()) == pytest.approx(1)
    assert found.shown.min() >= 0
    torch.testing.assert_close(features.pool(found.heat, one.labels, one.regions.count), found.shown)
    event = one.event(SPANS[0], found, 0.1)
    assert event.effects == event.shown == plain(found.shown)
    for name in ("interval", "contributions", "contribution_interval", "evidence", "breaks", "whole_image"):
        assert getattr(event, name) is None


@pytest.mark.parametrize(
    ("hiding", "measured"), [("pixels", ["pixels"]), ("blur", ["blur"]), ("tokens", []), ("attention", [])]
)
def test_the_leak_map_is_that_of_the_estimators_way_of_hiding_where_it_hides_what_has_spread(
    hiding, measured, monkeypatch
):
    ways, model = [], tiny_model("qwen3_vl")
    monkeypatch.setattr(reader, "fill_regions", lambda *args: ways.append(args[3]) or fill_regions(*args))
    one = reading(model, estimator_of(hiding))
    assert ways == [], "making a reader takes no pass of the vision tower"
    one.measure_leak()
    assert ways == measured
    reading(model, None).measure_leak()
    assert ways == measured


def test_a_reader_that_is_stopped_gathers_what_lies_in_each_region(tiny):
    stopped, never = (reading(tiny, estimator_of()) for _ in range(2))
    stopped.measure_leak(lambda: True)
    found, expected = read_of(stopped, SPANS[0]), read_of(never, SPANS[0])
    torch.testing.assert_close(found.shown, expected.shown, rtol=1e-4, atol=1e-4)
    never.measure_leak()
    assert not torch.allclose(read_of(never, SPANS[0]).shown, expected.shown, atol=0.01)


def test_an_event_carries_each_number_in_its_own_place_rounded():
    one = reading(tiny_model("qwen3_vl"), None)
    count, patches = one.regions.count, len(one.labels)
    rng = torch.Generator().manual_seed(4)
    effects, parts = torch.randn(2, count, generator=rng)
    ends, other_ends = torch.randn(2, count, 2, generator=rng)
    steps, more_steps = [(3, 1.123456789), (0, 2.0)], [(1, 0.987654321)]
    said = Attribution(effects, ends, parts, other_ends, steps, more_steps, torch.tensor(7.5))
    shown = torch.randn(patches, generator=rng)
    event = one.event(SPANS[1], ReadSpan(said, None, parts, shown, torch.tensor([-1.0, -0.25])), 0.123456789)
    grids = [(len(grid), len(grid[0])) for grid in event.patches]
    assert grids == [tuple(grid.shape) for grid in one.regions.labels]
    flat = [value for grid in event.patches for row in grid for value in row]
    assert flat == pytest.approx(shown.tolist(), abs=10**-DECIMALS)
    expected = SpanAttribution(
        1, "answer", 4, 7, "3", plain(effects), plain(ends), plain(parts), plain(other_ends),
        ((3, round(1.123456789, DECIMALS)), (0, 2.0)), ((1, round(0.987654321, DECIMALS)),), event.patches, 7.5, -1.25,
        True, 0.12346,
    )  # fmt: skip
    assert event == expected
    assert event.shown == plain(parts)


def test_numbers_of_an_event_are_plain_and_rounded_and_those_that_are_not_finite_are_refused():
    assert plain(torch.tensor(0.123456789)) == pytest.approx(0.1234568, abs=1e-12)
    assert plain(torch.tensor([[1.0, 2.0], [3.0, 0.5]])) == ((1.0, 2.0), (3.0, 0.5))
    for value in (float("nan"), float("inf")):
        with pytest.raises(ArithmeticError, match="not finite; load it in a wider dtype"):
            plain(torch.tensor([0.0, value]))


def test_what_an_evaluation_keeps_is_what_events_carry_to_the_last_digit(tiny, tmp_path):
    """From the command's own run on the one side, from a stream on the other; both ask the same reader."""
    example = Example("one", picture(128, 96, seed=2), "How many?", "3", "math", "bars")
    (written,) = write(tiny, tiny.inputs(example.image, example.prompt), 16)
    card = {"model": tiny.name, "fingerprint": fingerprint(tiny), "hiding": "pixels"}
    estimator = dataclasses.replace(estimator_of(), card=card)
    settings = Settings(("mine",), rates=(0.5,), subsets=2, max_new_tokens=16)
    list(evaluate(tiny, [example], {"mine": estimated(estimator)}, tmp_path / "run", settings))
    (kept,) = read_evaluated(tmp_path / "run")
    events = tiny.attribute(example.image, example.prompt, written.ids, estimator=estimator)
    spans = [event for event in events if isinstance(event, SpanAttribution)]
    assert len(spans) == len(kept.spans) > 0
    for number, span in enumerate(spans):
        assert (span.start, span.end) == (kept.spans[number]["start"], kept.spans[number]["end"])
        for field, values in {
            "shown": kept.effects["mine"], "effects": kept.effects["mine, alone"],
            "contribution_interval": kept.intervals["mine"], "interval": kept.intervals["mine, alone"],
        }.items():  # fmt: skip
            assert getattr(span, field) == plain(values[number]), field
        whole = float(kept.predicted["mine, joint"][number, kept.rates == WHOLE])
        assert span.whole_image == pytest.approx(
            whole, rel=1e-6
        )  # in a product of many subsets float32 rounds anew
