"""The scale of an estimator: nats, for hidden sets of every size."""

import pytest
import torch
from synthetic import FAST, FEATURES, RUN, WEIGHTS, singles, synthetic

from eyeline.estimator import Estimator, Network, sum_spans
from eyeline.features import KINDS
from eyeline.training.collect import WHOLE
from eyeline.training.fit import _times, fit, game_of, r2_nats, scale
from eyeline.training.weights import UNKNOWN, split


def test_the_scale_is_right_under_noise():
    images, _ = synthetic(120, noise=0.3)
    estimator, _ = fit(images, RUN, FAST, "mine")
    predicted, _, actual, _ = singles(synthetic(60, seed=9, noise=0.3, prefix="new")[0], estimator)
    assert float((predicted @ actual) / (predicted @ predicted)) == pytest.approx(1, abs=0.06)


def of_several_sizes(count, together, *, apart=1.0, seed=0, prefix="image"):
    """Images whose tokens' scores are those of a known network, of which what hidden regions do together is `together` times.

    What regions do apart is `apart` times that, and all are of the link log-odds.
    """
    rng = torch.Generator().manual_seed(7)
    units = torch.logspace(3, -1, FEATURES)
    inward, context = torch.randn(2, 4, FEATURES, generator=rng)
    network = Network(units, inward, context, torch.zeros(2, 4), torch.randn(2, 4, generator=rng))
    weights = (0.3 * WEIGHTS * units).expand(2, -1)
    estimator = Estimator("", weights, UNKNOWN, UNKNOWN, KINDS, network=network)
    images, _ = synthetic(count, link="log-odds", seed=seed, prefix=prefix)
    factors = torch.tensor([[apart, apart], [together, together]])
    for one in images:
        game = _times(estimator, factors).game(one.features.float(), one.log_odds)
        one.token_falls[:] = game.falls(one.subsets.float().T)
    return estimator, images


def test_factors_for_what_regions_do_apart_and_together_are_found_again_for_subsets_of_every_size():
    estimator, images = of_several_sizes(30, together=0.4, apart=2.5)
    scaled = scale(images, estimator)
    new = of_several_sizes(10, together=0.4, apart=2.5, seed=9, prefix="new")[1]
    for rate in images[0].rates.unique().tolist():
        predicted, actual = [], []
        for one in new:
            at = one.rates == rate
            falls = game_of(one, scaled).falls(one.subsets[at].float().T)
            predicted.append(sum_spans(falls, one.lengths).flatten())
            actual.append(one.falls[:, at].flatten())
        predicted, actual = torch.cat(predicted), torch.cat(actual)
        assert float((predicted @ actual) / (predicted @ predicted)) == pytest.approx(1, abs=0.02)
        assert r2_nats(predicted, actual) > 0.99


def test_every_size_of_subsets_weighs_the_same_in_the_scale():
    """Of one set of weights, whose factor is what least squares over the sizes' own spreads says."""
    images, truth = synthetic(30)
    for one in images:
        one.token_falls[:, one.rates == WHOLE] *= 0.6  # less than the sum of all regions
    (factor,) = (
        scale(images, linear := Estimator("", truth[None], UNKNOWN, UNKNOWN, KINDS, "identity")).weights
        / truth
    ).unique()[:1]
    above, below = 0.0, 0.0
    for rate in images[0].rates.unique().tolist():
        pairs = [
            (
                sum_spans(game_of(one, linear).falls(one.subsets.float().T), one.lengths)[:, at],
                one.falls[:, at],
            )
            for one in images
            for at in [one.rates == rate]
        ]
        predicted, actual = (
            torch.cat([each.flatten() for each in part]) for part in zip(*pairs, strict=True)
        )
        size = (actual - actual.mean()).square().sum()
        above, below = above + predicted @ actual / size, below + predicted @ predicted / size
    assert 0.6 < float(factor) < 0.99
    assert float(factor) == pytest.approx(float(above / below), rel=1e-3)


def test_the_scale_is_learned_on_images_of_its_own():
    images, _ = synthetic(60)
    estimator, _ = fit(images, RUN, FAST, "mine")
    for one in split(images)["fit"]:  # weights are fitted to these, so their sizes tell nothing
        one.token_falls[:] *= 5
    again, _ = fit(images, RUN, FAST, "mine")
    torch.testing.assert_close(again.weights, estimator.weights, rtol=1e-3, atol=1e-6)
