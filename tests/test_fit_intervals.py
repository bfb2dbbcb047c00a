"""Intervals cover nine in ten of the effects and contributions of new images."""

import dataclasses

import pytest
import torch
from synthetic import FAST, RUN, by_image, singles, synthetic

from eyeline.estimator import Estimator, interval
from eyeline.features import KINDS
from eyeline.game import contributions, orders
from eyeline.training.fit import (
    COVERAGE,
    _conformal_quantile,
    contribution_pairs,
    contribution_spread,
    fit,
    game_of,
)
from eyeline.training.weights import FEWEST_COVER, UNKNOWN, split


def measured(images, estimator, *, noise=0.0):
    """With contributions measured, those of an estimator's games, off by noise that grows with them."""
    rng = torch.Generator().manual_seed(5)
    for one in images:
        along, game = orders(one.subsets.shape[1]), game_of(one, estimator)
        of_tokens = torch.stack(
            [contributions(game.of(at, at + 1), along) for at in range(len(one.log_odds))]
        )
        off = torch.randn(of_tokens.shape, generator=rng) * noise * (0.02 + of_tokens.abs())
        yield dataclasses.replace(one, token_contributions=of_tokens + off)


def test_intervals_of_contributions_cover_nine_in_ten_measured_ones_of_new_images():
    images, truth = synthetic(120, link="log-odds")
    estimator = Estimator("", truth.expand(2, -1), UNKNOWN, UNKNOWN, KINDS)
    predicted, actual, _ = contribution_pairs(list(measured(images[:3], estimator)), estimator)
    torch.testing.assert_close(predicted, actual, rtol=1e-4, atol=1e-4)
    some = [*measured(images[:100], estimator, noise=0.5), *images[100:]]  # not on all
    spread = contribution_spread(some, estimator, UNKNOWN)
    new = list(measured(synthetic(120, link="log-odds", seed=9, prefix="new")[0], estimator, noise=0.5))
    predicted, actual, image = contribution_pairs(new, estimator)
    low, high = interval(predicted, spread).T
    assert by_image((low <= actual) & (actual <= high), image) == pytest.approx(COVERAGE, abs=0.04)


def test_contributions_measured_on_too_few_images_have_the_intervals_of_effects():
    images, truth = synthetic(FEWEST_COVER, link="log-odds")
    estimator = Estimator("", truth.expand(2, -1), UNKNOWN, UNKNOWN, KINDS)
    shape = torch.tensor([[-1.0, -0.3, 0.2], [2.0, -0.5, 0.7]])
    few = [*measured(images[: FEWEST_COVER - 1], estimator, noise=0.5), images[-1]]
    assert torch.equal(contribution_spread(few, estimator, shape), shape)
    widened = contribution_spread(list(measured(images, estimator, noise=5.0)), estimator, shape)
    share = (widened[:, 1:] / shape[:, 1:]).flatten()
    assert (share > 1).all(), "in the effects' shape, as wide as it takes"


def test_intervals_cover_nine_in_ten_effects_of_new_images_and_scaled_ones_are_narrower():
    images, _ = synthetic(400, noise=0.02, grows=0.4, spans=2)
    estimator, _ = fit(images, RUN, FAST, "mine")
    new = synthetic(300, seed=9, noise=0.02, grows=0.4, spans=2, prefix="new")[0]
    predicted, intervals, actual, image = singles(new, estimator)
    covered = (intervals[:, 0] <= actual) & (actual <= intervals[:, 1])
    assert by_image(covered, image) == pytest.approx(COVERAGE, abs=0.03)
    width = by_image(intervals[:, 1] - intervals[:, 0], image)
    held = singles(split(images)["cover"], estimator)
    constant = 2 * _conformal_quantile((held[0] - held[2]).abs(), held[3], COVERAGE)
    assert width < 0.9 * constant
    large = actual.abs() > 0.5
    assert large.sum() > 100
    constant_covers = (predicted - actual).abs() <= constant / 2
    assert covered[large].float().mean() > constant_covers[large].float().mean()


def test_the_conformal_quantile_covers_a_new_image_by_its_finite_sample_rule():
    """Many draws of few images of unequal sizes: the mean coverage of a new one is at least nine in ten."""
    rng = torch.Generator().manual_seed(0)

    def draw():  # the score of a pair depends on its image
        size = int(torch.randint(1, 30, (1,), generator=rng))
        return (torch.randn(1, generator=rng).exp() * torch.rand(size, generator=rng)), size

    coverages = []
    for _ in range(1500):
        images = [draw() for _ in range(9)]
        image = torch.repeat_interleave(torch.arange(9), torch.tensor([size for _, size in images]))
        quantile = _conformal_quantile(torch.cat([scores for scores, _ in images]), image, 0.9)
        coverages.append(float((draw()[0] <= quantile).float().mean()))
    mean = sum(coverages) / len(coverages)
    assert 0.9 - 0.015 < mean < 0.99


def test_the_conformal_quantile_is_that_of_its_definition():
    scores = torch.tensor([5.0, 1.0, 3.0, 2.0, *range(10, 19)])
    image = torch.tensor([0, 0, 0, 0, *range(1, 10)])
    mass = {
        float(score): (1 / 11) * (0.25 if n < 4 else 1) for n, score in enumerate(scores)
    }  # 10 images, 1 new
    for coverage in (0.1, 0.5, 0.7, 0.9):
        least = min(s for s in mass if sum(m for other, m in mass.items() if other <= s) >= coverage - 1e-9)
        assert _conformal_quantile(scores, image, coverage) == least
    with pytest.raises(AssertionError):
        _conformal_quantile(scores[:6], image[:6], 0.9)  # three images
