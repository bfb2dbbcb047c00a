"""A generation's spans, one after the other, to what is said of them: the worker's part of a stream.

It reads the images once, and of each finished span what the capture has kept (features.py); an estimator makes a game of
that (game.py), and attribution.py says what follows from it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from eyeline.attribution import Attribution, attribute, heat
from eyeline.blind import Blind
from eyeline.capture import AttentionCapture
from eyeline.earlier import EarlierText
from eyeline.estimator import Estimator
from eyeline.events import SpanAttribution, Steps
from eyeline.features import AT_ONCE, own_parts, read_image, read_steps, spread_parts
from eyeline.game import Game, orders
from eyeline.kept_games import DECIMALS, joined, rounded
from eyeline.leak import fill_regions, spreads
from eyeline.links import Links
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span


@dataclass(frozen=True, eq=False)
class Tokens:
    """What is read of some tokens from `start` on, of each by itself."""

    start: int
    log_probs: Float[Tensor, " token"]  # nats
    regions: Float[Tensor, "token region"]  # attention to each, where there is no estimator
    cells: Float[Tensor, "token patch"]
    game: Game | None
    links: Links | None

    @property
    def end(self) -> int:
        return self.start + len(self.log_probs)

    def between(self, start: int, end: int) -> "Tokens":
        """Those of them that are in [start, end)."""
        low, high = max(start - self.start, 0), max(min(end, self.end) - self.start, 0)
        return Tokens(
            self.start + low, self.log_probs[low:high], self.regions[low:high], self.cells[low:high],
            None if self.game is None else self.game.of(low, high),
            None if self.links is None else self.links.of(low, high),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ReadSpan:
    """What is known of one span."""

    said: Attribution | None  # None where there is no estimator
    game: Game | None
    shown: Float[Tensor, " region"]  # the number that heat and bars show: of `said`, or shares of attention
    heat: Float[Tensor, " patch"]  # the same by visual tokens
    log_probs: Float[Tensor, " token"]  # nats
    links: Links | None = None  # to earlier tokens, where the estimator knows them


class Reader:
    """Reads the spans of one generation, once its prompt has been read.

    Making one is quick. What takes passes of the model, the leak map and the image's tokens read again without each region,
    is worked out by `measure_leak`; without it regions have their own visual tokens. `measure_whole`: the text is read once more
    without its images, so that what hiding all of them does is measured.
    """

    def __init__(
        self, model: Model, inputs: Inputs, capture: AttentionCapture, regions: Regions, estimator: Estimator | None,
        sources: bool = True, measure_whole: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.inputs, self.capture, self.regions = model, inputs, capture, regions
        self.labels = regions.of_patch.to(model.device)
        self.image = read_image(model, capture)
        self.orders = orders(regions.count).to(model.device)
        self.parts = own_parts(self.labels, regions.count)
        self.estimator = estimator
        if estimator is not None:
            self.estimator = estimator.of_layers(capture.layers, len(model.adapter.layers(model.hf)))
        known = sources and estimator is not None and estimator.text is not None
        whole = not any(model.adapter.sliding_windows(model.hf))  # a window lets go of earlier text
        self.earlier = EarlierText(model, capture) if known and whole else None
        self.measure_whole, self.blind = measure_whole, None
        self._ahead: list[Tokens] = []  # read before their span has ended, in order
        self.end = 0  # of what was read without a gap

    def measure_leak(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Works out in what parts each visual token shows each region, where the estimator's way of hiding makes it matter."""
        if self.estimator is None or not spreads(self.estimator.hiding):
            return
        if self.measure_whole:
            self.blind = Blind(self.model, self.inputs, self.estimator.hiding)
        fills = fill_regions(self.model, self.inputs, self.regions, self.estimator.hiding, stopped)
        kinds = () if stopped() else self.estimator.kinds
        layers = self.capture.layers
        self.parts = spread_parts(self.model, self.inputs, self.regions, fills, layers, kinds)

    def read_ahead(self, start: int, ids: Sequence[int]) -> None:
        """Reads the tokens `ids` from `start` on, whose span has not ended; what follows reads on from `end`.

        Where tokens before them could not be read nothing is done: these are left to their span, and so is all that follows.
        """
        if start <= self.end:
            for block in self._blocks(start, ids):
                self._ahead.append(block)
                self.end = block.end

    def read(self, span: Span, ids: Sequence[int]) -> ReadSpan:
        """`ids` are the span's tokens."""
        ahead, self._ahead = self._ahead, [each for each in self._ahead if each.end > span.end]
        parts, at = [], span.start
        for each in ahead:
            if each.start <= at < each.end:
                parts.append(each.between(at, span.end))
                at = parts[-1].end
        parts += self._blocks(at, ids[at - span.start :])
        self.end = max(self.end, span.end)
        return self._of_span(parts)

    def _blocks(self, start: int, ids: Sequence[int]) -> Iterator[Tokens]:
        """The tokens `ids` from `start` on, AT_ONCE at a time."""
        for first in range(0, len(ids), AT_ONCE):
            yield self._tokens(start + first, ids[first : first + AT_ONCE])

    def _tokens(self, start: int, ids: Sequence[int]) -> Tokens:
        kinds, weigh = ("attention",), self._alike
        if self.estimator is not None:
            kinds, weigh = self.estimator.kinds, self.estimator.of_tokens
        written = torch.tensor(ids, device=self.model.device)
        steps = self.capture.take(start, start + len(ids))
        read = read_steps(self.model, self.capture, self.image, steps, written, self.parts, kinds, weigh)
        assert read.cells is not None, "there are weights"
        game = links = None
        if self.estimator is not None:
            game = self.estimator.game(read.features, read.log_odds)
            if self.blind is not None and (blind := self.blind.log_probs(start, ids)) is not None:
                game = game.with_whole(read.log_probs - blind)
            game = game.rounded()
        if self.estimator is not None and self.earlier is not None:
            links = self.estimator.links(self.earlier.features(steps), read.log_odds)
        return Tokens(start, read.log_probs, read.features.sum(2), read.cells, game, links)

    def _of_span(self, parts: Sequence[Tokens]) -> ReadSpan:
        """What the tokens of a span say together."""
        log_probs, cells = (
            torch.cat([each.log_probs for each in parts]),
            torch.cat([each.cells for each in parts]),
        )
        games = [each.game for each in parts if each.game is not None]
        if self.estimator is None or not games:
            shares = torch.cat([each.regions for each in parts]).sum(0)
            total = shares.sum().clamp(min=1e-30)
            return ReadSpan(None, None, shares / total, cells.sum(0) / total, log_probs)
        game = joined(games)
        said = attribute(game, self.estimator, self.orders)
        falls = game.falls(self.labels.new_ones(game.regions, 1).float())[:, 0].clamp(min=0)
        links = [each.links for each in parts if each.links is not None]
        found = None
        if links:
            found = Links(
                torch.cat([each.earlier for each in links]), torch.cat([each.scores for each in links])
            )
        return ReadSpan(
            said, game, said.shown, heat(said.shown, falls @ cells, self.labels), log_probs, found
        )

    def _alike(self, log_odds: Float[Tensor, " token"]) -> Float[Tensor, "token head"]:
        """The weights where there is no estimator: all heads the same."""
        layers, heads, _ = self.image.norms.shape
        return log_odds.new_ones(len(log_odds), layers * heads)

    def event(
        self, span: Span, read: ReadSpan, latency_s: float, sources: Steps | None = None, grounded: bool | None = None,
    ) -> SpanAttribution:  # fmt: skip
        """What is known of a span as a stream yields it, in plain numbers."""
        said, heats = read.said, read.heat.split([len(grid) for grid in self.capture.grids])
        return SpanAttribution(
            index=span.index,
            channel=span.channel,
            start=span.start,
            end=span.end,
            text=span.text,
            effects=plain(read.shown if said is None else said.effects),
            interval=None if said is None or said.interval is None else plain(said.interval),
            contributions=None if said is None else plain(said.contributions),
            contribution_interval=None
            if said is None or said.contribution_interval is None
            else plain(said.contribution_interval),
            evidence=None if said is None else _steps(said.evidence),
            breaks=None if said is None else _steps(said.breaks),
            patches=tuple(
                plain(part.view(grid.rows, grid.cols))
                for part, grid in zip(heats, self.capture.grids, strict=True)
            ),
            whole_image=None if said is None else plain(said.whole),
            log_prob=plain(read.log_probs.sum()),
            cut=span.cut,
            latency_s=round(latency_s, 5),
            sources=sources,
            grounded=grounded,
        )


def plain(values: Tensor) -> Any:
    """A float, or nested tuples of them, rounded. Numbers that are not finite are an error: JSON has none."""
    values = values.cpu()
    if not values.isfinite().all():
        raise ArithmeticError("the model's numbers are not finite; load it in a wider dtype")
    return rounded(values)


def _steps(steps: Sequence[tuple[int, float]]) -> Steps:
    return tuple((region, round(value, DECIMALS)) for region, value in steps)
