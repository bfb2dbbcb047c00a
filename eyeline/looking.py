"""How a trace looks at the image, in numbers: pure functions of what each span's regions contribute, and of where regions lie.

They describe; none of them is known to say whether an answer is right (docs/looking.md). `looking` gives all of a run.
`contributions` are those of a run's spans in their order, nats, and only what is above 0 counts as looked at: what speaks against
a text is no place that it rests on. A span that rests on the image with less than LEAST nats does not look; it has no place, and
numbers of it are nan.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.errors import DataError
from eyeline.events import Done, Event, SpanAttribution, Start
from eyeline.game import NOTHING

LEAST = NOTHING  # nats, from which a span rests on a region, or on the image
TOP_REGIONS = 32  # of the paper's trajectory
COMPONENTS = 2  # of the same; its public description does not say how many


@dataclass(frozen=True, slots=True)
class Looking:
    """What `looking` says of one run. Means are over the spans that look; nan where there are too few."""

    spans: int
    looks: int  # spans that rest on the image
    path_length: float  # diagonals of the picture
    tortuosity: float  # path length over the straight way from first to last place, at least 1; inf where both are one place
    look_backs: int  # spans whose strongest region was it before, others having been it in between
    entropy: float  # nats, mean: 0 is all on one region
    effective_regions: float  # mean of exp(entropy): over how many regions a span is spread
    new_evidence: float  # mean share of a span that falls on regions that no span before rested on
    unexplored: float  # share of the picture's area that no span rests on
    unexplored_evidence: (
        float | None
    )  # share of what the answer rests on that no span rests on; None: not known
    reliance: tuple[float, ...]  # of each span: nats for a token that hiding the whole image costs
    since_look: tuple[int, ...]  # of each span: tokens since the end of the last one that looked, from 0
    component_length: float  # path length by the paper's way, nats
    component_tortuosity: float


def looking(events: Iterable[Event]) -> Looking:
    """All measures of a run. Raises `DataError` for one without spans, or whose numbers are attention or not calibrated."""
    events = list(events)
    start = next((event for event in events if isinstance(event, Start)), None)
    done = next((event for event in events if isinstance(event, Done)), None)
    spans = [event for event in events if isinstance(event, SpanAttribution)]
    if start is None or not spans or start.unit != "nats":
        raise DataError(
            "How a run looks at its image is measured on contributions in nats: it needs attributed spans, of an estimator that "
            "was calibrated or fitted on the model."
        )
    contributions = torch.tensor([span.shown for span in spans], dtype=torch.float64)
    places, areas = centres(start)
    points = gaze(contributions, places)
    paper = components(contributions)
    spread = entropy(contributions)
    rests = None if done is None or done.rests_on is None else torch.tensor(done.rests_on.changes).double()
    lengths = torch.tensor([span.end - span.start for span in spans])
    whole = torch.tensor([span.whole_image or 0.0 for span in spans]).double()
    return Looking(
        spans=len(spans), looks=int(looks(contributions).sum()),
        path_length=path_length(points), tortuosity=tortuosity(points), look_backs=int(look_backs(contributions).sum()),
        entropy=_mean(spread), effective_regions=_mean(spread.exp()), new_evidence=_mean(new_evidence(contributions)),
        unexplored=unexplored(contributions, areas),
        unexplored_evidence=None if rests is None else unexplored(contributions, rests),
        reliance=tuple(reliance(whole, lengths).tolist()), since_look=tuple(since_look(contributions, lengths).tolist()),
        component_length=path_length(paper), component_tortuosity=tortuosity(paper),
    )  # fmt: skip


def centres(start: Start) -> tuple[Float[Tensor, "region 2"], Float[Tensor, " region"]]:
    """Where the middle of each region lies, (x, y), and its area as a share of the picture.

    The picture is the images side by side, as tall as each other; the unit is its diagonal.
    """
    width = sum(info.width / info.height for info in start.images)
    diagonal = (width**2 + 1) ** 0.5
    places: dict[int, Tensor] = {}
    areas: dict[int, float] = {}
    left = 0.0
    for info, grid in zip(start.images, start.regions, strict=True):
        labels, aspect = torch.tensor(grid), info.width / info.height
        for label in labels.unique().tolist():
            y, x = torch.nonzero(labels == label, as_tuple=True)
            across = left + (x.double().mean() + 0.5) / info.cols * aspect
            places[label] = torch.stack([across, (y.double().mean() + 0.5) / info.rows]) / diagonal
            areas[label] = len(x) / labels.numel() * aspect / width
        left += aspect
    order = sorted(places)
    return torch.stack([places[label] for label in order]), torch.tensor(
        [areas[label] for label in order], dtype=torch.float64
    )


def looks(contributions: Float[Tensor, "span region"]) -> Bool[Tensor, " span"]:
    """Which spans rest on the image: what their regions contribute above 0 is LEAST nats or more."""
    return contributions.clamp(min=0).sum(1) >= LEAST


def gaze(
    contributions: Float[Tensor, "span region"], places: Float[Tensor, "region 2"]
) -> Float[Tensor, "span 2"]:
    """Where each span looks: the mean of the regions' middles, weighted by what they contribute above 0."""
    return torch.where(looks(contributions)[:, None], _shares(contributions) @ places, torch.nan)


def path_length(points: Float[Tensor, "span dim"]) -> float:
    """The way from place to place, in their unit, past spans without one; 0 for a single place, nan for none."""
    points = points[~points.isnan().any(1)]
    return float(points.diff(dim=0).norm(dim=1).sum()) if len(points) else torch.nan


def tortuosity(points: Float[Tensor, "span dim"]) -> float:
    """The path's length over the straight way from its first place to its last: 1 is straight; no unit.

    inf where it comes back to where it began, nan where it never moves.
    """
    seen = points[~points.isnan().any(1)]
    length = path_length(points)
    straight = float((seen[-1] - seen[0]).norm()) if len(seen) else 0.0
    if not length > 1e-9:
        return torch.nan
    return max(1.0, length / straight) if straight > 1e-9 else torch.inf


def look_backs(contributions: Float[Tensor, "span region"]) -> Bool[Tensor, " span"]:
    """Which spans look back: their strongest region was the strongest of an earlier one, and another's since."""
    found, last, seen = [], None, set[int]()
    for strongest, looked in zip(
        contributions.argmax(1).tolist(), looks(contributions).tolist(), strict=True
    ):
        found.append(looked and strongest in seen and strongest != last)
        if looked:
            last = strongest
            seen.add(strongest)
    return torch.tensor(found, dtype=torch.bool)


def entropy(contributions: Float[Tensor, "span region"]) -> Float[Tensor, " span"]:
    """How spread out each span is, nats: Shannon's entropy of the shares of what contributes above 0. 0: all on one region."""
    found = torch.special.entr(_shares(contributions)).sum(1)
    return torch.where(looks(contributions), found, torch.nan)


def new_evidence(contributions: Float[Tensor, "span region"]) -> Float[Tensor, " span"]:
    """The share of each span, 0 to 1, that falls on regions that no span before it rested on with LEAST nats; 1 for the first."""
    used = (contributions >= LEAST).cummax(0).values
    before = torch.cat([torch.zeros_like(used[:1]), used[:-1]])
    found = (_shares(contributions) * ~before).sum(1)
    return torch.where(looks(contributions), found, torch.nan)


def unexplored(contributions: Float[Tensor, "span region"], worth: Float[Tensor, " region"]) -> float:
    """The share of what regions are worth, 0 to 1, that lies in those that no span rests on with LEAST nats.

    `worth` may be their areas, the chances that the answer changes without each, or 1 for those of known evidence. nan where
    nothing is worth anything.
    """
    never = ~(contributions >= LEAST).any(0)
    return float(worth[never].sum() / worth.sum()) if float(worth.sum()) else torch.nan


def reliance(whole: Float[Tensor, " span"], tokens: Int[Tensor, " span"]) -> Float[Tensor, " span"]:
    """Visual reliance over time: nats for a token that hiding the whole image costs each span, below 0 where it helps."""
    return whole / tokens


def since_look(
    contributions: Float[Tensor, "span region"], tokens: Int[Tensor, " span"]
) -> Int[Tensor, " span"]:
    """Tokens between the end of the last span that looked, or the trace's beginning, and each span's own beginning."""
    found, since = [], 0
    for length, looked in zip(tokens.tolist(), looks(contributions).tolist(), strict=True):
        found.append(since)
        since = 0 if looked else since + length
    return torch.tensor(found, dtype=torch.long)


def components(
    contributions: Float[Tensor, "span region"], regions: int = TOP_REGIONS, count: int = COMPONENTS
) -> Float[Tensor, "span _"]:
    """The trajectory by the paper's way (arXiv 2604.16587): principal components of what the top regions contribute to each span.

    The `regions` with the largest sum over the trace, centred over spans, on their first `count` components; nats. Where regions
    lie has no part in it. How many components the paper takes, its public description leaves open.
    """
    top = contributions.sum(0).topk(min(regions, contributions.shape[1])).indices
    centred = contributions[:, top] - contributions[:, top].mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:count].T


def _shares(contributions: Float[Tensor, "span region"]) -> Float[Tensor, "span region"]:
    """What contributes above 0, in shares of 1 for each span."""
    above = contributions.clamp(min=0)
    return above / above.sum(1, keepdim=True).clamp(min=1e-12)


def _mean(values: Float[Tensor, " span"]) -> float:
    return float(values.nanmean())
