import dataclasses
import math

import pytest
import torch
from conftest import SPREADS, tiny_model

from eyeline.estimator import OF_NETWORK, SURE, WIDTH, Estimator, Network, compress, interval
from eyeline.features import KINDS
from eyeline.fingerprint import fingerprint
from eyeline.game import fall

FEATURES = 3 * 4 * len(KINDS)  # of the tiny models


def logged(values):
    return values.sign() * torch.log1p(values.abs())


def silu(value):
    return value / (1 + math.exp(-value))


def estimator_of(model, **changes):
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(2, FEATURES, generator=rng)
    card = {"model": model.name, "fingerprint": fingerprint(model), "hiding": "pixels", "coverage": 0.9}
    shapes = (FEATURES,), (3, FEATURES), (3, FEATURES), (2, 3), (2, 3)
    network = Network(*(torch.randn(*shape, generator=rng) for shape in shapes))
    return dataclasses.replace(
        Estimator("mine", weights, *SPREADS, KINDS, card=card, network=network), **changes
    )


def test_intervals_lie_around_values_between_the_knots_of_a_spread_and_beyond_them_as_at_the_last():
    spread = torch.tensor([[-1.0, -0.5, 0.5], [0.0, -0.25, 0.25], [2.0, -1.0, 3.0]])
    values = torch.tensor([-1.0, 0.0, 2.0, 1.0, 4.0, -3.0])
    ends = [[-1.5, -0.5], [-0.25, 0.25], [1.0, 5.0], [0.375, 2.625], [3.0, 7.0], [-3.5, -2.5]]
    assert interval(values, spread).tolist() == ends


def test_a_fall_of_log_odds_lowers_the_log_prob_by_what_it_leaves_of_it():
    log_prob = torch.tensor([-0.01, -0.7, -5.0]).double()
    odds = log_prob - torch.log1p(-log_prob.exp())
    scores = torch.linspace(-3, 9, 7).double().repeat(3, 1)
    expected = log_prob[:, None] - torch.nn.functional.logsigmoid(odds[:, None] - scores)
    torch.testing.assert_close(fall(scores, odds), expected)
    torch.testing.assert_close(fall(scores[:, 0], odds), expected[:, 0])
    assert fall(torch.zeros(3), odds.float()).abs().max() < 1e-6


def test_tokens_that_the_model_is_sure_of_have_weights_of_their_own():
    estimator = estimator_of(tiny_model("qwen3_vl"), network=None)
    odds = torch.tensor([-20.0, SURE, SURE + WIDTH, 40.0])
    doubted, sure = estimator.weights
    share = 1 / (1 + math.exp(-1))
    expected = [doubted, (doubted + sure) / 2, (1 - share) * doubted + share * sure, sure]
    torch.testing.assert_close(estimator.of_tokens(odds), torch.stack(expected))
    features = torch.randn(4, 3, FEATURES, generator=torch.Generator().manual_seed(2))
    scores = torch.stack([part @ weights for part, weights in zip(features, expected, strict=True)])
    torch.testing.assert_close(estimator.game(features, odds).scores(torch.eye(3)), scores)
    linear = dataclasses.replace(estimator, weights=doubted[None], link="identity").game(features, odds)
    torch.testing.assert_close(linear.scores(torch.eye(3)), features @ doubted)
    two = torch.tensor([[1.0], [0.0], [1.0]])
    torch.testing.assert_close(linear.scores(two)[:, 0], features[:, [0, 2]].sum(1) @ doubted)


def test_a_network_adds_what_it_sees_in_hidden_regions_and_the_image_and_nothing_for_empty_ones():
    estimator = estimator_of(tiny_model("qwen3_vl"))
    network = estimator.network
    assert network is not None
    features = 3 * torch.randn(2, 4, FEATURES, generator=torch.Generator().manual_seed(2))
    features[:, 2] = 0
    odds = torch.tensor([-20.0, 40.0])  # doubted, sure
    hidden = [[0], [1], [2], [0, 1], [0, 1, 2, 3], [1, 3], []]
    subsets = torch.tensor([[float(region in each) for each in hidden] for region in range(4)])
    linear = dataclasses.replace(estimator, network=None).game(features, odds).scores(subsets)
    game = estimator.game(features, odds)
    added = game.scores(subsets) - linear

    def unit_of(number, token, regions):
        """What one hidden unit says of regions that it sees as one."""
        image = features[token].sum(0) * network.unit
        context = float(network.context[number] @ logged(image) + network.bias[token, number])
        own = sum(
            float(network.inward[number] @ logged(features[token, region] * network.unit))
            for region in regions
        )
        return silu(own + context) - silu(context)

    for token in (0, 1):
        for subset, regions in enumerate(hidden):
            apart = [sum(unit_of(number, token, [region]) for region in regions) for number in (0, 1)]
            units = torch.tensor(
                [*apart, unit_of(2, token, regions)]
            )  # of three units, the last sees them together
            assert float(added[token, subset]) == pytest.approx(
                float(units @ network.outward[token]), rel=1e-4, abs=1e-3
            )
    assert game.scores(subsets)[:, [2, 6]].tolist() == [[0, 0], [0, 0]]
    assert not torch.allclose(added[:, 3], added[:, 0] + added[:, 1], atol=0.01)
    of_each = subsets.expand(2, -1, -1)  # as if each token had subsets of its own
    torch.testing.assert_close(game.scores(of_each), linear + added)
    seen = compress(features, network.unit)
    torch.testing.assert_close(estimator.game(features, odds, seen).scores(subsets), linear + added)


def test_the_layers_of_an_estimator_are_those_with_any_weight_and_at_least_one():
    whole = estimator_of(tiny_model("qwen3_vl"))
    assert whole.network is not None
    assert whole.layers(3) == [0, 1, 2]
    assert whole.of_layers([0, 1, 2], 3) is whole
    zero = Network(
        whole.network.unit, *(torch.zeros_like(getattr(whole.network, name)) for name in OF_NETWORK[1:])
    )
    nothing = dataclasses.replace(whole, weights=torch.zeros(2, FEATURES), network=zero)
    assert nothing.layers(3) == [0]
    assert dataclasses.replace(nothing, network=None).layers(3) == [0]
    for column in range(FEATURES):  # kind-major, then layer-major, four heads a layer
        expected = [column % 12 // 4]
        here = torch.arange(FEATURES) == column
        linear = dataclasses.replace(nothing, weights=-1.0 * here.repeat(2, 1), network=None)
        assert linear.layers(3) == expected
        for name in ("inward", "context"):
            one = dataclasses.replace(zero, **{name: here.repeat(3, 1).float()})
            assert dataclasses.replace(nothing, network=one).layers(3) == expected
            dead = dataclasses.replace(one, unit=(~here).float())
            assert dataclasses.replace(nothing, network=dead).layers(3) == [0]


@pytest.mark.parametrize("layers", [[1], [0, 2]])
def test_with_some_layers_an_estimator_scores_their_features_as_it_would_where_others_are_zero(layers):
    whole = estimator_of(tiny_model("qwen3_vl"))
    some = whole.of_layers(layers, 3)
    assert (some.id, some.kinds, some.link, some.card) == (whole.id, whole.kinds, whole.link, whole.card)
    features = 3 * torch.randn(4, 5, len(KINDS), 3, 4, generator=torch.Generator().manual_seed(2))
    odds, subsets = torch.tensor([-20.0, 0.0, 5.0, 40.0]), torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 1, 1]])
    subsets = torch.nn.functional.pad(subsets, (0, 0, 0, 2))
    alone = torch.zeros_like(features)
    alone[..., layers, :] = features[..., layers, :]
    torch.testing.assert_close(
        some.game(features[..., layers, :].flatten(2), odds).scores(subsets),
        whole.game(alone.flatten(2), odds).scores(subsets),
    )
    assert some.weights.shape == (2, len(KINDS) * len(layers) * 4)


def test_a_game_has_the_log_odds_of_its_tokens_and_with_the_identity_none():
    estimator = estimator_of(tiny_model("qwen3_vl"), network=None)
    features, odds = torch.randn(3, 2, FEATURES), torch.tensor([0.0, 4.0, -2.0])
    game, subsets = estimator.game(features, odds), torch.eye(2)
    torch.testing.assert_close(game.falls(subsets), fall(game.scores(subsets), odds))
    linear = dataclasses.replace(estimator, link="identity").game(features, odds)
    torch.testing.assert_close(linear.falls(subsets), linear.scores(subsets))
