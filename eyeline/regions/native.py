"""The thinking model's own regions: its vision features, clustered into connected regions of the cells.

The paper's way, for features of any model; how many regions an image has is read from the features too.
"""

import functools
from itertools import count as count_from

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.errors import RegionError
from eyeline.regions.view import View, relabel

FEWEST, MOST = 16, 128  # regions of one image (arXiv 2604.16587)
EXACT = 4096  # cells up to which each is clustered by itself
MAX_COMPONENTS = 32  # principal components that regions are clustered in


def native(view: View, seed: int, count: int | None = None) -> Int[Tensor, "{view.rows} {view.cols}"]:
    """Regions from the thinking model's own vision tower."""
    return segment(view.features, view.rows, view.cols, count)


def how_many(view: View, count: int | None) -> int:
    """The regions asked for, at most one a cell; or as many as `native` has."""
    return int(native(view, 0).max()) + 1 if count is None else min(count, view.rows * view.cols)


def bounds(patches: int) -> tuple[int, int]:
    """Fewest and most regions of an image of that many cells: 16 to 128, no more than half the cells.

    An image of fewer than 32 cells has one region a cell.
    """
    return (patches, patches) if patches < 2 * FEWEST else (FEWEST, min(MOST, patches // 2))


def segment(
    features: Float[Tensor, "patch dim"], rows: int, cols: int, count: int | None = None
) -> Int[Tensor, "{rows} {cols}"]:
    """Ward's agglomerative clustering of an image's cells, each region connected through its cells' sides.

    Cells come in raster order. Features are scaled to unit length first: a vision tower gives some background
    cells norms many times the others' (arXiv 2309.16588), and each would become a region of its own. Then the
    32 main components are kept, which is where the variance is and what keeps wide features fast.

    How many regions, unless `count` says so, is read from the merge heights, which say how much each split explains
    of the variance: K is where the share of it explained by K regions is furthest above K / patches. Up to there one
    more region explains more than one cell's share of the image, after it less; `bounds` hold in any case. Labels are
    in raster order of first appearance. Raises `RegionError` for features that are not finite.

    Above EXACT cells square blocks of cells are clustered, as small ones as leave no more than EXACT of them: the time that
    Ward's method takes is more than the text model takes to read so many. That depends on the size alone.
    """
    patches = rows * cols
    if patches > EXACT:
        side = next(side for side in count_from(2) if -(-rows // side) * -(-cols // side) <= EXACT)
        return _by_blocks(features, rows, cols, side, count)
    if patches < 2 * FEWEST if count is None else patches <= count:
        return torch.arange(patches).view(rows, cols)
    children, heights = _ward(features, rows, cols)
    return _cut(children, patches, count or _knee(heights, *bounds(patches))).view(rows, cols)


def _by_blocks(
    features: Float[Tensor, "patch dim"], rows: int, cols: int, side: int, count: int | None
) -> Int[Tensor, "{rows} {cols}"]:
    """The regions of blocks of `side` x `side` cells, by the mean of their cells' directions; each cell has its block's."""
    directions = torch.nn.functional.normalize(features.detach().float().cpu(), dim=1)
    down, across = torch.arange(rows) // side, torch.arange(cols) // side
    block = (down[:, None] * (int(across[-1]) + 1) + across).flatten()
    sums = directions.new_zeros(int(block[-1]) + 1, directions.shape[1]).index_add_(0, block, directions)
    labels = segment(sums / torch.bincount(block)[:, None], int(down[-1]) + 1, int(across[-1]) + 1, count)
    return labels.flatten()[block].view(rows, cols)


def _ward(
    features: Float[Tensor, "patch dim"], rows: int, cols: int
) -> tuple[Int[np.ndarray, "merge 2"], Float[np.ndarray, " merge"]]:
    """Ward's tree: what each merge joins, in order, and the sum of squares within regions that it adds."""
    from sklearn.cluster import ward_tree

    vectors = torch.nn.functional.normalize(features.detach().float().cpu(), dim=1)
    if not vectors.isfinite().all():
        raise RegionError(
            "The model's vision features are not finite numbers, so no regions can be made from them: load "
            "the model in bfloat16 or float32, or bring regions of your own."
        )
    components = _main_components(vectors - vectors.mean(dim=0))
    children, *_, distances = ward_tree(
        components.double().numpy(), connectivity=_neighbours(rows, cols), return_distance=True
    )
    return np.asarray(children), np.asarray(distances) ** 2 / 2


def _main_components(vectors: Float[Tensor, "patch dim"]) -> Float[Tensor, "patch component"]:
    """Coordinates of centred vectors along their directions of greatest variance, at most 32 of them."""
    if min(vectors.shape) <= MAX_COMPONENTS:
        return vectors
    if len(vectors) <= 512:  # the exact answer is faster
        values, axes = torch.linalg.eigh(vectors @ vectors.T)
        return axes[:, -MAX_COMPONENTS:] * values[-MAX_COMPONENTS:].clamp(min=0).sqrt()
    from sklearn.utils.extmath import randomized_svd

    left, scales, _ = randomized_svd(vectors.numpy(), MAX_COMPONENTS, n_iter=2, random_state=0)  # pyright: ignore
    return torch.from_numpy(left * scales)


@functools.lru_cache(maxsize=64)
def _neighbours(rows: int, cols: int):
    from sklearn.feature_extraction.image import grid_to_graph

    return grid_to_graph(rows, cols)


def _knee(heights: Float[np.ndarray, " merge"], fewest: int, most: int) -> int:
    """The number of regions, within bounds, at which explained variance is furthest above its even share."""
    within = np.concatenate([[0.0], np.cumsum(heights)])[::-1]  # of 1, 2, ... regions
    counts = np.arange(1, len(within) + 1)
    gain = 1 - within / max(within[0], np.finfo(float).tiny) - counts / len(counts)
    return fewest + int(gain[fewest - 1 : most].argmax())


def _cut(children: Int[np.ndarray, "merge 2"], patches: int, count: int) -> Int[Tensor, " {patches}"]:
    """The tree's leaves as `count` regions, labelled in order of first appearance."""
    root = np.arange(2 * patches - count)
    for node in range(len(root) - 1, patches - 1, -1):  # parents come after their children
        root[children[node - patches]] = root[node]
    return relabel(torch.from_numpy(root[:patches]))
