"""The earlier tokens that each token of a text takes most from, and the game whose players are earlier stretches of the text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from eyeline.game import Game

LINKS = 64  # earlier tokens that are kept of each


@dataclass(frozen=True, eq=False)
class Links:
    """The earlier tokens that each token takes most from: scores above 0, by how much hiding them lowers its log-odds."""

    earlier: Int[Tensor, "token link"]  # positions in the generated ids
    scores: Float[Tensor, "token link"]  # nats of log-odds; 0 where there are fewer

    def to(self, device: torch.device) -> "Links":
        return Links(self.earlier.to(device), self.scores.to(device))

    def of(self, start: int, end: int) -> "Links":
        """Those of some of the tokens, [start, end)."""
        return Links(self.earlier[start:end], self.scores[start:end])

    def rounded(self) -> "Links":
        """In half precision, as they are kept; so that whoever asks later gets the same numbers."""
        return Links(self.earlier, self.scores.clamp(max=torch.finfo(torch.float16).max).half().float())


def strongest(scores: Float[Tensor, "token earlier"], count: int = LINKS) -> Links:
    """The links of some tokens; always `count` of them, filled up with nothing."""
    positive = pad(scores.clamp(min=0), (0, max(0, count - scores.shape[1])))
    found = positive.topk(count, dim=1)
    return Links(found.indices.where(found.values > 0, 0).int(), found.values)


def sources_game(links: Links, ranges: Sequence[tuple[int, int]], log_odds: Float[Tensor, " token"]) -> Game:
    """The game of a text whose players are stretches [start, end) of the tokens before it, the image visible all the while.

    The stretches are in order and do not overlap.
    """
    starts, ends = torch.tensor(ranges, device=links.earlier.device).T.contiguous()
    earlier = links.earlier.long()
    player = torch.searchsorted(starts, earlier, right=True) - 1
    inside = (player >= 0) & (earlier < ends[player])
    apart = links.scores.new_zeros(len(earlier), len(ranges))
    apart.scatter_add_(1, player.clamp(min=0), links.scores * inside)
    none = apart.new_zeros(len(apart), 0)
    return Game(apart, apart[:, None][:, :0], none, none, log_odds)
