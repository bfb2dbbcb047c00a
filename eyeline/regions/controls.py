"""Regions that see nothing of the image: what regions from features are held against."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from eyeline.regions.native import bounds, how_many
from eyeline.regions.view import View, relabel


def grid(view: View, seed: int, count: int | None = None) -> Int[Tensor, "{view.rows} {view.cols}"]:
    """Regular blocks, nearly square in the image, about as many as `native` has regions."""
    rows, cols = view.rows, view.cols
    fewest, most = (1, rows * cols) if count else bounds(rows * cols)
    count = how_many(view, count)
    shapes = [(r, c) for r in range(1, rows + 1) for c in range(1, cols + 1) if fewest <= r * c <= most]

    def misfit(shape: tuple[int, int]) -> float:
        down, across = shape
        return abs(math.log(down * across / count)) + abs(math.log((rows / down) / (cols / across))) / 2

    down, across = min(shapes, key=misfit)
    return torch.arange(rows)[:, None] * down // rows * across + torch.arange(cols) * across // cols


def random(view: View, seed: int, count: int | None = None) -> Int[Tensor, "{view.rows} {view.cols}"]:
    """As many regions as `native`, of equal size, each cell in any of them; not connected."""
    order = torch.randperm(view.rows * view.cols, generator=torch.Generator().manual_seed(seed))
    return relabel(order % how_many(view, count)).view(view.rows, view.cols)


def voronoi(view: View, seed: int, count: int | None = None) -> Int[Tensor, "{view.rows} {view.cols}"]:
    """As many regions as `native`; each cell belongs to the nearest of that many random seed cells.

    Distances are between cells' centres, in cells; of equally near seeds the first drawn wins. A thin region
    may be in pieces.
    """
    count = how_many(view, count)
    cells = torch.cartesian_prod(torch.arange(view.rows), torch.arange(view.cols))
    seeds = cells[torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))[:count]]
    squares = (cells[:, None] - seeds).square().sum(dim=2)
    unlike = squares * count + torch.arange(count)  # of equals argmin may take any
    return relabel(unlike.argmin(dim=1)).view(view.rows, view.cols)
