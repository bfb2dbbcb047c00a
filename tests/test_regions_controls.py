"""Grid, random and Voronoi regions against what they are defined as."""

import torch
from cells import SHAPES, blocks, cells_of, random_features
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.regions import SOURCES
from eyeline.regions.native import segment
from eyeline.regions.view import View


def test_grid_regions_are_rectangles_about_as_many_as_native():
    features, _ = blocks(12, 16)
    labels = SOURCES["grid"](View(picture(), features, 12, 16), 0)
    assert int(labels.max()) + 1 == 16
    for k in range(16):
        y, x = torch.nonzero(labels == k, as_tuple=True)
        assert len(y) == (y.max() - y.min() + 1) * (x.max() - x.min() + 1) == 12


def test_random_regions_are_as_many_as_native_of_equal_size_and_follow_the_seed():
    features = random_features(12, 16)
    one, again, other = (SOURCES["random"](View(picture(), features, 12, 16), seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.max() == segment(features, 12, 16).max()
    assert one.flatten().bincount().max() - one.flatten().bincount().min() <= 1


@settings(max_examples=20)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_voronoi_regions_are_as_many_as_native_and_hold_the_cells_nearest_to_their_seeds(shape, seed):
    rows, cols = shape
    features = random_features(rows, cols, seed=seed)
    count = int(segment(features, rows, cols).max()) + 1
    order = torch.randperm(rows * cols, generator=torch.Generator().manual_seed(seed)).tolist()
    seeds = [divmod(cell, cols) for cell in order[:count]]
    slow = {}
    for cell in range(rows * cols):
        row, col = divmod(cell, cols)
        squares = [(row - y) ** 2 + (col - x) ** 2 for y, x in seeds]
        slow.setdefault(squares.index(min(squares)), set()).add(cell)
    labels = SOURCES["voronoi"](View(picture(), features, rows, cols), seed)
    assert cells_of(labels) == {frozenset(cells) for cells in slow.values()}
    assert int(labels.max()) + 1 == count


def test_voronoi_regions_follow_the_seed():
    features = random_features(12, 16)
    one, again, other = (SOURCES["voronoi"](View(picture(), features, 12, 16), seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert cells_of(one) != cells_of(other)
