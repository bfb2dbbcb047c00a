"""How good an attribution is, as functions on plain values: predictions beside what hiding regions really did.

Every function gives one value for each span. `bootstrap` makes of an image's values a table's: mean over spans, then
images, then families, with an interval from resampling images.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Tensor

from eyeline.examples import Box
from eyeline.training.weights import MIN_SPREAD, pearson

EMPTY = 0.1  # share of the largest measured fall under which heat is called empty
ROUNDING = 1e-5  # nats, of measured effects in float32


def spearman(
    predicted: Float[Tensor, "span subset"], actual: Float[Tensor, "span subset"]
) -> Float[Tensor, " span"]:
    """Rank correlation of each span over its subsets (Spearman 1904, Am. J. Psychol. 15); 0 for a constant.

    Ties take their mean rank (Kendall 1945, Biometrika 33).
    """
    ranks = (
        torch.from_numpy(rankdata(values.double().cpu().numpy(), axis=1)) for values in (predicted, actual)
    )
    return pearson(*ranks)


def auc(values: Float[Tensor, " value"], positive: Bool[Tensor, " value"]) -> float:
    """Area under the ROC curve: how often one of the positive ones has more than another, ties half; nan without both kinds.

    The statistic of Mann and Whitney (1947, Ann. Math. Stat. 18) as a share of all pairs.
    """
    count, ranks = int(positive.sum()), rankdata(values.double().cpu().numpy())
    if count in (0, len(values)):
        return math.nan
    above = ranks[positive.cpu().numpy()].sum() - count * (count + 1) / 2
    return float(above / (count * (len(values) - count)))


def varies(actual: Float[Tensor, "span subset"]) -> Bool[Tensor, " span"]:
    """Whether a span's actual effects vary enough, by standard deviation, to say anything about a correlation."""
    return actual.std(dim=1, correction=min(1, actual.shape[1] - 1)) >= MIN_SPREAD


def joint(
    effects: Float[Tensor, "span region"], subsets: Bool[Tensor, "subset region"]
) -> Float[Tensor, "span subset"]:
    """What effects that add up predict for regions hidden together: the sum of theirs."""
    return effects @ subsets.to(effects).T


def lds(
    predicted: Float[Tensor, "span subset"], falls: Float[Tensor, "span subset"]
) -> Float[Tensor, " span"]:
    """Linear datamodelling score (Park et al. 2023, arXiv 2303.14186, eq. 4; for sources ContextCite, arXiv 2409.00729).

    Spearman between predicted and actual effects of a span's random subsets.
    """
    return spearman(predicted, falls)


def r2_span(
    predicted: Float[Tensor, "span subset"], falls: Float[Tensor, "span subset"]
) -> Float[Tensor, " span"]:
    """Squared correlation over a span's random subsets (Pearson 1895, Proc. R. Soc. Lond. 58); 0 for a constant."""
    return pearson(predicted, falls).square()


def slope(predicted: Float[Tensor, " pair"], actual: Float[Tensor, " pair"]) -> float:
    """By how much measured falls grow with predicted ones, nats a nat: least squares of a line through 0; 1 is right."""
    return float((predicted @ actual) / (predicted @ predicted).clamp(min=1e-12))


def empty_heat(
    shown: Float[Tensor, "span region"], falls: Float[Tensor, "span subset"]
) -> Bool[Tensor, " span"]:
    """Whether what is shown of a span is empty: its largest number under a tenth of the largest measured fall; ours."""
    return shown.max(dim=1).values < EMPTY * falls.max(dim=1).values


def false_heat(shown: Float[Tensor, "span region"]) -> Float[Tensor, " span"]:
    """The largest size of what is shown of a span, nats; of spans that hiding does nothing to, it should be nothing; ours."""
    return shown.abs().max(dim=1).values


def top_regions(effects: Float[Tensor, "span region"], count: int) -> Bool[Tensor, "span region"]:
    """The `count` regions of highest effect of each span, or all where there are fewer; of equal ones the first.

    Hidden together they give the top-k drop in log-prob (ContextCite, arXiv 2409.00729; AT2, arXiv 2504.13752).
    """
    order = effects.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(effects, dtype=torch.bool).scatter_(1, order, True)


def area(values: Float[Tensor, "span step"], hidden: Sequence[int], regions: int) -> Float[Tensor, " span"]:
    """Mean of a curve over the share of regions hidden or shown, by trapezoids from 0 to the last step.

    Deletion and insertion of RISE (Petsiuk et al. 2018, arXiv 1806.07421), with falls in log-prob in place of
    probabilities: hiding the highest regions first, a large area is good; showing them first, a small one.
    """
    shares = torch.tensor([0, *hidden], dtype=values.dtype) / regions
    return torch.trapezoid(values.cpu(), shares, dim=1) / shares[-1]


def agreement(
    effects: Float[Tensor, "span region"], alone: Float[Tensor, "span region"]
) -> Float[Tensor, " span"]:
    """Spearman with the effects of each region hidden alone, measured.

    So Jain and Wallace 2019 (arXiv 1902.10186) hold attention against leaving one out, there by Kendall's tau.
    """
    return spearman(effects, alone)


def r2_nats(effects: Float[Tensor, " pair"], alone: Float[Tensor, " pair"]) -> float | None:
    """1 - SSE / SST of single-region effects over all pairs of span and region, nats; negative where the mean does better.

    The first of the coefficients of determination in Kvålseth 1985 (Am. Stat. 39). None where the measured effects differ by
    no more than rounding, as a single one does: there is nothing to explain.
    """
    if not alone.numel() or float(alone.double().std(correction=0)) < ROUNDING:
        return None
    return float(1 - (effects - alone).square().sum() / (alone - alone.mean()).square().sum())


def calibrated_r2_nats(effects: Float[Tensor, " pair"], alone: Float[Tensor, " pair"]) -> float | None:
    """`r2_nats` with the one factor that suits these very pairs best: for rivals, whose effects have no unit."""
    return r2_nats(effects * ((effects @ alone) / (effects @ effects).clamp(min=1e-12)), alone)


def pointing(
    effects: Float[Tensor, "span region"], covers: Float[Tensor, "box region"], areas: Float[Tensor, " region"],
    boxes: Float[Tensor, " box"],
) -> Bool[Tensor, " span"]:  # fmt: skip
    """Whether a span's highest region is evidence (the pointing game, Zhang et al. 2016, arXiv 1608.00507).

    A hit: at least half of the region's area lies in the evidence, or it covers at least a quarter of one of its boxes.
    `covers` is the area that a box and a region share, `areas` and `boxes` are whole areas, in any one unit.
    """
    inside = covers.sum(0).clamp(max=areas) >= areas / 2
    covering = (covers >= boxes[:, None] / 4).any(0)
    return (inside | covering)[effects.argmax(dim=1)]


def shared_areas(
    labels: Int[Tensor, "row col"], boxes: Sequence[Box], width: int, height: int
) -> tuple[Float[Tensor, "box region"], Float[Tensor, " region"], Float[Tensor, " box"]]:
    """What `pointing` reads, in pixels of an image of `width` x `height` that the cells of `labels` divide evenly."""
    rows, cols = labels.shape
    regions = int(labels.max()) + 1

    def overlap(count: int, size: int, low: int, high: int) -> Float[Tensor, " {count}"]:
        edges = torch.arange(count + 1) * (size / count)
        return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)

    covers = torch.zeros(len(boxes), regions)
    for number, (left, top, right, bottom) in enumerate(boxes):
        cells = overlap(rows, height, top, bottom)[:, None] * overlap(cols, width, left, right)
        covers[number].index_add_(0, labels.flatten(), cells.flatten())
    areas = torch.bincount(labels.flatten(), minlength=regions) * (width * height / (rows * cols))
    sizes = torch.tensor([float((right - left) * (bottom - top)) for left, top, right, bottom in boxes])
    return covers, areas, sizes


def inside(
    low: Float[Tensor, " pair"], high: Float[Tensor, " pair"], alone: Float[Tensor, " pair"]
) -> Bool[Tensor, " pair"]:
    """Whether each effect, measured, lies in its interval, ends included; nats."""
    return (low <= alone) & (alone <= high)


def coverage(
    low: Float[Tensor, " pair"], high: Float[Tensor, " pair"], alone: Float[Tensor, " pair"],
    image: Int[Tensor, " pair"],
) -> float:  # fmt: skip
    """Share of the effects that lie in their intervals, images weighing the same (Romano et al. 2019, arXiv 1905.03222, eq. 1).

    `image` numbers the image of each pair of span and region; an image without pairs does not count.
    """
    held = inside(low, high, alone).double()
    return float(torch.stack([held[image == one].mean() for one in image.unique()]).mean())


def coverage_of_large(
    low: Float[Tensor, " pair"], high: Float[Tensor, " pair"], alone: Float[Tensor, " pair"], over: float
) -> float | None:
    """Share of the effects of more than `over` nats, up or down, that lie in their intervals; None where no effect is so large.

    Intervals that hold 90 % of all effects may hold fewer of these: coverage is marginal (arXiv 1905.03222, eq. 1).
    """
    large = alone.abs() > over
    return float(inside(low, high, alone)[large].double().mean()) if large.any() else None


def median_width(low: Float[Tensor, " pair"], high: Float[Tensor, " pair"]) -> float:
    """Of intervals, nats; Romano et al. 2019 (arXiv 1905.03222, section 6) report the mean, which a few large effects decide."""
    return float((high - low).median())


def constant_width(effects: Float[Tensor, " pair"], alone: Float[Tensor, " pair"], share: float) -> float:
    """Width of intervals of one width around predicted effects that hold a `share` of these very pairs, nats.

    Split conformal intervals are of that kind (arXiv 1905.03222, section 3); they take the width from other images.
    """
    return float(2 * (effects - alone).abs().quantile(share))


def bootstrap(
    values: Mapping[str, Sequence[float]], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float] | tuple[float, None, None]:
    """Mean over families of the mean over images, with the 95 % interval from resampling images in each family.

    The percentile interval of the bootstrap (Efron 1979, Ann. Stat. 7; Efron and Tibshirani 1993, chapter 13). No interval
    where a family has a single image: drawn again it is the same, and the interval would leave out how images differ.
    """
    rng = np.random.default_rng(seed)
    families = [np.asarray(family) for family in values.values() if len(family)]
    mean = float(np.mean([family.mean() for family in families]))
    if min(map(len, families)) < 2:
        return mean, None, None
    means = [family[rng.integers(len(family), size=(draws, len(family)))].mean(axis=1) for family in families]
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    return mean, float(low), float(high)
