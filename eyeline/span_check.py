"""A span checked: its regions hidden for real one by one, and all together, beside what was predicted of them.

Nothing here predicts. The command line checks a saved run by `verify`; the server has the same events, and asks its model's
process for each batch in between (server/verification.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eyeline.ablation import METHODS, Ablation, Method, ablate
from eyeline.errors import DataError
from eyeline.events import Grid, SpanAttribution
from eyeline.kept_games import check_regions
from eyeline.kept_trace import check_model, read_back
from eyeline.model import Model
from eyeline.runs import Run, span_of

AT_ONCE = 4  # regions between two looks at whether somebody waits


@dataclass(frozen=True, slots=True)
class Fallen:
    """What hiding did to a span, nats."""

    log_prob: float  # with nothing hidden
    falls: tuple[float, ...]  # of each set of regions


@dataclass
class SpanCheck:
    """The single regions of a span, as far as they are measured, and the events that tell of them.

    `regions`: those to hide, by default all, the strongest prediction first. `already`: regions that the run was asked without;
    they stay hidden, and falls are against that.
    """

    span: SpanAttribution
    method: str
    regions: Sequence[int] | None = None
    already: Sequence[int] = ()
    predicted: list[float] = field(default_factory=list, init=False)
    actual: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        effects = self.span.effects
        by_size = sorted(range(len(effects)), key=lambda region: -abs(effects[region]))
        self.wanted = list(dict.fromkeys(by_size if self.regions is None else self.regions))

    def batches(self) -> Iterator[list[list[int]]]:
        """Sets to hide in one job: what is hidden already, then beside it each of the next regions."""
        for first in range(0, len(self.wanted), AT_ONCE):
            some = self.wanted[first : first + AT_ONCE]
            yield [[*self.already], *([*self.already, region] for region in some)]

    def take(self, found: Fallen) -> Iterator[dict[str, Any]]:
        """The events of a batch that was measured."""
        base, falls = self._against(found)
        if not self.actual:
            yield self.baseline(found)
        for fall in falls:
            region = self.wanted[len(self.actual)]
            self.predicted.append(self.span.effects[region])
            self.actual.append(fall - base)
            told = {"predicted": self.predicted[-1], "actual": self.actual[-1]}
            yield {"event": "region", "region": region, **told, **self._so_far}

    def baseline(self, found: Fallen, total: int | None = None) -> dict[str, Any]:
        log_prob = found.log_prob - self._against(found)[0]
        total = len(self.wanted) if total is None else total
        return {"event": "baseline", "log_prob": log_prob, "method": self.method, "total": total}

    def together(self, found: Fallen, predicted: float | None, parts: float | None) -> dict[str, Any]:
        """The event of all the regions hidden in one pass, which was measured beside what is hidden already."""
        base, (fall,) = self._against(found)
        regions = sorted(self.wanted) if self.regions is None else self.wanted
        told = {"predicted": predicted, "parts": parts, "actual": fall - base}
        return {"event": "together", "regions": regions, **told, "done": 1, "total": 1}

    def done(self) -> dict[str, Any]:
        return {"event": "done", **self._so_far}

    def _against(self, found: Fallen) -> tuple[float, tuple[float, ...]]:
        """What falls are measured against, the fall of what is hidden already, and those of the sets."""
        base, *falls = found.falls
        return base if self.already else 0.0, tuple(falls)

    @property
    def _so_far(self) -> dict[str, Any]:
        agreement = rank_agreement(self.predicted, self.actual)
        return {"rank_agreement": agreement, "done": len(self.actual), "total": len(self.wanted)}


def rank_agreement(predicted: Sequence[float], actual: Sequence[float]) -> float | None:
    """Spearman's correlation; None under three regions, or where one side is constant."""
    from scipy.stats import spearmanr

    if len(predicted) < 3 or len(set(predicted)) == 1 or len(set(actual)) == 1:
        return None
    found: Any = spearmanr(predicted, actual)
    return round(float(found.statistic), 4)


def measure(
    model: Model, inputs: Mapping[str, Tensor], ids: Sequence[int], grids: Sequence[Grid],
    subsets: Sequence[Sequence[int]], method: Method,
) -> Ablation:  # fmt: skip
    """What hiding each set of regions does to the tokens of a trace; `grids`: the regions of its images."""
    labels = torch.cat([torch.tensor(grid).flatten() for grid in grids])
    hidden = torch.stack([torch.isin(labels, torch.tensor(list(some))) for some in subsets])
    return ablate(model, inputs, torch.tensor(ids), hidden, method)


def verify(
    model: Model, run: Run, index: int, regions: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """The events of `POST /v1/verify` for a span of a saved run: single regions, then `together` of the whole image.

    Regions are hidden as the run's numbers mean. Raises `DataError` for a run of another model, a span that is none, and
    where ids are not kept or say another text than the events; `RegionError` for a region that is none.
    """
    start, span = run.start, span_of(run.events, index)
    check_model(model, run, "verify it")
    check_regions(regions or (), len(span.effects))
    kept = read_back(model, run)
    if span.end > len(kept.ids):
        raise DataError(f"The token ids of span {index} are not kept; ask the question again.")
    way: Method = start.hiding if start.hiding in METHODS else "pixels"  # pyright: ignore

    def hide(subsets: Sequence[Sequence[int]]) -> Fallen:
        found = measure(model, kept.inputs, kept.ids[: span.end], start.regions, subsets, way)
        falls = found.falls[:, span.start :].sum(1).tolist()
        return Fallen(float(found.log_probs[span.start :].sum()), tuple(falls))

    check = SpanCheck(span, way, regions)
    for subsets in check.batches():
        yield from check.take(hide(subsets))
    whole = SpanCheck(span, way)
    parts = None if span.whole_image is None else sum(span.effects)
    yield whole.together(hide([[], whole.wanted]), span.whole_image, parts)
    yield check.done()
