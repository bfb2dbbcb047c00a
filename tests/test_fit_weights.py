"""How weights are learned: what is to agree, over which subsets, and what a network adds."""

import dataclasses
import operator

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from synthetic import FAST, FEATURES, NETWORK, RUN, synthetic

from eyeline.estimator import Estimator, Network, sum_spans
from eyeline.features import KINDS
from eyeline.game import fall
from eyeline.training.collect import ALONE, WHOLE
from eyeline.training.fit import fit
from eyeline.training.weights import (
    LEAST_OF_TOKEN,
    MIN_SPREAD,
    UNKNOWN,
    agreement,
    choose,
    correlation,
    learn_weights,
    pearson,
    training_data,
)


def test_a_network_learns_what_no_linear_map_can_say_and_leaves_out_dead_features():
    """A feature counts only in an image where another one is large in sum: a head that tells which of two others to trust."""
    images, _ = synthetic(150, spans=6)
    for one in images:
        one.features[..., 5] = 0.0
        features = one.features.float() / torch.logspace(-3, 1, FEATURES)
        trusted = (features[..., 1].sum(1, keepdim=True) > 0).float()
        scores = trusted * features[..., 8] + (1 - trusted) * features[..., 9]
        one.token_falls[:] = fall(scores @ one.subsets.float().T, one.log_odds)
    learned, held = training_data(images[:120], KINDS), training_data(images[120:], KINDS)
    settings = dataclasses.replace(NETWORK, dropped=0.0, steps=160)
    network, losses = learn_weights(learned, settings)
    linear, _ = learn_weights(learned, dataclasses.replace(settings, hidden=0))
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
    images[4].token_falls[1] *= 1e-3  # the first of two tokens of a span
    learned = training_data(images, KINDS)
    spans = torch.tensor([-1, -2, 0]) % len(
        learned.lengths
    )  # the last image's two, and the first image's first
    tokens = learned.tokens(spans)
    of_last = learned.token_falls[tokens[2:4], : learned.random]
    assert torch.equal(of_last, images[4].token_falls[1:3][:, images[4].rates > 0])
    falls = torch.randn(len(tokens), learned.token_falls.shape[1], generator=torch.Generator().manual_seed(2))

    def expected(kind):
        of_spans, of_tokens, at = [], [], 0
        for span in spans.tolist():
            one = images[int(learned.image[span])]
            wanted = one.rates > 0 if kind == "random" else one.rates == ALONE
            begin = 0 if kind == "random" else learned.random
            subsets = slice(begin, begin + int(wanted.sum()))
            own = range(at, at + int(learned.lengths[span]))
            measured = [learned.token_falls[tokens[token], subsets] for token in own]
            assert all(
                any(torch.equal(of_token, row) for row in one.token_falls[:, wanted]) for of_token in measured
            )
            predicted = [falls[token, subsets] for token in own]
            found = [float(pearsonr(*pair).statistic) for pair in zip(predicted, measured, strict=True)]
            spread = [float(of_token.std(correction=0)) for of_token in measured]
            counts = [each**0.5 * (each > LEAST_OF_TOKEN) for each in spread]
            of_tokens.append(sum(map(operator.mul, found, counts)) / sum(counts))
            of_spans.append(float(pearsonr(sum(predicted), sum(measured)).statistic))
            at = own.stop
        return sum(0.75 * one + 0.25 * other for one, other in zip(of_spans, of_tokens, strict=True)) / 3

    settings = dataclasses.replace(NETWORK, tokens=0.25, ranks=0.0, alone=0.2, across=0.0)
    found = float(agreement(learned, spans, falls, settings))
    within = 0.8 * expected("random") + 0.2 * expected("alone")
    assert found == pytest.approx(within, abs=1e-5)
    # across the spans: all pairs of span and region, and the effects of hiding everything
    assert torch.equal(
        learned.token_falls[tokens[2:4], -1:], images[4].token_falls[1:3][:, images[4].rates == WHOLE]
    )
    of_spans = [sum_spans(each, learned.lengths[spans]) for each in (falls, learned.token_falls[tokens])]
    counts = [images[int(learned.image[span])].subsets.shape[1] for span in spans]
    assert len(set(counts)) > 1
    singly = [
        torch.cat([row[learned.random :][:count] for row, count in zip(each, counts, strict=True)])
        for each in of_spans
    ]
    pairs = pearsonr(*singly).statistic
    whole = pearsonr(*(each[:, -1] for each in of_spans)).statistic
    found = float(agreement(learned, spans, falls, dataclasses.replace(settings, across=0.3)))
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
    image_by_image = []
    most = max(one.subsets.shape[1] for one in images)
    for one in images:
        missing = most - one.subsets.shape[1]
        parts = [one.subsets[one.rates > 0], one.subsets[one.rates == ALONE], one.subsets[one.rates == WHOLE]]
        parts.insert(2, torch.zeros(missing, one.subsets.shape[1]))
        game = estimator.game(choose(one.features, ("odds", "value")).float(), one.log_odds)
        falls = sum_spans(game.falls(torch.cat(parts).float().T), one.lengths)
        image_by_image.append(falls[one.falls[:, one.rates > 0].std(1) > MIN_SPREAD])
    assert len({one.subsets.shape[1] for one in images}) > 1
    expected = torch.cat(image_by_image)
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)
    some = torch.tensor([5, 0, 5])
    torch.testing.assert_close(together.predict(estimator, some), predicted[some])


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
