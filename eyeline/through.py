"""From tokens to the answer: the chance that it changes when regions are hidden from the start and the model thinks again.

A thinking model answers from its own thinking: with the text fixed, an answer hardly rests on the image. Its total effect goes
through the tokens in between, and is followed here one token after the other, without a pass through the model. With a set of
regions hidden, token u is written otherwise with the chance

    c[u] = 1 - (1 - p[u]) (1 - sum over earlier v of M[u, v] c[v])

where p[u] = 1 - exp(-fall) is the chance that it is so by what the token itself sees of the image (game.py), and M are its links
to earlier tokens (links.py): squares of their scores, in shares that add up to KEEP, so that what a token copies counts more
than what it only looks at. A fall saturates: past about a nat a token changes, and how far past does not matter.

The answer is reached where the token is that has the largest chance. How likely it is to mean something else then is a logistic
map, fitted on answers that were thought again (rethinking.py): of that chance, and of its share in the largest of any region.
The frame is mediation's (Pearl 2001, "Direct and indirect effects"): direct, through, total.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from eyeline.game import Game
from eyeline.links import Links

KEEP = 0.9  # share of a token's links that carries on
SHARP = 2  # power of the scores of links before they become shares
LEAST = 1e-3  # of a chance and of a share, before their logarithms are taken


@dataclass(frozen=True, slots=True)
class Chances:
    """From what reaches the answer to the chance that it changes, and what a change costs its log-prob."""

    bias: float
    reached: float  # weight of the logit of what reaches the answer
    share: float  # weight of the log of its share in the largest of any region
    cost: float  # nats that the first answer loses in the mean where another is written

    @staticmethod
    def of(card: Mapping[str, Any]) -> "Chances":
        """As an estimator's card has them. Raises `KeyError`, `TypeError` or `ValueError`."""
        return Chances(**{name: float(card[name]) for name in Chances.__dataclass_fields__})

    def to_card(self) -> dict[str, float]:
        return asdict(self)

    def __call__(self, reached: Float[Tensor, " set"], largest: Float[Tensor, ""]) -> Float[Tensor, " set"]:
        """`largest` is what reaches the answer with the one region hidden by which that is most."""
        weights = reached.new_tensor([self.reached, self.share])
        return torch.sigmoid(logistic_inputs(reached, largest) @ weights + self.bias)


def logistic_inputs(reached: Float[Tensor, " set"], largest: Float[Tensor, ""]) -> Float[Tensor, "set 2"]:
    """The logit of what reaches the answer, and the log of its share in the largest of any region."""
    chance = reached.clamp(0, 1)
    share = (chance / largest.clamp(min=LEAST)).clamp(min=LEAST)
    return torch.stack([torch.log((chance + LEAST) / (1 - chance + LEAST)), share.log()], dim=1)


@dataclass(eq=False)
class Chain:
    """The chances c of a trace's tokens for some sets of regions, token after token."""

    sets: Float[Tensor, "region set"]  # 1 where a set has a region
    chances: Float[Tensor, "token set"] = field(init=False)

    def __post_init__(self) -> None:
        self.chances = self.sets.new_zeros(0, self.sets.shape[1])

    def add(self, start: int, game: Game, links: Links) -> None:
        """The tokens from `start` on; those before it that never came change nothing."""
        falls = game.falls(self.sets.to(game.apart)).clamp(min=0)
        seen, sharp = 1 - torch.exp(-falls), links.scores**SHARP
        shares = KEEP * sharp / sharp.sum(1, keepdim=True).clamp(min=1e-12)
        found = falls.new_zeros(start + len(falls), falls.shape[1])
        found[: len(self.chances)] = self.chances[: len(found)]
        for token, (own, share, earlier) in enumerate(zip(seen, shares, links.earlier, strict=True)):
            found[start + token] = 1 - (1 - own) * (1 - share @ found[earlier.long()])
        self.chances = found
