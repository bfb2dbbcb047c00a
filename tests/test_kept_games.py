"""What is kept of a run's spans, and asked later."""

import pytest
import torch

from eyeline.errors import DataError, RegionError
from eyeline.game import Game, contributions, orders
from eyeline.kept_games import FILE, Games, read_games
from eyeline.links import Links
from eyeline.through import Chances

REGIONS, UNITS = 5, 3


def game(tokens: int, seed: int = 0, linked: bool = True) -> Game:
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    odds = 3 * draw(tokens) if linked else None
    return Game(
        draw(tokens, REGIONS), draw(tokens, UNITS, REGIONS), draw(tokens, UNITS), draw(tokens, UNITS), odds
    ).rounded()


@pytest.fixture
def games() -> Games:
    kept = Games()
    kept.add(0, game(4, 1))
    kept.add(6, game(3, 2))  # the span between was lost
    return kept


@pytest.mark.parametrize("linked", [True, False])
def test_a_run_that_is_read_again_says_the_same_to_the_last_digit(tmp_path, linked):
    kept = Games()
    kept.add(0, game(4, 1, linked))
    kept.add(4, game(3, 2, linked))
    kept.save(tmp_path)
    for ranges in ([(0, 4)], [(2, 6)], [(0, 1), (5, 7)]):
        assert read_games(tmp_path).joint(ranges, [1, 3]) == kept.joint(ranges, [1, 3])


def test_a_joint_fall_is_the_game_of_the_tokens_in_the_range(games):
    found = games.joint([(1, 3)], [0, 2])
    hidden = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0])
    ours = game(4, 1).of(1, 3)
    assert found.fall == pytest.approx(float(ours(hidden[:, None])[0]))
    assert found.effects == pytest.approx(ours.alone().tolist())
    assert found.parts == pytest.approx(float(ours.alone() @ hidden))
    assert found.contributions == pytest.approx(contributions(ours, orders(REGIONS)).tolist())
    assert sum(found.contributions) == pytest.approx(found.whole_image, abs=1e-5)


def test_words_of_several_spans_are_one_text(games):
    both = games.joint([(0, 4), (6, 9)], [4])
    assert both.whole_image == pytest.approx(
        games.joint([(0, 4)]).whole_image + games.joint([(6, 9)]).whole_image, rel=1e-5
    )


def test_hiding_nothing_does_nothing(games):
    assert games.joint([(0, 4)]).fall == 0.0


@pytest.mark.parametrize("ranges", [[(4, 6)], [(3, 7)], [(8, 10)]])
def test_words_whose_span_was_lost_are_told(games, ranges):
    with pytest.raises(DataError, match="not kept"):
        games.joint(ranges)


@pytest.mark.parametrize("region", [-1, REGIONS])
def test_a_region_that_is_none_is_told(games, region):
    with pytest.raises(RegionError, match=f"There is no region {region}; expected some of 0 to 4"):
        games.joint([(0, 4)], [region])


def test_what_an_answer_rests_on_is_told_at_any_moment_of_another_spans_coming(monkeypatch):
    kept = Games(chances=Chances(0.0, 1.0, 1.0, 1.0))
    links = Links(torch.zeros(2, 1, dtype=torch.int), torch.zeros(2, 1))
    kept.add(0, game(2, 1), links)
    before, told = kept.rests_on([(0, 2)]), []
    for kind in (Game, Links):

        def moved(part, device, move=kind.to):
            told.append(kept.rests_on([(0, 2)]))
            return move(part, device)

        monkeypatch.setattr(kind, "to", moved)
    kept.add(2, game(2, 2), links)
    assert told == [before, before]


def test_a_run_without_the_file_says_why(tmp_path):
    with pytest.raises(DataError, match="keeps no numbers to ask about"):
        read_games(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_file_that_is_cut_short_is_told(games, tmp_path, keep):
    games.save(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:keep])
    with pytest.raises(DataError, match="damaged or cut short"):
        read_games(tmp_path)


def test_a_run_without_attribution_keeps_nothing_and_says_so(tmp_path):
    Games().save(tmp_path)
    with pytest.raises(DataError, match="not kept"):
        read_games(tmp_path).joint([(0, 1)])


def test_a_span_of_20_tokens_and_64_regions_takes_at_most_200_kilobytes():
    rng = torch.Generator().manual_seed(0)
    kept = Games()
    kept.add(
        0,
        Game(
            torch.randn(20, 64, generator=rng),
            torch.randn(20, 16, 64),
            torch.randn(20, 16),
            torch.randn(20, 16),
            torch.randn(20),
        ),
    )
    assert len(kept.to_bytes()) < 200_000
