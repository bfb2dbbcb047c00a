import dataclasses
import operator

import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from eyeline.errors import DataError
from eyeline.estimator import SETS, Estimator, Network, interval, sum_spans
from eyeline.features import KINDS
from eyeline.game import contributions, fall, orders
from eyeline.training.collect import ALONE, WHOLE, Collected, Settings, draw_subsets
from eyeline.training.fit import (
    COVERAGE,
    FEWEST_IMAGES,
    _conformal_quantile,
    _times,
    contribution_pairs,
    contribution_spread,
    effect_pairs,
    fit,
    game_of,
    r2_nats,
    scale,
)
from eyeline.training.weights import (
    FEWEST_COVER,
    LEAST_OF_TOKEN,
    MIN_SPREAD,
    UNKNOWN,
    FitSettings,
    _agreement,
    choose,
    correlation,
    learn_weights,
    pearson,
    split,
    training_data,
)

FEATURES = 12  # three of each kind
WEIGHTS = torch.linspace(-0.5, 1.0, FEATURES)
RUN = {
    "version": "0",
    "model": "synthetic",
    "fingerprint": "f",
    "settings": {"kinds": list(KINDS), "hiding": "pixels", "regions": "native"},
}
FAST = FitSettings(KINDS, "identity", steps=400, rate=8e-2)
ODDS = dataclasses.replace(FAST, link="log-odds", hidden=0, ranks=0.0)
NETWORK = FitSettings(KINDS, steps=400, rate=4e-2, hidden=4)


def set_drops(one, chosen, drops):
    """Makes the drops of spans for some subsets what is given; each span's first token takes the difference."""
    first = one.lengths.cumsum(0) - one.lengths
    one.token_drops[first[:, None], chosen.nonzero()[:, 0]] += drops - one.drops[:, chosen]


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
        told = Estimator("", truth, UNKNOWN, UNKNOWN, KINDS, link)
        falls = told.game(features.float(), log_odds).falls(subsets.float().T)
        labels = ((list(range(regions)),),)
        ends = lengths.cumsum(0).tolist()
        spoken = tuple(
            {"start": end - length, "end": end} for end, length in zip(ends, lengths.tolist(), strict=True)
        )
        one = Collected(name, "math", "3", spoken, features, log_odds, subsets, rates, falls, None, labels)
        drops = one.drops
        set_drops(
            one, rates < 2, drops + torch.randn(drops.shape, generator=rng) * (noise + grows * drops.abs())
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


def test_known_weights_are_recovered_with_their_size_in_nats():
    images, truth = synthetic(60)
    estimator, report = fit(images, RUN, FAST, "mine")
    assert report["losses"][-1] < -0.999
    assert report["losses"][0] > -0.9
    spread = torch.cat([one.features.float().flatten(0, 1) for one in images]).std(0)
    torch.testing.assert_close(estimator.weights[0] * spread, truth * spread, rtol=0.03, atol=0.01)
    predicted, _, actual, _ = singles(synthetic(20, seed=9, prefix="new")[0], estimator)
    assert float((predicted @ actual) / (predicted @ predicted)) == pytest.approx(1, abs=0.02)
    assert float(torch.corrcoef(torch.stack([predicted, actual]))[0, 1]) > 0.999
    assert estimator.card["r2_nats_held_out"] > 0.99


def test_weights_behind_the_odds_of_tokens_are_recovered_and_predict_regions_hidden_together():
    images, truth = synthetic(60, link="log-odds")
    estimator, report = fit(images, RUN, ODDS, "mine")
    assert report["losses"][-1] < -0.99
    spread = torch.cat([one.features.float().flatten(0, 1) for one in images]).std(0)
    torch.testing.assert_close(
        estimator.weights * spread, (truth * spread).expand(2, -1), rtol=0.15, atol=0.08
    )
    new = training_data(synthetic(20, seed=9, link="log-odds", prefix="new")[0], KINDS)
    linear, _ = fit(images, RUN, FAST, "mine")
    assert new.correlation(estimator) > 0.99 > 0.97 > new.correlation(linear)
    predicted, _, actual, _ = singles(synthetic(20, seed=9, link="log-odds", prefix="new")[0], estimator)
    assert float(torch.corrcoef(torch.stack([predicted, actual]))[0, 1]) > 0.99


def test_a_network_learns_what_no_linear_map_can_say_and_leaves_out_dead_features():
    """A feature counts only in an image where another one is large in sum: a head that tells which of two others to trust."""
    images, _ = synthetic(150, spans=6)
    for one in images:
        one.features[..., 5] = 0.0
        features = one.features.float() / torch.logspace(-3, 1, FEATURES)
        trusted = (features[..., 1].sum(1, keepdim=True) > 0).float()
        scores = trusted * features[..., 8] + (1 - trusted) * features[..., 9]
        one.token_drops[:] = fall(scores @ one.subsets.float().T, one.log_odds)
    learned, held = training_data(images[:120], KINDS), training_data(images[120:], KINDS)
    network, losses = learn_weights(learned, dataclasses.replace(NETWORK, dropped=0.0))
    linear, _ = learn_weights(learned, dataclasses.replace(NETWORK, hidden=0))
    assert held.correlation(network) > held.correlation(linear) + 0.1
    assert losses[-1] == pytest.approx(-learned.correlation(network), abs=0.08)
    assert network.network is not None
    assert linear.network is None
    assert network.network.unit[5] == 0
    assert learn_weights(learned, dataclasses.replace(FAST, steps=1, hidden=4))[0].network is None  # identity


def test_correlations_are_pearsons_and_of_ranks_spearmans_where_predictions_are_apart():
    rng = torch.Generator().manual_seed(1)
    predicted = torch.stack([torch.randperm(16, generator=rng) for _ in range(5)]).double()
    actual = torch.randn(5, 16, generator=rng).double().exp()
    pearsons = [pearsonr(*pair).statistic for pair in zip(predicted, actual, strict=True)]
    spearmans = [spearmanr(*pair).statistic for pair in zip(predicted, actual, strict=True)]
    assert correlation(predicted, actual, 0.0).tolist() == pytest.approx(pearsons, abs=1e-6)
    assert correlation(predicted, actual, 1.0).tolist() == pytest.approx(spearmans, abs=0.01)
    both = [0.7 * one + 0.3 * other for one, other in zip(pearsons, spearmans, strict=True)]
    assert correlation(predicted, actual, 0.3).tolist() == pytest.approx(both, abs=0.01)


def test_what_agrees_is_spans_and_tokens_over_random_subsets_and_over_regions_by_themselves():
    """A token counts by the root of how much it varies; those that hardly do are left out."""
    images, _ = synthetic(5, link="log-odds")
    images[4].token_drops[1] *= 1e-3  # the first of two tokens of a span
    learned = training_data(images, KINDS)
    spans = torch.tensor([-1, -2, 0]) % len(
        learned.lengths
    )  # the last image's two, and the first image's first
    tokens = learned.tokens(spans)
    of_last = learned.token_drops[tokens[2:4], : learned.random]
    assert torch.equal(of_last, images[4].token_drops[1:3][:, images[4].rates > 0])
    falls = torch.randn(len(tokens), learned.token_drops.shape[1], generator=torch.Generator().manual_seed(2))

    def expected(kind):
        of_spans, of_tokens, at = [], [], 0
        for span in spans.tolist():
            one = images[int(learned.image[span])]
            wanted = one.rates > 0 if kind == "random" else one.rates == ALONE
            begin = 0 if kind == "random" else learned.random
            subsets = slice(begin, begin + int(wanted.sum()))
            own = range(at, at + int(learned.lengths[span]))
            measured = [learned.token_drops[tokens[token], subsets] for token in own]
            assert all(
                any(torch.equal(drops, row) for row in one.token_drops[:, wanted]) for drops in measured
            )
            told = [falls[token, subsets] for token in own]
            found = [float(pearsonr(*pair).statistic) for pair in zip(told, measured, strict=True)]
            spread = [float(drops.std(correction=0)) for drops in measured]
            counts = [each**0.5 * (each > LEAST_OF_TOKEN) for each in spread]
            of_tokens.append(sum(map(operator.mul, found, counts)) / sum(counts))
            of_spans.append(float(pearsonr(sum(told), sum(measured)).statistic))
            at = own.stop
        return sum(0.75 * one + 0.25 * other for one, other in zip(of_spans, of_tokens, strict=True)) / 3

    settings = dataclasses.replace(NETWORK, tokens=0.25, ranks=0.0, alone=0.2, across=0.0)
    found = float(_agreement(learned, spans, falls, settings))
    within = 0.8 * expected("random") + 0.2 * expected("alone")
    assert found == pytest.approx(within, abs=1e-5)
    # across the spans: all pairs of span and region, and the effects of hiding everything
    assert torch.equal(
        learned.token_drops[tokens[2:4], -1:], images[4].token_drops[1:3][:, images[4].rates == WHOLE]
    )
    of_spans = [sum_spans(each, learned.lengths[spans]) for each in (falls, learned.token_drops[tokens])]
    counts = [images[int(learned.image[span])].subsets.shape[1] for span in spans]
    assert len(set(counts)) > 1
    singly = [
        torch.cat([row[learned.random :][:count] for row, count in zip(each, counts, strict=True)])
        for each in of_spans
    ]
    pairs = pearsonr(*singly).statistic
    whole = pearsonr(*(each[:, -1] for each in of_spans)).statistic
    found = float(_agreement(learned, spans, falls, dataclasses.replace(settings, across=0.3)))
    assert found == pytest.approx(0.7 * within + 0.15 * float(pairs + whole), abs=1e-5)


def test_subsets_that_an_image_does_not_have_count_in_no_correlation():
    rng = torch.Generator().manual_seed(3)
    predicted, actual = torch.randn(2, 4, 12, generator=rng)
    counted = torch.arange(12).expand(4, 12) < torch.tensor([12, 9, 7, 2])[:, None]
    for ranks in (0.0, 0.3, 1.0):
        expected = [
            correlation(*(each[None, row, which] for each in (predicted, actual)), ranks)
            for row, which in enumerate(counted)
        ]
        torch.testing.assert_close(correlation(predicted, actual, ranks, counted), torch.cat(expected))


def test_predictions_are_those_of_the_estimator_image_by_image():
    images, truth = synthetic(7, link="log-odds")
    together = training_data(images, ("odds", "value"))
    rng = torch.Generator().manual_seed(4)
    weights = torch.randn(2, 6, generator=rng) / truth[3:9].norm()
    shapes = (3, 6), (3, 6), (2, 3), (2, 3)
    network = Network(truth[3:9].roll(3).abs(), *(torch.randn(*shape, generator=rng) for shape in shapes))
    linear = Estimator("", weights, UNKNOWN, UNKNOWN, ("odds", "value"))
    estimator = dataclasses.replace(linear, network=network)
    spans = torch.arange(len(together.lengths))
    predicted = together.predict(estimator, spans)
    assert not torch.allclose(predicted, together.predict(linear, spans), rtol=0.1, atol=0.1)
    compressed = together.compressed(network.unit)
    torch.testing.assert_close(
        together.predict(estimator, spans, compressed), predicted, rtol=1e-2, atol=2e-2
    )
    told = []
    most = max(one.subsets.shape[1] for one in images)
    for one in images:
        missing = most - one.subsets.shape[1]
        parts = [one.subsets[one.rates > 0], one.subsets[one.rates == ALONE], one.subsets[one.rates == WHOLE]]
        parts.insert(2, torch.zeros(missing, one.subsets.shape[1]))
        game = estimator.game(choose(one.features, ("odds", "value")).float(), one.log_odds)
        drops = sum_spans(game.falls(torch.cat(parts).float().T), one.lengths)
        told.append(drops[one.drops[:, one.rates > 0].std(1) > MIN_SPREAD])
    assert len({one.subsets.shape[1] for one in images}) > 1
    expected = torch.cat(told)
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)
    some = torch.tensor([5, 0, 5])
    torch.testing.assert_close(together.predict(estimator, some), predicted[some])


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
        one.token_drops[:] = game.falls(one.subsets.float().T)
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
            actual.append(one.drops[:, at].flatten())
        predicted, actual = torch.cat(predicted), torch.cat(actual)
        assert float((predicted @ actual) / (predicted @ predicted)) == pytest.approx(1, abs=0.02)
        assert r2_nats(predicted, actual) > 0.99


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


def test_every_size_of_subsets_weighs_the_same_in_the_scale():
    """Of one set of weights, whose factor is what least squares over the sizes' own spreads says."""
    images, truth = synthetic(30)
    for one in images:
        one.token_drops[:, one.rates == WHOLE] *= 0.6  # less than the sum of all regions
    (factor,) = (
        scale(images, linear := Estimator("", truth[None], UNKNOWN, UNKNOWN, KINDS, "identity")).weights
        / truth
    ).unique()[:1]
    above, below = 0.0, 0.0
    for rate in images[0].rates.unique().tolist():
        pairs = [
            (
                sum_spans(game_of(one, linear).falls(one.subsets.float().T), one.lengths)[:, at],
                one.drops[:, at],
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
        one.token_drops[:] *= 5
    again, _ = fit(images, RUN, FAST, "mine")
    torch.testing.assert_close(again.weights, estimator.weights, rtol=1e-3, atol=1e-6)


def test_intervals_cover_nine_in_ten_effects_of_new_images_and_scaled_ones_are_narrower():
    images, _ = synthetic(400, noise=0.02, grows=0.4, spans=2)
    estimator, _ = fit(images, RUN, dataclasses.replace(FAST, steps=300), "mine")
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


def test_images_are_split_by_their_ids_alone_and_enough_are_left_to_calibrate():
    images, _ = synthetic(80)
    parts, again = split(images), split(images[::-1])
    assert {name: [one.id for one in part] for name, part in parts.items()} == {
        name: [one.id for one in part] for name, part in again.items()
    }
    assert sorted(one.id for part in parts.values() for one in part) == sorted(one.id for one in images)
    assert {name: len(part) for name, part in parts.items()} == {"scale": 13, "cover": 10, "fit": 57}
    assert {name: len(part) for name, part in split(images[:FEWEST_IMAGES]).items()} == {
        "scale": 4, "cover": 9, "fit": 11,
    }  # fmt: skip


def test_too_few_images_or_none_that_depends_on_the_image_are_refused():
    images, _ = synthetic(FEWEST_IMAGES, noise=0.01)
    fit(images, RUN, dataclasses.replace(FAST, steps=60), "mine")
    with pytest.raises(DataError, match=f"{FEWEST_IMAGES - 1} images are too few"):
        fit(images[1:], RUN, FAST, "mine")
    with pytest.raises(DataError, match="0 images are too few"):
        fit([], RUN, FAST, "mine")
    blind = [dataclasses.replace(one, token_drops=one.token_drops * 1e-6) for one in images]
    with pytest.raises(DataError, match="depends on the image"):
        fit(blind, RUN, FAST, "mine")


def test_weights_that_predict_the_opposite_in_other_images_are_refused():
    images, _ = synthetic(40)
    turning = {one.id for one in split(images)["scale"]}
    turned = [
        dataclasses.replace(one, token_drops=-one.token_drops) if one.id in turning else one for one in images
    ]
    with pytest.raises(DataError, match="do not predict"):
        fit(turned, RUN, FAST, "mine")


def test_a_feature_that_is_dead_in_the_data_gets_no_weight():
    images, _ = synthetic(40)
    for one in images:
        one.features[..., 3] = 0.0
    estimator, _ = fit(images, RUN, FAST, "mine")
    assert not estimator.weights[:, 3].any()
    assert estimator.weights.isfinite().all()


def test_fitting_again_gives_the_same_numbers_whatever_the_order_of_the_images():
    images, _ = synthetic(40, noise=0.1)
    torch.manual_seed(1)
    first, _ = fit(images, RUN, dataclasses.replace(NETWORK, steps=50), "mine")
    torch.manual_seed(2)
    second, _ = fit(images[::-1], RUN, dataclasses.replace(NETWORK, steps=50), "mine")
    assert torch.equal(first.weights, second.weights)
    assert first.network is not None
    assert second.network is not None
    assert torch.equal(first.network.outward, second.network.outward)
    assert torch.equal(first.effect_spread, second.effect_spread)
    assert torch.equal(first.contribution_spread, second.contribution_spread)
    assert first.card == second.card


def test_kinds_choose_their_columns_in_their_own_order():
    features = torch.arange(2 * 3 * FEATURES).view(2, 3, FEATURES).float()
    assert torch.equal(choose(features, KINDS), features)
    chosen = choose(features, ("odds", "attention"))
    assert torch.equal(chosen, torch.cat([features[..., 6:9], features[..., :3]], dim=-1))
    images, _ = synthetic(30)
    estimator, _ = fit(images, RUN, dataclasses.replace(FAST, kinds=("odds",), steps=30), "mine")
    assert estimator.kinds == ("odds",)
    assert estimator.weights.shape == (1, 3)


def test_pearson_is_the_correlation_of_each_row_and_zero_for_a_constant():
    rows = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(*rows, strict=True)])
    torch.testing.assert_close(pearson(rows[0], rows[1]), expected)
    assert pearson(torch.ones(1, 5), torch.randn(1, 5)).tolist() == [0.0]


def test_the_card_of_the_papers_link_tells_what_it_leaves_of_the_settings():
    images, _ = synthetic(80)
    estimator, _ = fit(
        images, RUN, dataclasses.replace(FAST, hidden=8, ranks=0.3, alone=0.4, steps=5), "mine"
    )
    assert estimator.card["fit"]["link"] == "identity"
    assert [estimator.card["fit"][name] for name in ("hidden", "tokens", "ranks", "alone", "across")] == [
        0
    ] * 5


def test_the_card_says_what_the_numbers_mean():
    images, _ = synthetic(80)
    estimator, _ = fit(images, RUN, dataclasses.replace(ODDS, steps=30), "mine")
    assert estimator.card["hiding"] == "pixels"
    assert estimator.card["fingerprint"] == "f"
    assert estimator.card["images"] == {"scale": 13, "cover": 10, "fit": 57}
    assert estimator.card["coverage"] == COVERAGE
