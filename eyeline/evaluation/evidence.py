"""Evidence held against heat, cell by cell: energy, rank AUC, recall, pointing. Functions on one image's cells, row by row."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Tensor

from eyeline.examples import Box

RECALLS = (0.01, 0.05, 0.1, 0.2)  # shares of the cells, highest first


def covered_cells(
    boxes: Sequence[Box], size: tuple[int, int], rows: int, cols: int
) -> Float[Tensor, " cell"]:
    """What share of each cell lies in boxes that do not overlap; the image is of `size` (width, height)."""
    width, height = size

    def overlap(count: int, length: int, low: int, high: int) -> Float[Tensor, " {count}"]:
        edges = torch.arange(count + 1) * (length / count)
        inside = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)
        return inside.clamp(min=0) * (count / length)

    covered = torch.zeros(rows, cols)
    for left, top, right, bottom in boxes:
        covered += overlap(rows, height, top, bottom)[:, None] * overlap(cols, width, left, right)
    return covered.clamp(max=1).flatten()


def evidence_cells(covered: Float[Tensor, " cell"]) -> Bool[Tensor, " cell"]:
    """Cells of which at least half is evidence; where none is so much, those that hold most of it, as of a small box."""
    most = covered.max()
    return (
        covered >= (0.5 if most >= 0.5 else most) if most > 0 else torch.zeros_like(covered, dtype=torch.bool)
    )


def spread_over_cells(
    effects: Float[Tensor, " region"], labels: Int[Tensor, " cell"]
) -> Float[Tensor, " cell"]:
    """Each region's number, shared evenly by its cells."""
    return (effects / torch.bincount(labels, minlength=len(effects)).clamp(min=1))[labels]


def energy(heat: Float[Tensor, " cell"], covered: Float[Tensor, " cell"]) -> float:
    """Share of the heat above 0 that lies in the evidence; 0 without any heat (Wang et al. 2020, arXiv 1910.01279)."""
    above = heat.clamp(min=0)
    return float((above * covered).sum() / above.sum()) if above.sum() > 0 else 0.0


def rank_auc(heat: Float[Tensor, " cell"], inside: Bool[Tensor, " cell"]) -> float:
    """How often a cell of the evidence is hotter than another, of all such pairs; alike counts a half (Mann and Whitney 1947).

    NaN where no cell is evidence, or every one.
    """
    held, others = int(inside.sum()), int((~inside).sum())
    if not held * others:
        return math.nan
    ranks = torch.from_numpy(rankdata(heat.double().numpy()))
    return float((ranks[inside].sum() - held * (held + 1) / 2) / (held * others))


def recall_at(heat: Float[Tensor, " cell"], inside: Bool[Tensor, " cell"], share: float) -> float:
    """How much of the evidence is among the hottest `share` of the cells, at least one; of cells alike their fair share.

    NaN where no cell is evidence.
    """
    if not inside.any():
        return math.nan
    count = max(1, round(share * len(heat)))
    last = heat.sort(descending=True).values[count - 1]
    surely, maybe = heat > last, heat == last
    found = (inside & surely).sum() + (inside & maybe).sum() * (count - surely.sum()) / maybe.sum()
    return float(found / inside.sum())


def pointing_cell(heat: Float[Tensor, " cell"], inside: Bool[Tensor, " cell"]) -> float:
    """Whether the hottest cell is evidence; of several alike, the share that is (Zhang et al. 2016, arXiv 1608.00507)."""
    hottest = heat == heat.max()
    return float((hottest & inside).sum() / hottest.sum())
