"""Streams of tiny models: what to ask, estimators of random weights, and how events are compared."""

import contextlib
import dataclasses

import pytest
import torch
from conftest import SPREADS

from eyeline.estimator import SETS, Estimator, Network
from eyeline.events import Done, SpanAttribution
from eyeline.features import KINDS
from eyeline.fingerprint import fingerprint

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


def decoding_waits(exchange):
    """Whether decoding waits for the worker, or is over."""
    return exchange.progress._waiters or exchange.reason != "error"


def of_some_layers(estimator, layers):
    """With zeros for the heads of all other layers, as an estimator of some heads is stored."""
    kept = torch.isin(torch.arange(3), torch.tensor(layers, dtype=torch.long)).float()
    kept = kept.repeat_interleave(4).repeat(len(estimator.kinds))
    network = estimator.network
    if network is not None:
        network = network.columns(lambda columns: columns * kept)
    return dataclasses.replace(estimator, weights=estimator.weights * kept, network=network)


def left_as_it_was(model):
    return model.hf.config.text_config._attn_implementation, model.hf.model.rope_deltas
