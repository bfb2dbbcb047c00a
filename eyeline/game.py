"""The game of a text: by how much its log-prob falls with any set of an image's regions hidden, as an estimator predicts it.

v(S) is the predicted fall with the set S hidden, nats; estimator.py makes the game of what is read of the tokens, and all
that is said of a text comes from it: effects are v of single regions, `whole` is v of all, contributions are v's Shapley
values, evidence and breaks are greedy sets. No pass through the model is needed for any of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import silu, softplus

PERMUTATIONS = 16  # antithetic pairs: how many, and what error they leave, is measured (docs/log.md)
ENOUGH = 0.9  # share of the whole image's fall that evidence keeps
NOTHING = 0.05  # nats: a text that loses less with everything hidden rests on nothing of the image
BREAKS = 5  # regions that are named at least
EVENLY = 0.5  # share of what is measured and not predicted that single regions have
STEEP = 12.0  # how late the rest of it is lost: a unit that says nothing until half of the regions are hidden
LEAST = 1e-6  # nats, minus a log-prob
AT_ONCE = 2**22  # numbers worked out together: 16 MiB


def fall(scores: Float[Tensor, "token ..."], log_odds: Float[Tensor, " token"]) -> Float[Tensor, "token ..."]:
    """By how much a token's log-prob falls, nats, where its log-odds fall from `log_odds` by a score; 0 for 0.

    A token that the model is sure of stays likely until its log-odds have fallen far, and then falls by all of the rest.
    """
    odds = log_odds.view(-1, *[1] * (scores.ndim - 1))
    return softplus(scores - odds) - softplus(-odds)


@dataclass(frozen=True, eq=False)
class Game:
    """What hiding regions takes off the log-odds of each token of a text: part by part, and by units that see them together.

    With h the set's hidden regions and f(z) = silu(z + rest) - silu(rest), a token's score is

        apart . h  +  outward . f(together h)

    and its log-prob falls by what that leaves (`fall`); without `log_odds`, of the link `identity`, by the score itself.
    """

    apart: Float[Tensor, "token region"]  # nats of log-odds
    together: Float[Tensor, "token unit region"]  # what each region adds to the input of a unit
    rest: Float[Tensor, "token unit"]  # a unit's input with nothing hidden
    outward: Float[Tensor, "token unit"]  # nats of log-odds for each unit of its output
    log_odds: Float[Tensor, " token"] | None  # of the written tokens, nats

    @property
    def regions(self) -> int:
        return self.apart.shape[1]

    def to(self, device: torch.device) -> "Game":
        return self._each(lambda part: part.to(device))

    def of(self, start: int, end: int) -> "Game":
        """That of some of the tokens, [start, end)."""
        return self._each(lambda part: part[start:end])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Game":
        parts = ("apart", "together", "rest", "outward", "log_odds")
        return replace(self, **{
            name: change(part) for name in parts if (part := getattr(self, name)) is not None
        })  # fmt: skip

    def rounded(self) -> "Game":
        """With what the units see in half precision, as games are kept; so that whoever asks later gets the same numbers."""
        most = torch.finfo(torch.float16).max
        return replace(self, together=self.together.clamp(-most, most).half().float())

    def with_whole(self, falls: Float[Tensor, " token"]) -> "Game":
        """The game in which hiding everything takes `falls` off each token's log-prob, as was measured.

        Of what is missing in a token's score EVENLY is shared by all regions; the rest is lost only where most of them are
        hidden, as what is seen in several places is.
        """
        missing = self.unlinked(falls) - self.scores(self.apart.new_ones(self.regions, 1))[:, 0]
        tokens, steep = len(missing), self.apart.new_tensor((STEEP, -STEEP / 2))
        most = silu(steep.sum()) - silu(steep[1])
        return replace(
            self,
            apart=self.apart + (EVENLY * missing / self.regions)[:, None],
            together=torch.cat(
                [self.together, (steep[0] / self.regions).expand(tokens, 1, self.regions)], dim=1
            ),
            rest=torch.cat([self.rest, steep[1].expand(tokens, 1)], dim=1),
            outward=torch.cat([self.outward, ((1 - EVENLY) * missing / most)[:, None]], dim=1),
        )

    def scores(self, hidden: Float[Tensor, "*token region subset"]) -> Float[Tensor, "token subset"]:
        """By how much hiding each subset lowers each token's log-odds, nats; 1 where a subset has a region."""
        apart = (self.apart[:, None] @ hidden)[:, 0]
        return apart + self._of_units(self.together @ hidden)

    def falls(self, hidden: Float[Tensor, "*token region subset"]) -> Float[Tensor, "token subset"]:
        """By how much each token's log-prob falls, nats."""
        return self.linked(self.scores(hidden))

    def __call__(self, hidden: Float[Tensor, "region subset"]) -> Float[Tensor, " subset"]:
        """v: by how much the text's log-prob falls with each subset hidden, nats."""
        at_once = max(1, AT_ONCE // max(1, self.together[..., 0].numel()))
        return torch.cat([self.falls(some).sum(0) for some in hidden.split(at_once, dim=1)])

    def alone(self) -> Float[Tensor, " region"]:
        """v of each region by itself: the effects."""
        return self.linked(self.apart + self._of_units(self.together)).sum(0)

    def whole(self) -> Float[Tensor, ""]:
        """v of all regions."""
        return self(self.apart.new_ones(self.regions, 1))[0]

    def _of_units(self, inputs: Float[Tensor, "token unit ..."]) -> Float[Tensor, "token ..."]:
        rest = self.rest.view(*self.rest.shape, *[1] * (inputs.ndim - 2))
        return torch.einsum("th,th...->t...", self.outward, silu(inputs + rest) - silu(rest))

    def linked(self, scores: Float[Tensor, "token ..."]) -> Float[Tensor, "token ..."]:
        """What scores do to log-probs: by how much each token's falls, nats."""
        return scores if self.log_odds is None else fall(scores, self.log_odds)

    def unlinked(self, falls: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
        """The scores that take so much off each token's log-prob."""
        if self.log_odds is None:
            return falls
        loss = (falls + softplus(-self.log_odds)).clamp(min=LEAST)  # minus the log-prob that is left
        return self.log_odds + loss + torch.log1p(-torch.exp(-loss))


def contributions(game: Game, orders: Int[Tensor, "order region"]) -> Float[Tensor, " region"]:
    """Each region's mean share of v over some orders in which regions are hidden one after the other, and over the same reversed.

    Shapley values (Shapley 1953, "A value for n-person games") by sampled permutations (Castro et al. 2009, Comput. Oper.
    Res. 36), antithetic pairs (Mitchell et al. 2022, arXiv 2104.12199, section 4.1). In every order shares add up to v of
    all, and so they do here.
    """
    orders = orders.to(game.apart.device)
    return both_ways(orders, _along(game, orders), _along(game, orders.flip(1))).mean(0)


def orders(regions: int, count: int = PERMUTATIONS, seed: int = 0) -> Int[Tensor, "order region"]:
    """Random orders of so many regions, always the same."""
    rng = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(regions, generator=rng) for _ in range(count)])


def both_ways(
    orders: Int[Tensor, "order region"],
    after: Float[Tensor, "order step *text"],
    reversed_after: Float[Tensor, "order step *text"],
) -> Float[Tensor, "order region *text"]:
    """The mean share of each region in v, along each order and along its reverse; `after` is v after each step."""

    def shares(orders: Int[Tensor, "order region"], after: Tensor) -> Tensor:
        steps = torch.diff(after, dim=1, prepend=torch.zeros_like(after[:, :1]))
        place = orders.argsort(1).view(*orders.shape, *[1] * (steps.ndim - 2)).expand_as(steps)
        return steps.gather(1, place)

    return (shares(orders, after) + shares(orders.flip(1), reversed_after)) / 2


def _along(game: Game, orders: Int[Tensor, "order region"]) -> Float[Tensor, "order step"]:
    """v after each step of some orders."""
    at_once = max(1, AT_ONCE // max(1, game.together.numel()))
    found = []
    for some in orders.split(at_once):
        apart = game.apart[:, some].cumsum(-1)  # (token, order, step)
        together = game.together[:, :, some].cumsum(-1)
        found.append(game.linked(apart + game._of_units(together)).sum(0))
    return torch.cat(found)


def evidence(game: Game) -> list[tuple[int, float]]:
    """The smallest set found of regions that, shown alone with all others hidden, keeps ENOUGH of v of all.

    Greedy: each next region is the one that, shown as well, keeps most. Regions in the order in which they are found, with
    what is kept after each, nats; none where the text loses less than NOTHING without the image.
    """
    whole = float(game.whole())
    found = []
    for region, hidden in _greedy(game, showing=True):
        if whole < NOTHING or (found and found[-1][1] >= ENOUGH * whole):
            break
        found.append((region, whole - hidden))
    return found


def breaks(game: Game, count: int = BREAKS) -> list[tuple[int, float]]:
    """Regions in the order in which hiding them together costs most: each next one makes v largest; with v after each, nats.

    None where the text loses less than NOTHING without the image.
    """
    if float(game.whole()) < NOTHING:
        return []
    return [step for step, _ in zip(_greedy(game, showing=False), range(count), strict=False)]


def hiding_order(game: Game) -> list[int]:
    """All regions in the order in which hiding them together costs most."""
    return [region for region, _ in _greedy(game, showing=False)]


def evidence_order(game: Game) -> list[int]:
    """All regions in the order in which showing them keeps most."""
    return [region for region, _ in _greedy(game, showing=True)]


def _greedy(game: Game, *, showing: bool) -> Iterator[tuple[int, float]]:
    """Region after region, and v with those so far hidden, or with all but those hidden where they are shown."""
    hidden = game.apart.new_full((game.regions,), float(showing))
    sign = -1.0 if showing else 1.0
    for _ in range(game.regions):
        left = (hidden == float(showing)).nonzero()[:, 0]
        next_to = hidden[:, None].repeat(1, len(left))
        next_to[left, torch.arange(len(left), device=left.device)] = float(not showing)
        values = game(next_to)
        best = int((sign * values).argmax())
        hidden[left[best]] = float(not showing)
        yield int(left[best]), float(values[best])
