"""What a source of regions is given of an image, and how what it makes is numbered."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class View:
    """One image, and the grid of visual tokens that the language model sees of it."""

    image: PIL.Image.Image
    features: Float[Tensor, "patch dim"]  # the vision tower's, of the grid's cells in raster order
    rows: int
    cols: int


def relabel(cells: Int[Tensor, " patch"]) -> Int[Tensor, " patch"]:
    """The same regions, labelled 0, 1, ... in order of first appearance."""
    order: dict[int, int] = {}
    return torch.tensor([order.setdefault(cell, len(order)) for cell in cells.tolist()])


def vote(labels: Int[np.ndarray, "row col"], rows: int, cols: int) -> Int[np.ndarray, " patch"]:
    """The label of most of each cell's pixels, the smallest if equal; numbered anew from 0 in order of their values."""
    row_of = (np.arange(labels.shape[0]) * rows // labels.shape[0])[:, None]
    col_of = np.arange(labels.shape[1]) * cols // labels.shape[1]
    values, label_of = np.unique(labels, return_inverse=True)
    pairs = (row_of * cols + col_of) * len(values) + label_of.reshape(labels.shape)  # (cell, label) in one
    pairs, votes = np.unique(pairs, return_counts=True)
    cell_of, label_of = np.divmod(pairs, len(values))
    by_cell = np.lexsort((label_of, -votes, cell_of))  # in each cell most votes first, then smallest label
    winners = label_of[by_cell][np.unique(cell_of, return_index=True)[1]]
    return np.unique(winners, return_inverse=True)[1].astype(np.int64)
