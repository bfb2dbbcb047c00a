"""Whether a sentence that states something of the image is grounded in it: directly, or through what was read from it before.

Its truth is measured: a sentence is grounded where it loses more than TRUE nats with the whole image and all earlier grounded
sentences hidden from it together. Predicted is the same fall, from the games and links that are kept: hidden regions and
hidden earlier text lower a token's log-odds by the sum of what each does. A sentence that the model itself doubts, such as one
that speaks against the image, is credited with less.
"""

from collections.abc import Sequence

import torch

from eyeline.game import Game, fall
from eyeline.links import Links

TRUE = 1.0  # nats of measured fall
# Nats of predicted fall beyond doubt: above the first it is grounded, below the second not, between nobody knows (docs/log.md)
ENOUGH, LITTLE = 1.5, 0.1
DOUBT = 0.5  # of minus its log-prob


class Grounding:
    """Follows a trace, span by span in order, and keeps which of them are grounded."""

    def __init__(self) -> None:
        self.grounded: list[tuple[int, int]] = []  # token positions [start, end)

    def add(self, start: int, game: Game, links: Links, log_prob: float) -> bool | None:
        """Whether the span from `start` on is grounded, by what is predicted of it; None where that cannot be told.

        `log_prob`: of its tokens, nats.
        """
        found = support(game, links, self.grounded) + DOUBT * log_prob
        if found > ENOUGH:
            self.grounded.append((start, start + len(game.apart)))
            return True
        return False if found < LITTLE else None


def support(game: Game, links: Links, grounded: Sequence[tuple[int, int]]) -> float:
    """The predicted fall of a text with the whole image and some stretches of earlier text hidden from it, nats."""
    assert game.log_odds is not None, "links are read with an estimator of log-odds"
    hidden = torch.zeros_like(links.earlier, dtype=torch.bool)
    for start, end in grounded:
        hidden |= (links.earlier >= start) & (links.earlier < end)
    everything = game.scores(game.apart.new_ones(game.regions, 1))[:, 0]
    return float(fall((everything + (links.scores * hidden).sum(1))[:, None], game.log_odds).sum())
