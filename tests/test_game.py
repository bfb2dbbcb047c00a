"""The predicted game, and what follows from it, against brute force."""

from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eyeline.estimator import Estimator
from eyeline.game import (
    ENOUGH,
    NOTHING,
    Game,
    both_ways,
    breaks,
    contributions,
    evidence,
    evidence_order,
    fall,
    hiding_order,
    orders,
)

seeds = st.integers(0, 2**32 - 1)


def game_of(seed: int, tokens: int = 3, regions: int = 4, units: int = 2, linked: bool = True) -> Game:
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng).double()

    odds = 3 * draw(tokens) if linked else None
    return Game(
        draw(tokens, regions), draw(tokens, units, regions), draw(tokens, units), draw(tokens, units), odds
    )


def v(game: Game, hidden) -> float:
    column = torch.zeros(game.regions, 1).double()
    column[list(hidden)] = 1
    return float(game(column)[0])


@given(seed=seeds)
def test_effects_are_the_falls_of_single_regions_and_the_whole_that_of_all(seed):
    game = game_of(seed)
    assert v(game, []) == 0
    assert game.alone().tolist() == pytest.approx([v(game, [k]) for k in range(4)])
    assert float(game.whole()) == pytest.approx(v(game, range(4)))


@given(seed=seeds, linked=st.booleans())
def test_contributions_along_all_orders_are_shapley_values(seed, linked):
    game = game_of(seed, linked=linked)
    every = torch.tensor(list(permutations(range(4))))
    shapley = []
    for region in range(4):
        others = [each for each in range(4) if each != region]
        weights = {0: 1 / 4, 1: 1 / 12, 2: 1 / 12, 3: 1 / 4}
        shapley.append(sum(
            weights[size] * (v(game, [*some, region]) - v(game, some))
            for size in range(4) for some in combinations(others, size)
        ))  # fmt: skip
    assert contributions(game, every).tolist() == pytest.approx(shapley, abs=1e-9)


@given(seed=seeds, count=st.integers(1, 5), regions=st.integers(1, 7))
def test_contributions_add_up_to_the_whole_whatever_the_orders(seed, count, regions):
    game = game_of(seed, regions=regions)
    found = contributions(game, orders(regions, count, seed))
    assert float(found.sum()) == pytest.approx(float(game.whole()), abs=1e-9)


def test_of_a_game_that_adds_up_contributions_are_effects():
    game = game_of(0, units=0, linked=False)
    torch.testing.assert_close(contributions(game, orders(4, 1)), game.alone())


@given(seed=seeds, linked=st.booleans())
def test_with_a_measured_whole_everything_hidden_takes_that_and_nothing_hidden_nothing(seed, linked):
    game = game_of(seed, linked=linked)
    falls = torch.rand(3, generator=torch.Generator().manual_seed(seed)).double() * 5 - 0.5
    if linked:  # no log-prob is above 0
        falls = falls.clamp(min=-0.9 * torch.nn.functional.softplus(-game.log_odds))
    measured = game.with_whole(falls)
    assert float(measured.whole()) == pytest.approx(float(falls.sum()), abs=1e-3)
    assert v(measured, []) == 0
    assert float(contributions(measured, orders(4)).sum()) == pytest.approx(float(falls.sum()), abs=1e-3)


def test_a_whole_that_is_as_predicted_changes_nothing():
    game = game_of(3)
    same = game.with_whole(game.falls(torch.ones(4, 1).double())[:, 0])
    assert same.alone().tolist() == pytest.approx(game.alone().tolist(), abs=1e-4)


def test_what_no_region_explains_is_half_shared_and_half_lost_where_most_are_hidden():
    nothing = torch.zeros(1, 4).double()
    game = Game(nothing, torch.zeros(1, 0, 4).double(), nothing[:, :0], nothing[:, :0], None)
    measured = game.with_whole(torch.tensor([8.0]).double())
    assert [v(measured, range(count)) for count in range(5)] == pytest.approx([0, 1, 2, 5, 8], abs=0.3)


@given(seed=seeds)
def test_the_order_of_the_regions_changes_nothing(seed):
    game = game_of(seed)
    moved = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    other = Game(game.apart[:, moved], game.together[:, :, moved], game.rest, game.outward, game.log_odds)
    place = moved.argsort()
    torch.testing.assert_close(other.alone()[place], game.alone())
    every = torch.tensor(list(permutations(range(4))))
    torch.testing.assert_close(contributions(other, every)[place], contributions(game, every))


@given(seed=seeds)
def test_the_parts_of_a_text_add_up_to_it(seed):
    game, hidden = (
        game_of(seed, tokens=5),
        torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 1]]).double(),
    )
    torch.testing.assert_close(game.of(0, 2)(hidden) + game.of(2, 5)(hidden), game(hidden))


@given(seed=seeds)
def test_each_break_is_the_region_that_costs_most_beside_those_before_it(seed):
    game = game_of(seed, regions=6)
    if float(game.whole()) < NOTHING:
        return
    hidden: list[int] = []
    for region, fallen in breaks(game, 4):
        costs = {k: v(game, [*hidden, k]) for k in range(6) if k not in hidden}
        assert costs[region] == pytest.approx(max(costs.values()))
        assert fallen == pytest.approx(costs[region])
        hidden.append(region)
    assert hiding_order(game)[:4] == hidden
    assert len(breaks(game)) == 5


@given(seed=seeds)
def test_evidence_keeps_enough_of_the_whole_and_nothing_shorter_does(seed):
    game = game_of(seed, regions=6)
    whole, found = float(game.whole()), evidence(game)
    shown: list[int] = []
    for region, kept in found:
        left = {k: whole - v(game, set(range(6)) - {*shown, k}) for k in range(6) if k not in shown}
        assert left[region] == pytest.approx(max(left.values()))
        assert kept == pytest.approx(left[region])
        shown.append(region)
    if whole < NOTHING:
        assert found == breaks(game) == []
    else:
        assert found[-1][1] >= ENOUGH * whole - 1e-9
        assert all(kept < ENOUGH * whole for _, kept in found[:-1])
        assert evidence_order(game)[: len(shown)] == shown


def test_a_rounded_game_is_its_own_rounding():
    game = game_of(3)
    once = Game(
        *(part.float() for part in (game.apart, 1e6 * game.together, game.rest, game.outward, game.log_odds))
    )
    rounded = once.rounded()
    assert torch.equal(rounded.together, rounded.rounded().together)
    assert rounded.together.isfinite().all()
    assert torch.equal(rounded.apart, once.apart)


def test_orders_are_always_the_same_and_hold_every_region_once():
    found = orders(9, 5)
    assert torch.equal(found, orders(9, 5))
    assert torch.equal(found.sort(1).values, torch.arange(9).expand(5, -1))
    assert len({tuple(order) for order in found.tolist()}) == 5


def test_shares_along_an_order_and_its_reverse_are_averaged():
    order = torch.tensor([[2, 0, 1]])
    along, back = torch.tensor([[1.0, 3.0, 6.0]]), torch.tensor([[2.0, 2.5, 6.0]])
    assert both_ways(order, along, back).tolist() == [[(2 + 0.5) / 2, (3 + 2) / 2, (1 + 3.5) / 2]]


def test_many_subsets_are_worked_out_in_parts_with_the_same_result(monkeypatch):
    game = game_of(1, regions=6)
    subsets = (torch.rand(6, 50, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    whole, parts = game(subsets), contributions(game, orders(6))
    monkeypatch.setattr("eyeline.game.AT_ONCE", 1)
    torch.testing.assert_close(game(subsets), whole)
    torch.testing.assert_close(contributions(game, orders(6)), parts)


def test_an_estimator_without_a_network_makes_a_game_of_parts_alone():
    spread = torch.tensor([[0.0, -1.0, 1.0], [1.0, -1.0, 1.0]])
    estimator = Estimator("", torch.ones(2, 3), spread, spread, ("odds",))
    game = estimator.game(torch.ones(2, 4, 3), torch.tensor([0.0, 9.0]))
    assert game.together.shape == (2, 0, 4)
    torch.testing.assert_close(
        game.falls(torch.eye(4)), fall(torch.full((2, 4), 3.0), torch.tensor([0.0, 9.0]))
    )
    assert torch.isfinite(contributions(game, orders(4))).all()


def test_a_text_that_loses_next_to_nothing_has_no_evidence_and_no_breaks():
    game = Game(
        torch.full((1, 4), NOTHING / 4), torch.zeros(1, 1, 4), torch.zeros(1, 1), torch.zeros(1, 1), None
    )
    assert len(evidence(game)) == 4
    assert len(breaks(game)) == 4
    less = replace(game, apart=game.apart * 0.99)
    assert evidence(less) == breaks(less) == []
    assert sorted(evidence_order(less)) == sorted(hiding_order(less)) == [0, 1, 2, 3]  # what evaluations read
