"""Grids of cells with features to cut into regions, and what to ask of the regions."""

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from eyeline.adapters import ImageGrid

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))


def random_features(rows, cols, dim=24, seed=0):
    return torch.randn(rows * cols, dim, generator=torch.Generator().manual_seed(seed))


def is_connected(mask):
    return ndimage.label(mask.numpy())[1] == 1  # through sides, not corners


def blocks(rows, cols, seed=0, dim=24):
    """Features of a 4 x 4 board of plainly different blocks, and the board."""
    board = torch.arange(rows)[:, None] * 4 // rows * 4 + torch.arange(cols) * 4 // cols
    colours = random_features(4, 4, dim, seed)
    return colours[board.flatten()] + 0.05 * random_features(rows, cols, dim, seed + 1), board


def cells_of(labels):
    return {frozenset(torch.nonzero(labels.flatten() == k)[:, 0].tolist()) for k in labels.unique()}


def planted(rows, cols, down, across, pixels=26):
    """An image of four flat colours whose borders lie before cell row `down` and column `across`; each cell's colour."""
    quadrants = (np.arange(rows) >= down)[:, None] * 2 + (np.arange(cols) >= across)
    colours = np.array([[200, 40, 40], [40, 160, 60], [40, 60, 200], [230, 220, 90]], np.uint8)
    image = colours[quadrants].repeat(pixels, axis=0).repeat(pixels, axis=1)
    return Image.fromarray(image), torch.from_numpy(quadrants)


def crossing(labels, quadrants):
    """Regions that lie in more than one quadrant."""
    return sum(len(quadrants[labels == k].unique()) > 1 for k in range(int(labels.max()) + 1))


def grid_of(rows, cols):
    return ImageGrid(torch.arange(rows * cols), rows, cols)
