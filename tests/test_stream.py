import contextlib
import dataclasses
import gc
import math
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import FAMILIES, SPREADS, build_tiny, picture, tiny_model
from server_process import eventually
from test_features import PICTURES, slow_features
from test_leak import mapped
from test_rereading import slow_change

import eyeline.exchange
import eyeline.features
import eyeline.producer
import eyeline.reader
import eyeline.stream
import eyeline.worker
from eyeline.errors import DataError, EstimatorError, EyelineError, ImageError, PromptError, RegionError
from eyeline.estimator import SETS, Estimator, Network, fingerprint
from eyeline.evaluation.prediction import estimated
from eyeline.events import Done, Error, SpanAttribution, Start, Text, from_json, to_json
from eyeline.features import KINDS
from eyeline.game import ENOUGH, Game, orders
from eyeline.reader import Reader, plain
from eyeline.regions import Regions
from eyeline.spans import Span

QUESTION = "How many?"
TOKENS = 60
SAMPLING = {"temperature": 1.3, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.2}


def lines(model, bias=8.0):
    """An option of `generate` that makes line breaks likely, so that a trace has many spans."""
    return {"sequence_bias": [[model.tokenizer("\n", add_special_tokens=False)["input_ids"], bias]]}


def sampled(model, seed=3, tokens=TOKENS):
    return {"max_new_tokens": tokens, "seed": seed, **SAMPLING, **lines(model)}


def generated(model, images, *, seed=None, stop=None, temperature=None, **options):
    """What `generate` writes, by the contract's definition."""
    inputs = model.inputs(images, QUESTION)
    if temperature is not None:
        options |= {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    if stop is not None:
        options |= {"stop_strings": stop, "tokenizer": model.tokenizer}
    if seed is not None:
        torch.manual_seed(seed)
    return model.hf.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :].tolist()


def ids_of(stream):
    return stream._exchange.ids


def only(kind, events):
    return [event for event in events if isinstance(event, kind)]


def collect(stream, events):
    for event in stream:
        events.append(event)


def without_times(events):
    """Spans and the rest apart: how they interleave depends on the time."""
    zero = {SpanAttribution: {"latency_s": 0.0}, Done: {"tokens_per_s": 0.0, "stalled_s": 0.0}}
    events = [dataclasses.replace(event, **zero.get(type(event), {})) for event in events]
    return only(SpanAttribution, events), [e for e in events if not isinstance(e, SpanAttribution)]


def flat(values):
    return [number for value in values for number in flat(value)] if isinstance(values, tuple) else [values]


NUMBERS = (
    "effects", "interval", "contributions", "contribution_interval", "evidence", "breaks", "patches", "whole_image",
    "log_prob",
)  # fmt: skip


def assert_same_spans(ours, theirs, tolerance=2e-4):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("index", "channel", "start", "end", "text", "cut"):
            assert getattr(one, name) == getattr(other, name)
        for name in NUMBERS:
            assert (getattr(one, name) is None) == (getattr(other, name) is None)
            if getattr(one, name) is not None:
                assert flat(getattr(one, name)) == pytest.approx(flat(getattr(other, name)), abs=tolerance)


def random_estimator(model, kinds=KINDS, link="log-odds", **card):
    rng = torch.Generator().manual_seed(5)
    features = 3 * 4 * len(kinds)
    card = {"model": model.name, "fingerprint": fingerprint(model)} | card
    weights = torch.randn(SETS[link], features, generator=rng)
    network = None
    if link == "log-odds":
        shapes = (features,), (5, features), (5, features), (2, 5), (2, 5)
        network = Network(*(torch.randn(*shape, generator=rng) for shape in shapes))
        network = dataclasses.replace(network, unit=network.unit.abs())
    return Estimator("random", weights, *SPREADS, kinds, link, card, network)


@contextlib.contextmanager
def threads_set_to(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Processor:
    """A logits processor that changes nothing and calls a function at one token."""

    def __init__(self, at, call):
        self.at, self.call, self.count = at, call, 0

    def __call__(self, input_ids, scores):
        self.count += 1
        if self.count == self.at:
            self.call()
        return scores


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


def decoding_waits(exchange):
    """Whether decoding waits for the worker, or is over."""
    return exchange.progress._waiters or exchange.reason != "error"


# --- the ids and the events


@pytest.mark.parametrize("images", [PICTURES[0], list(PICTURES)], ids=["one image", "two images"])
def test_greedy_ids_are_those_of_generate(tiny, images):
    stream = tiny.stream(images, QUESTION, max_new_tokens=TOKENS, temperature=0)
    events = list(stream)
    assert not only(Error, events)
    assert ids_of(stream) == generated(tiny, images, max_new_tokens=TOKENS, temperature=0)


@pytest.mark.parametrize("seed", [0, 3])
def test_sampled_ids_are_those_of_generate_after_setting_the_seed(tiny, seed):
    options = sampled(tiny, seed)
    stream = tiny.stream(PICTURES[0], QUESTION, **options)
    state = torch.get_rng_state()
    assert not only(Error, list(stream))
    assert torch.equal(torch.get_rng_state(), state), "the process's generator is not touched"
    assert ids_of(stream) == generated(tiny, PICTURES[0], **options)
    assert len(set(ids_of(stream))) > 5


def test_without_a_seed_each_stream_draws_its_own_and_leaves_the_process_generator_alone():
    model = tiny_model("qwen3_vl")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    streams = [model.stream(PICTURES[0], QUESTION, max_new_tokens=20, temperature=1.5) for _ in range(2)]
    for stream in streams:
        list(stream)
    assert ids_of(streams[0]) != ids_of(streams[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_model_streams_the_ids_that_it_generates(family):
    model = build_tiny(family)
    model.hf.to(torch.bfloat16)
    options = sampled(model)
    stream = model.stream(PICTURES[0], QUESTION, **options, estimator=random_estimator(model))
    events = list(stream)
    assert not only(Error, events)
    assert len(only(SpanAttribution, events)) > 2
    assert ids_of(stream) == generated(model, PICTURES[0], **options)


def test_start_is_first_done_last_spans_tile_the_tokens_and_texts_join_to_the_decoded_text(tiny):
    stream = tiny.stream(list(PICTURES), QUESTION, **sampled(tiny))
    events, ids = list(stream), ids_of(stream)
    spans, texts, done = only(SpanAttribution, events), only(Text, events), events[-1]
    assert isinstance(events[0], Start)
    assert len(only(Start, events)) == len(only(Done, events)) == 1
    assert isinstance(done, Done)
    assert len(spans) > 4
    assert [spans[0].start, *(span.end for span in spans)] == [*(span.start for span in spans), len(ids)] == [
        0, *(span.end for span in spans)
    ]  # fmt: skip
    decoded = tiny.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for marker in (*tiny.adapter.thinking_markers, *tiny.adapter.answer_markers):
        decoded = decoded.replace(marker, "")
    assert "".join(text.text for text in texts) == decoded
    assert "".join(span.text for span in spans) == decoded
    assert done.tokens == len(ids) == TOKENS
    assert done.reason == "length"
    assert done.answer == "".join(text.text for text in texts if text.channel == "answer").strip()
    assert done.prompt_tokens == tiny.inputs(list(PICTURES), QUESTION)["input_ids"].shape[1]
    assert [(image.width, image.height) for image in events[0].images] == [image.size for image in PICTURES]
    assert [(image.rows, image.cols) for image in events[0].images] == [
        (len(grid), len(grid[0])) for grid in events[0].regions
    ]
    assert all(from_json(to_json(event)) == event for event in events)
    assert list(stream) == [], "nothing comes after Done"


def test_markers_change_the_channel_and_stay_out_of_the_text(tiny):
    opens, closes = tiny.adapter.thinking_markers
    text = f"{opens if tiny.adapter.family == 'glm4v' else ''}A bar.\nTwo bars.\n{closes}It is 3."
    events = list(tiny.attribute(PICTURES[0], QUESTION, text))
    spans = only(SpanAttribution, events)
    assert [(span.channel, span.text) for span in spans] == [
        ("thinking", "A bar.\n"), ("thinking", "Two bars.\n"), ("answer", "It is 3."),
    ]  # fmt: skip
    assert events[-1].answer == "It is 3."


def test_two_streams_at_once_give_what_each_gives_alone(tiny):
    asked = [(PICTURES[0], 1), (list(PICTURES), 2)]
    alone = [list(tiny.stream(images, QUESTION, **sampled(tiny, seed))) for images, seed in asked]
    streams = [tiny.stream(images, QUESTION, **sampled(tiny, seed)) for images, seed in asked]
    together = [[next(streams[0])], []]
    while not all(isinstance(events[-1], Done) for events in together if events) or not together[1]:
        for stream, events in zip(streams, together, strict=True):
            events.extend(event for event in [next(stream, None)] if event is not None)
    for ours, theirs in zip(together, alone, strict=True):
        (our_spans, our_rest), (their_spans, their_rest) = without_times(ours), without_times(theirs)
        assert our_rest == their_rest
        assert len(our_spans) > 2
        assert_same_spans(our_spans, their_spans)
    assert alone[0] != alone[1]


# --- the numbers


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
            torch.cat([of[kind][:, :, tokens].flatten(0, 1) for kind in estimator.kinds]).double()
            for of in (of_cells, of_regions)
        )  # (feature, token, patch or region)
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
            weights = estimator.of_tokens(torch.tensor([odds]))[0].double()
            heat += max(fall, 0.0) * (weights @ chosen[:, token]).float()
        cells = heat.clamp(min=0).tolist()
        patches = []
        for cell, label in zip(cells, labels, strict=True):
            own = [other for other, of in zip(cells, labels, strict=True) if of == label]
            patches.append(contributions[label] * (cell / sum(own) if sum(own) > 0 else 1 / len(own)))
        shown = list(greedily(value, regions, showing=True)) if whole > 0 else []
        enough = next((n for n, (_, kept) in enumerate(shown, start=1) if kept >= ENOUGH * whole), len(shown))
        yield found | {
            "effects": effects,
            "interval": interval_of(effects, estimator.effect_spread),
            "contributions": contributions,
            "contribution_interval": interval_of(contributions, estimator.contribution_spread),
            "evidence": shown[:enough],
            "breaks": list(greedily(value, regions, showing=False))[:5],
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
    ],
    ids=str,
)
@pytest.mark.parametrize("teacher_forced", [False, True], ids=["stream", "attribute"])
def test_attributions_equal_their_slow_definition(tiny, kinds, link, hiding, teacher_forced, monkeypatch):
    estimator = None if kinds is None else random_estimator(tiny, kinds, link, hiding=hiding)
    monkeypatch.setattr(Game, "rounded", lambda game: game)  # to half precision, as games are kept
    images = [picture(128, 96, seed=2), PICTURES[1]]
    options = sampled(tiny, seed=4, tokens=24)
    stream = tiny.stream(images, QUESTION, **options, estimator=estimator)
    events = list(stream)
    ids = ids_of(stream)
    if teacher_forced:
        events = list(tiny.attribute(images, QUESTION, ids, estimator=estimator))
    start, spans = events[0], only(SpanAttribution, events)
    assert isinstance(start, Start)
    assert not only(Error, events)
    assert (start.unit, start.estimator) == (("attention", None) if kinds is None else ("nats", "random"))
    assert (start.hiding, start.level) == ((None, "none") if kinds is None else (hiding, "fitted"))
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


def test_start_and_text_come_before_the_leak_map_and_the_spans_that_closed_meanwhile_in_order_after(
    tiny, monkeypatch
):
    estimator, options = random_estimator(tiny), sampled(tiny)
    expected = only(SpanAttribution, list(tiny.stream(PICTURES[0], QUESTION, **options, estimator=estimator)))
    go, real = threading.Event(), eyeline.reader.fill_regions

    def late(*args):
        assert go.wait(60)
        return real(*args)

    monkeypatch.setattr(eyeline.reader, "fill_regions", late)
    stream = tiny.stream(PICTURES[0], QUESTION, **options, estimator=estimator)
    first = next(stream)
    assert isinstance(first, Start)
    assert len(first.regions[0]) > 1
    stream._threads[1].join(60)
    assert len(ids_of(stream)) == TOKENS, "all is written while the leak map is measured"
    before = [next(stream) for _ in range(stream._exchange.events.qsize())]
    assert {type(event) for event in before} == {Text}
    go.set()
    spans = only(SpanAttribution, list(stream))
    assert [span.index for span in spans] == list(range(len(spans)))
    assert len(spans) > 4
    assert_same_spans(spans, expected)


def test_a_stream_that_is_closed_stops_measuring_the_leak_map(tiny, monkeypatch):
    reached, asked, real = threading.Event(), [], eyeline.reader.fill_regions

    def closed_meanwhile(model, inputs, regions, hiding, stopped):
        reached.set()
        eventually(stopped)
        asked.append(stopped())
        return real(model, inputs, regions, hiding, stopped)

    monkeypatch.setattr(eyeline.reader, "fill_regions", closed_meanwhile)
    stream = tiny.stream(PICTURES[0], QUESTION, temperature=0, estimator=random_estimator(tiny))
    next(stream)
    assert reached.wait(60)
    stream.close()
    assert list(stream)[-1].reason == "cancelled"
    assert asked == [True]


def test_hiding_by_attention_needs_no_leak_map(monkeypatch):
    model = tiny_model("qwen3_vl")
    monkeypatch.setattr(eyeline.reader, "fill_regions", lambda *_: pytest.fail("measured"))
    estimator = random_estimator(model, hiding="attention")
    for events in (
        list(model.stream(PICTURES[0], QUESTION, **sampled(model), estimator=estimator)),
        list(model.stream(PICTURES[0], QUESTION, **sampled(model))),
    ):
        assert only(SpanAttribution, events)
        assert not only(Error, events)


def test_whoever_asks_a_stream_about_a_span_gets_the_numbers_of_its_event(tiny):
    stream = tiny.stream(PICTURES[0], QUESTION, **sampled(tiny), estimator=random_estimator(tiny))
    spans = only(SpanAttribution, list(stream))
    assert len(spans) > 3
    for span in spans:
        regions = [region for region, _ in span.breaks[:2]]
        found = stream.joint(span.index, regions)
        assert found.fall == pytest.approx(span.breaks[len(regions) - 1][1], rel=1e-4, abs=1e-5)
        assert found.whole_image == pytest.approx(span.whole_image, rel=1e-4, abs=1e-5)
        assert found.contributions == pytest.approx(span.contributions, rel=1e-3, abs=1e-4)
        assert found.parts == pytest.approx(sum(span.effects[region] for region in regions), abs=1e-4)
    with pytest.raises(RegionError, match="There is no region 99"):
        stream.joint(0, [99])
    with pytest.raises(DataError, match="There is no span 99"):
        stream.joint(99)


def of_some_layers(estimator, layers):
    """With zeros for the heads of all other layers, as an estimator of some heads is stored."""
    kept = torch.isin(torch.arange(3), torch.tensor(layers, dtype=torch.long)).float()
    kept = kept.repeat_interleave(4).repeat(len(estimator.kinds))
    network = estimator.network
    if network is not None:
        network = network.columns(lambda columns: columns * kept)
    return dataclasses.replace(estimator, weights=estimator.weights * kept, network=network)


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
    for estimator in (None, random_estimator(model)):
        list(model.stream(PICTURES[0], QUESTION, max_new_tokens=3, estimator=estimator))
    assert captured == [None, [0, 1, 2]]


@pytest.mark.parametrize("link", ["log-odds", "identity"])
def test_an_estimator_without_any_weight_predicts_no_effect(tiny, link, captured):
    estimator = of_some_layers(random_estimator(tiny, link=link), [])
    events = list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny), estimator=estimator))
    assert captured == [[0]]
    assert not only(Error, events)
    spans = only(SpanAttribution, events)
    assert len(spans) > 2
    assert all(flat(span.effects) == pytest.approx([0.0] * len(span.effects), abs=1e-5) for span in spans)


def test_patches_sum_to_the_shown_number_of_each_region_and_shares_to_one(tiny):
    image = picture(256, 160, seed=4)  # more than 32 visual tokens in some family: regions of several cells
    for estimator in (None, random_estimator(tiny)):
        events = list(tiny.stream(image, QUESTION, **sampled(tiny), estimator=estimator))
        labels, spans = flat(events[0].regions), only(SpanAttribution, events)
        assert len(spans) > 2
        for span in spans:
            sums = [0.0] * len(span.effects)
            for label, value in zip(labels, flat(span.patches), strict=True):
                sums[label] += value
            assert sums == pytest.approx(list(span.shown), abs=1e-5)
            if estimator is None:
                assert min(span.effects) >= 0
                assert sum(span.effects) == pytest.approx(1, abs=1e-5)


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


# --- how a generation ends


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


def left_as_it_was(model):
    return model.hf.config.text_config._attn_implementation, model.hf.model.rope_deltas


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


# --- crashes, waiting


def test_a_crash_in_the_worker_is_an_error_and_generation_goes_on_with_the_same_ids(tiny, monkeypatch):
    expected = without_times(list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny))))
    calls, real = [], eyeline.features.token_features

    def crash(*args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory\nand more")
        return real(*args)

    monkeypatch.setattr(eyeline.features, "token_features", crash)
    stream = tiny.stream(PICTURES[0], QUESTION, **sampled(tiny))
    spans, rest = without_times(list(stream))
    errors = only(Error, rest)
    assert [error.message for error in errors] == [
        "Lost the attribution of span 1, generation goes on: RuntimeError: out of memory"
    ]
    assert [event for event in rest if event not in errors] == expected[1]
    assert_same_spans(spans, [span for span in expected[0] if span.index != 1])
    assert ids_of(stream) == generated(tiny, PICTURES[0], **sampled(tiny))


def test_a_crash_while_reading_the_images_leaves_text_and_done(tiny, monkeypatch):
    def crash(*_):
        raise RuntimeError("no regions")

    monkeypatch.setattr(eyeline.worker, "regions_for", crash)
    events = list(tiny.stream(PICTURES[0], QUESTION, **sampled(tiny)))
    assert isinstance(events[0], Start)
    assert events[0].regions == (((0, 0, 0), (0, 0, 0)),)  # the image as one
    assert [error.message for error in only(Error, events)] == [
        "Lost all attributions, generation goes on: RuntimeError: no regions"
    ]
    assert only(SpanAttribution, events) == []
    assert only(Text, events)
    assert (events[-1].reason, events[-1].tokens) == ("length", TOKENS)


@pytest.mark.parametrize("at", [1, 9])
def test_a_crash_of_the_model_is_an_error_and_then_done(tiny, at):
    before = left_as_it_was(tiny)

    def crash():
        raise RuntimeError("no luck\nat all")

    events = list(tiny.stream(PICTURES[0], QUESTION, temperature=0, logits_processor=[Processor(at, crash)]))
    assert isinstance(events[0], Start)
    assert [error.message for error in only(Error, events)] == [
        f"Generation failed after {at - 1} tokens: RuntimeError: no luck"
    ]
    assert (events[-1].reason, events[-1].tokens) == ("error", at - 1)
    assert left_as_it_was(tiny) == before


def test_a_crash_before_the_prompt_is_read_is_start_error_and_done(tiny):
    events = list(tiny.stream(PICTURES[0], QUESTION, temperature=1.0, top_p=-2.0))
    assert [type(event) for event in events] == [Start, Error, Done]
    assert "top_p" in events[1].message
    assert events[-1].reason == "error"


def test_a_crash_of_the_worker_itself_still_ends_with_done(monkeypatch):
    def crash(_):
        raise RuntimeError("no stream")

    monkeypatch.setattr(eyeline.worker, "_attribute", crash)
    events = list(tiny_model("qwen3_vl").stream(PICTURES[0], QUESTION, temperature=0))
    assert [type(event) for event in events if not isinstance(event, Text)] == [Start, Error, Done]


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


# --- what is left behind


def test_threads_of_torch_are_the_same_for_the_caller_and_for_later_threads(monkeypatch):
    model, seen = tiny_model("qwen3_vl"), {}
    read = Reader.read

    def look(*args):
        seen["worker"] = torch.get_num_threads()
        return read(*args)

    def in_new_thread(name):
        thread = threading.Thread(target=lambda: seen.update({name: torch.get_num_threads()}))
        thread.start()
        thread.join()

    def while_decoding():
        seen["decoding"] = torch.get_num_threads()
        in_new_thread("started meanwhile")

    monkeypatch.setattr(Reader, "read", look)
    with threads_set_to(3):
        options = sampled(model) | {"logits_processor": [Processor(5, while_decoding)]}
        streams = [model.stream(PICTURES[0], QUESTION, **options) for _ in range(3)]
        in_new_thread("started beside streams")
        for stream in streams:
            list(stream)
        in_new_thread("started afterwards")
        assert torch.get_num_threads() == 3
    assert seen == {
        "worker": 1, "decoding": 3, "started meanwhile": 3, "started beside streams": 3, "started afterwards": 3,
    }  # fmt: skip


def test_rope_deltas_and_attention_are_left_as_they_were_also_after_two_streams(tiny):
    inner = tiny.hf.model
    before, mark = inner.rope_deltas, torch.tensor([[17]])
    inner.rope_deltas = mark
    try:
        streams = [tiny.stream(PICTURES[0], QUESTION, **sampled(tiny, tokens=tokens)) for tokens in (5, 40)]
        for stream in streams:
            list(stream)
        list(tiny.attribute(PICTURES[0], QUESTION, "A bar."))
        assert inner.rope_deltas is mark
        assert tiny.hf.config.text_config._attn_implementation == "sdpa"
        assert not tiny.hf._forward_hooks
    finally:
        inner.rope_deltas = before


# --- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"cache_implementation": "static"}, "cache_implementation='static'"),
        ({"cache_implementation": "offloaded_static"}, "cache_implementation"),
        ({"cache_implementation": "quantized"}, "cache_implementation"),
        ({"assistant_model": object()}, "assistant_model"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
        ({"past_key_values": object()}, "past_key_values"),
        ({"use_cache": False}, "use_cache"),
        ({"guidance_scale": 1.5}, "guidance_scale"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"prefill_chunk_size": 8}, "prefill_chunk_size"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected 1 to"),
        ({"max_new_tokens": 5000}, "max_new_tokens is 5000; expected 1 to"),
        ({"max_length": 50}, "max_new_tokens"),
        ({"topp": 0.5}, "did you mean top_p?"),
        ({"streamer": object()}, "'streamer' is no option"),
        ({"wibble": 1}, "'wibble' is no option"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_starts(options, words):
    with pytest.raises(PromptError) as caught:
        tiny_model("qwen3_vl").stream(PICTURES[0], QUESTION, **options)
    assert words in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("eyeline")]


def test_a_refused_option_in_the_models_own_generation_config_is_refused_too():
    model = build_tiny("qwen3_vl")
    model.hf.generation_config.num_beams = 4
    with pytest.raises(PromptError, match="num_beams=4"):
        model.stream(PICTURES[0], QUESTION)
    stream = model.stream(PICTURES[0], QUESTION, num_beams=1, max_new_tokens=2)
    assert list(stream)[-1].tokens == 2


def test_bad_prompts_images_regions_and_stops_are_refused_before_anything_starts(tmp_path):
    model = tiny_model("qwen3_vl")
    not_json = tmp_path / "boxes.json"
    not_json.write_text("nothing")
    cases = [
        (PromptError, lambda: model.stream(PICTURES[0], "  ")),
        (PromptError, lambda: model.stream(PICTURES[0], "word " * 3000)),
        (ImageError, lambda: model.stream([], QUESTION)),
        (ImageError, lambda: model.stream(tmp_path / "missing.png", QUESTION)),
        (RegionError, lambda: model.stream(PICTURES[0], QUESTION, regions="squares")),
        (RegionError, lambda: model.stream(PICTURES[0], QUESTION, regions=not_json)),
        (RegionError, lambda: model.stream(PICTURES[0], QUESTION, regions=["grid", "grid"])),
        (EyelineError, lambda: model.stream(PICTURES[0], QUESTION, stop="")),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, "")),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, [])),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, "word " * 3000)),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, [3, 10**6])),
        (PromptError, lambda: model.attribute(PICTURES[0], QUESTION, [-1])),
    ]
    for kind, call in cases:
        with pytest.raises(kind) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_an_estimator_of_another_model_is_refused_also_as_an_object(tiny):
    other = build_tiny(tiny.adapter.family, seed=1)
    with pytest.raises(EstimatorError, match="was fitted for"):
        tiny.stream(PICTURES[0], QUESTION, estimator=random_estimator(other))
    wrong = dataclasses.replace(random_estimator(tiny), weights=torch.zeros(2, 47))
    with pytest.raises(EstimatorError, match="48 features"):
        tiny.attribute(PICTURES[0], QUESTION, "A bar.", estimator=wrong)


def test_a_quantised_model_says_that_the_calibration_is_not_verified():
    model = build_tiny("qwen3_vl")
    model.hf.is_quantized = True
    estimator = random_estimator(model, fingerprint="of the model before it was quantised")
    events = list(model.stream(PICTURES[0], QUESTION, max_new_tokens=3, estimator=estimator))
    assert events[0].estimator == "random (calibration not verified)"
    assert events[0].unit == "nats"
    assert only(SpanAttribution, events)


def test_own_regions_are_used(tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[[0, 0, 32, 64]]")
    events = list(tiny_model("qwen3_vl").stream(PICTURES[0], QUESTION, max_new_tokens=3, regions=boxes))
    assert events[0].regions == (((0, 1, 1), (0, 1, 1)),)
    assert len(only(SpanAttribution, events)[0].effects) == 2
