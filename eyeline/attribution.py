"""What is said of a text's regions: everything that an event carries of its game, worked out in one place.

Streams, saved runs, evaluation and server all get their numbers here, or from the game itself.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.estimator import Estimator, interval
from eyeline.game import Game, breaks, contributions, evidence


@dataclass(frozen=True, eq=False)
class Attribution:
    """How a text rests on each region, and on several together; nats."""

    effects: Float[Tensor, " region"]  # fall with each region alone hidden
    interval: Float[Tensor, "region 2"] | None  # None where that is not known
    contributions: Float[Tensor, " region"]  # Shapley values; they add up to `whole`
    contribution_interval: Float[Tensor, "region 2"] | None
    evidence: list[tuple[int, float]]
    breaks: list[tuple[int, float]]
    whole: Float[Tensor, ""]  # fall with everything hidden

    @property
    def shown(self) -> Float[Tensor, " region"]:
        """The number of each region that heat and bars show."""
        return self.contributions


def attribute(game: Game, estimator: Estimator, orders: Int[Tensor, "order region"]) -> Attribution:
    """All numbers of a text; `orders` are those that contributions are worked out along."""
    effects, parts = game.alone(), contributions(game, orders)
    ends = None, None
    if estimator.has_intervals:
        ends = interval(effects, estimator.effect_spread), interval(parts, estimator.contribution_spread)
    return Attribution(effects, ends[0], parts, ends[1], evidence(game), breaks(game), game.whole())


def heat(
    shown: Float[Tensor, " region"], cells: Float[Tensor, " patch"], labels: Int[Tensor, " patch"]
) -> Float[Tensor, " patch"]:
    """A region's number, shared by its visual tokens as what speaks for the text in each: scores above 0, or evenly."""
    parts = cells.clamp(min=0)
    sums = parts.new_zeros(len(shown)).index_add_(0, labels, parts)
    sizes = torch.bincount(labels, minlength=len(shown)).clamp(min=1)
    even = (sums <= 0)[labels]
    return shown[labels] * torch.where(even, 1 / sizes[labels], parts / sums.clamp(min=1e-30)[labels])
