"""Superpixels: where they end, that they are connected, and how many they are."""

import sys

import numpy as np
import pytest
import torch
from cells import SHAPES, blocks, cells_of, crossing, planted, random_features
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from eyeline.errors import RegionError
from eyeline.regions import SOURCES
from eyeline.regions.native import segment
from eyeline.regions.superpixels import _connected
from eyeline.regions.view import View


def test_superpixels_end_at_the_borders_of_flat_colours():
    image, quadrants = planted(11, 13, 3, 5)
    features, _ = blocks(11, 13)
    labels = SOURCES["slic"](View(image, features, 11, 13), 0)
    assert crossing(labels, quadrants) == 0
    assert int(labels.max()) + 1 == int(segment(features, 11, 13).max()) + 1
    unseeing = SOURCES["grid"](View(image, features, 11, 13), 0)  # looks at no colour
    assert crossing(unseeing, quadrants) > 0


@settings(max_examples=20)
@given(shape=SHAPES, data=st.data(), seed=st.integers(0, 99))
def test_any_labels_become_connected_regions_of_any_number(shape, data, seed):
    rows, cols = shape
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(1, rows * cols))
    labels = rng.integers(0, data.draw(st.integers(1, rows * cols)), rows * cols)
    found = _connected(labels, rows, cols, rng.random((rows * cols, 3)), count).reshape(rows, cols)
    assert sorted(np.unique(found)) == list(range(count))
    assert all(ndimage.label(found == k)[1] == 1 for k in range(count))


def test_connected_regions_of_the_right_number_stay_and_the_smallest_joins_the_neighbour_of_its_colour():
    labels = np.array([0, 0, 1, 1, 0, 0, 2, 1, 3, 3, 3, 3])  # three rows
    colours = np.array([[0.1, 0, 0], [0.9, 0, 0], [0.8, 0, 0], [0.2, 0, 0]])[labels]
    kept = _connected(labels, 3, 4, colours, 4)
    assert cells_of(torch.from_numpy(kept)) == cells_of(torch.from_numpy(labels))
    joined = _connected(labels, 3, 4, colours, 3)
    assert cells_of(torch.from_numpy(joined)) == {
        frozenset({0, 1, 4, 5}), frozenset({2, 3, 6, 7}), frozenset({8, 9, 10, 11}),
    }  # fmt: skip


def test_superpixels_without_their_package_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    for shape in ((2, 3), (12, 16)):
        with pytest.raises(RegionError, match=r"pip install 'eyeline\[regions\]'"):
            SOURCES["slic"](View(picture(), random_features(*shape), *shape), 0)
