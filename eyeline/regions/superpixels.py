"""Regions from the image's colours alone: superpixels."""

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.errors import RegionError
from eyeline.regions.native import how_many
from eyeline.regions.view import View, relabel, vote

SUPERPIXEL_PIXELS = 16  # a cell's side, where superpixels are made


def slic(view: View, seed: int, count: int | None = None) -> Int[Tensor, "{view.rows} {view.cols}"]:
    """Superpixels of the image's colours (SLIC), as many as `native` has regions, each connected.

    A cell takes the superpixel of most of its pixels. SLIC's number is only near the one asked for, so then the
    largest regions are halved or the smallest joined to the neighbour of the nearest mean colour.
    """
    try:
        from skimage.segmentation import slic as superpixels
    except ModuleNotFoundError as error:
        raise RegionError(
            "The regions 'slic' need scikit-image, which is not installed: pip install 'eyeline[regions]'."
        ) from error
    rows, cols, count = view.rows, view.cols, how_many(view, count)
    if count == rows * cols:
        return torch.arange(count).view(rows, cols)
    resized = view.image.resize((cols * SUPERPIXEL_PIXELS, rows * SUPERPIXEL_PIXELS))
    cells = vote(superpixels(np.asarray(resized), n_segments=count, start_label=0), rows, cols)
    colours = np.asarray(resized.resize((cols, rows), PIL.Image.Resampling.BOX), dtype=float).reshape(-1, 3)
    return relabel(torch.from_numpy(_connected(cells, rows, cols, colours, count))).view(rows, cols)


def _connected(
    cells: Int[np.ndarray, " patch"],
    rows: int,
    cols: int,
    colours: Float[np.ndarray, "patch 3"],
    count: int,
) -> Int[np.ndarray, " patch"]:
    """Regions near the given ones, each connected through its cells' sides, exactly `count` of them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places = np.arange(rows * cols).reshape(rows, cols)
    one = np.concatenate([places[:, :-1].ravel(), places[:-1].ravel()])  # cells with a common side
    two = np.concatenate([places[:, 1:].ravel(), places[1:].ravel()])

    def pieces(labels: Int[np.ndarray, " patch"]) -> Int[np.ndarray, " patch"]:
        same = labels[one] == labels[two]
        graph = coo_array((same[same], (one[same], two[same])), shape=(len(labels), len(labels)))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    cells = pieces(cells)
    while cells.max() + 1 < count:
        largest = np.flatnonzero(cells == np.bincount(cells).argmax())
        along = max(np.divmod(largest, cols), key=np.ptp)  # rows or columns, whichever are more
        cells[largest[along > (along.min() + along.max()) / 2]] = cells.max() + 1
        cells = pieces(cells)
    while cells.max() + 1 > count:
        sizes = np.bincount(cells)
        means = np.stack([np.bincount(cells, channel) for channel in colours.T], axis=1) / sizes[:, None]
        smallest = sizes.argmin()
        beside = np.concatenate([cells[two[cells[one] == smallest]], cells[one[cells[two] == smallest]]])
        beside = np.unique(beside[beside != smallest])
        nearest = beside[((means[beside] - means[smallest]) ** 2).sum(axis=1).argmin()]
        cells[cells == smallest] = nearest
        cells = pieces(cells)
    return cells
