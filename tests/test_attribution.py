"""What is said of a text, number by number, and how a region's number is shared by its visual tokens."""

import pytest
import torch
from conftest import SPREADS
from hypothesis import given
from hypothesis import strategies as st

from eyeline.attribution import attribute, heat
from eyeline.estimator import Estimator, interval
from eyeline.game import Game, breaks, contributions, evidence, orders

SEEDS = st.integers(0, 2**32 - 1)


def test_everything_is_said_of_one_game_with_each_interval_of_its_own_spread():
    rng = torch.Generator().manual_seed(0)
    game = Game(*(torch.randn(*shape, generator=rng) for shape in ((3, 6), (3, 2, 6), (3, 2), (3, 2), (3,))))
    along = orders(6, 3)
    said = attribute(game, Estimator("", torch.ones(2, 1), *SPREADS, ("odds",)), along)
    assert torch.equal(said.effects, game.alone())
    assert torch.equal(said.contributions, contributions(game, along))
    assert torch.equal(said.whole, game.whole())
    assert not torch.allclose(said.effects, said.contributions, atol=0.01)
    assert torch.equal(said.interval, interval(said.effects, SPREADS[0]))
    assert torch.equal(said.contribution_interval, interval(said.contributions, SPREADS[1]))
    assert (said.evidence, said.breaks) == (evidence(game), breaks(game))
    assert said.shown is said.contributions
    assert float(said.shown.sum()) == pytest.approx(float(said.whole), abs=1e-4)


@given(seed=SEEDS)
def test_the_tokens_of_a_region_add_up_to_its_number_each_by_what_speaks_for_the_text_in_it(seed):
    rng = torch.Generator().manual_seed(seed)
    shown, cells = torch.randn(4, generator=rng), torch.randn(12, generator=rng)
    labels = torch.randint(4, (12,), generator=rng)
    found = heat(shown, cells, labels).tolist()
    for region in range(4):
        own = [at for at in range(12) if labels[at] == region]
        parts = [max(0.0, float(cells[at])) for at in own]
        shares = [part / sum(parts) if any(parts) else 1 / len(own) for part in parts]
        expected = [float(shown[region]) * share for share in shares]
        assert [found[at] for at in own] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_region_in_which_nothing_speaks_for_the_text_is_shared_evenly_and_one_without_tokens_not_at_all():
    found = heat(
        torch.tensor([-2.0, 3.0, 5.0]), torch.tensor([-1.0, 0.0, 4.0, -7.0]), torch.tensor([0, 0, 1, 1])
    )
    assert found.tolist() == [-1.0, -1.0, 3.0, 0.0]
