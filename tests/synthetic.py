"""Collections of no model, whose scores are linear in their features by weights that a fit has to find."""

import dataclasses

import torch

from eyeline.estimator import SETS, Estimator, interval
from eyeline.features import KINDS
from eyeline.training.collect import Collected, Settings, draw_subsets
from eyeline.training.fit import effect_pairs
from eyeline.training.weights import UNKNOWN, FitSettings

FEATURES = 12  # three of each kind
WEIGHTS = torch.linspace(-0.5, 1.0, FEATURES)
RUN = {
    "version": "0",
    "model": "synthetic",
    "fingerprint": "f",
    "settings": {"kinds": list(KINDS), "hiding": "pixels", "regions": "native"},
}
FAST = FitSettings(KINDS, "identity", steps=150, rate=8e-2)
ODDS = dataclasses.replace(FAST, link="log-odds", hidden=0, ranks=0.0)
NETWORK = FitSettings(KINDS, steps=400, rate=4e-2, hidden=4)


def set_falls(one, chosen, falls):
    """Makes the falls of spans for some subsets what is given; each span's first token takes the difference."""
    first = one.lengths.cumsum(0) - one.lengths
    one.token_falls[first[:, None], chosen.nonzero()[:, 0]] += falls - one.falls[:, chosen]


def synthetic(count, *, link="identity", noise=0.0, grows=0.0, spans=4, seed=0, prefix="image"):
    """Images whose scores are linear in their features: WEIGHTS, in nats, are what is to be found.

    Spans have one token, then two, then one again. The noise of an effect has the standard deviation noise + grows * |effect|.
    """
    rng = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-3, 1, FEATURES)  # features of very different sizes
    images = []
    for number in range(count):
        regions = int(torch.randint(6, 12, (1,), generator=rng))
        name = f"{prefix}-{number}"
        subsets, rates = draw_subsets(regions, Settings(subsets=16), name)
        lengths = torch.arange(spans) % 2 + 1
        tokens = int(lengths.sum())
        active = torch.rand(tokens, regions, 1, generator=rng) < 0.5  # the others are blank background
        features = torch.randn(tokens, regions, FEATURES, generator=rng) * scales * active
        features = features.half()
        log_odds = torch.randn(tokens, generator=rng) * 2 + 2
        truth = (WEIGHTS / scales).expand(SETS[link], -1)
        true = Estimator("", truth, UNKNOWN, UNKNOWN, KINDS, link)
        falls = true.game(features.float(), log_odds).falls(subsets.float().T)
        labels = ((list(range(regions)),),)
        ends = lengths.cumsum(0).tolist()
        spoken = tuple(
            {"start": end - length, "end": end} for end, length in zip(ends, lengths.tolist(), strict=True)
        )
        one = Collected(name, "math", "3", spoken, features, log_odds, subsets, rates, falls, None, labels)
        of_spans = one.falls
        set_falls(
            one,
            rates < 2,
            of_spans + torch.randn(of_spans.shape, generator=rng) * (noise + grows * of_spans.abs()),
        )
        images.append(one)
    return images, WEIGHTS / scales


def singles(images, estimator):
    """Predicted effects, intervals and actual effects of single regions, and the image of each."""
    effects, actual, image = effect_pairs(images, estimator)
    return effects, interval(effects, estimator.effect_spread), actual, image


def by_image(values, image):
    """Mean of the images' means."""
    return float(torch.stack([values[image == number].float().mean() for number in image.unique()]).mean())
