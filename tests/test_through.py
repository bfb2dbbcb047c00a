"""The chain from regions through the thinking to the answer, worked out by hand; and what is kept of it."""

import dataclasses
import math

import pytest
import torch
from test_kept_games import REGIONS, game

from eyeline.errors import DataError, RegionError
from eyeline.game import Game
from eyeline.kept_games import Games, read_games
from eyeline.links import Links
from eyeline.through import KEEP, Chain, Chances

CHANCES = Chances(bias=0.5, reached=1.5, share=0.7, cost=9.0)


def plain(*falls):
    """Tokens that lose so many nats with each region hidden, whatever else is."""
    apart = torch.tensor(falls)
    none = torch.zeros(len(apart), 0)
    return Game(apart, apart[:, None][:, :0], none, none, None)


def links(*rows, count=2):
    """Of each token pairs of an earlier token and a score."""
    padded = [[*row, *[(0, 0.0)] * (count - len(row))] for row in rows]
    return Links(
        torch.tensor([[at for at, _ in row] for row in padded]),
        torch.tensor([[score for _, score in row] for row in padded]),
    )


def test_a_token_changes_by_what_it_sees_itself_or_by_the_tokens_that_it_takes_from():
    chain = Chain(torch.eye(2))
    chain.add(0, plain([1.0, 0.0], [0.0, 2.0]), links([], []))
    chain.add(2, plain([0.0, 0.0], [0.5, 0.0]), links([(0, 1.0), (1, 2.0)], [(2, 4.0)]))
    first, second = 1 - math.exp(-1), 1 - math.exp(-2)
    third = KEEP * first * 1 / 5, KEEP * second * 4 / 5  # squares of scores, in shares
    own = 1 - math.exp(-0.5)
    fourth = 1 - (1 - own) * (1 - KEEP * third[0]), KEEP * third[1]
    expected = torch.tensor([[first, 0], [0, second], third, fourth])
    torch.testing.assert_close(chain.chances, expected, rtol=1e-5, atol=1e-6)


def test_tokens_that_never_came_change_nothing_and_falls_below_0_are_none():
    chain = Chain(torch.eye(1))
    chain.add(2, plain([-3.0], [1.0]), links([(0, 1.0)], [(2, 1.0)]))
    assert chain.chances[:3, 0].tolist() == [0, 0, 0]
    assert chain.chances[3, 0] == pytest.approx(1 - math.exp(-1))


def test_a_chance_is_a_logistic_map_of_what_reaches_the_answer_and_of_its_share_in_the_largest():
    found = CHANCES(torch.tensor([0.5, 0.25]), torch.tensor(0.5))
    logits = 0.5 + 1.5 * 0.0, 0.5 + 1.5 * math.log(0.251 / 0.751) + 0.7 * math.log(0.5)
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], rel=1e-5)
    assert Chances.of(CHANCES.to_card()) == CHANCES
    with pytest.raises(KeyError):
        Chances.of({"bias": 1.0})


@pytest.fixture
def games():
    kept = Games(chances=CHANCES)
    rng = torch.Generator().manual_seed(1)
    for number, (start, tokens) in enumerate([(0, 4), (4, 3), (7, 2)]):
        earlier = torch.stack([torch.arange(8) % max(1, start + at) for at in range(tokens)])
        scores = torch.rand(tokens, 8, generator=rng) * (start > 0)
        kept.add(start, game(tokens, number), Links(earlier.int(), scores).rounded(), number + 1)
    return kept


def test_what_an_answer_rests_on_is_the_same_of_a_run_that_is_read_again(games, tmp_path):
    games.save(tmp_path)
    again = read_games(tmp_path)
    assert again.rests_on([(7, 9)]) == games.rests_on([(7, 9)])
    assert again.sources([(4, 7)]) == games.sources([(4, 7)])
    assert again.rests_on([(7, 9)], [[0, 3]]) == games.rests_on([(7, 9)], [[0, 3]])


def test_regions_asked_as_sets_of_one_are_those_that_the_event_carries(games):
    every = games.rests_on([(7, 9)])
    asked = games.rests_on([(7, 9)], [[region] for region in range(REGIONS)])
    assert asked.changes == pytest.approx(every.changes, abs=1e-6)
    assert asked.direct == pytest.approx(every.direct, abs=1e-5)
    for direct, total, chance in zip(every.direct, every.total, every.changes, strict=True):
        assert total == pytest.approx(direct + chance * CHANCES.cost, abs=1e-5)
    assert min(every.changes) >= 0
    assert max((*every.changes, every.whole)) <= 1


def test_sources_are_earlier_spans_by_index_the_largest_first(games):
    found = games.sources([(7, 9)])
    assert {place for place, _ in found} <= {1, 2}
    sizes = [nats for _, nats in found]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0
    assert games.sources([(0, 4)]) == ()


def test_what_cannot_be_said_is_refused_with_a_sentence(games):
    with pytest.raises(DataError, match="There is no answer"):
        games.rests_on([])
    with pytest.raises(RegionError, match="There is no region 9; expected some of 0 to 4"):
        games.rests_on([(7, 9)], [[9]])
    for less in (dataclasses.replace(games, chances=None), dataclasses.replace(games, links=[])):
        with pytest.raises(DataError, match="ask the question again"):
            less.rests_on([(7, 9)])
