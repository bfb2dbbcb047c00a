"""Clustering of vision features against Ward's method written out, and what it must leave alone."""

import time

import pytest
import torch
from cells import SHAPES, blocks, cells_of, is_connected, random_features
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.errors import RegionError
from eyeline.regions.native import FEWEST, MOST, bounds, segment


def slow_ward(vectors, rows, cols, count):
    """Merges the two neighbouring regions whose union adds least to the squares within, again and again."""
    regions = {cell: [cell] for cell in range(rows * cols)}
    sides = [(c, c + 1) for c in range(rows * cols) if (c + 1) % cols] + [
        (c, c + cols) for c in range((rows - 1) * cols)
    ]
    edges = {frozenset(side) for side in sides}

    def within(cells):
        return float(((vectors[cells] - vectors[cells].mean(dim=0)) ** 2).sum())

    def cost(edge):
        one, two = edge
        return within(regions[one] + regions[two]) - within(regions[one]) - within(regions[two])

    while len(regions) > count:
        one, two = min(edges, key=cost)
        regions[one] += regions.pop(two)
        edges = {frozenset(one if end == two else end for end in edge) for edge in edges}
        edges = {edge for edge in edges if len(edge) == 2}
    return {frozenset(cells) for cells in regions.values()}


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_those_of_wards_method_written_out(seed):
    features = random_features(6, 6, 5, seed).cumsum(dim=0).double()
    labels = segment(features, 6, 6)
    unit = features.float() / features.float().norm(dim=1, keepdim=True)
    assert cells_of(labels) == slow_ward(unit.double(), 6, 6, int(labels.max()) + 1)


@settings(max_examples=50)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_every_region_is_connected_within_bounds_and_labelled_in_raster_order(shape, seed):
    rows, cols = shape
    labels = segment(random_features(rows, cols, seed=seed), rows, cols)
    count = int(labels.max()) + 1
    fewest, most = bounds(rows * cols)
    assert fewest <= count <= most
    assert all(is_connected(labels == k) for k in range(count))
    first = [labels.flatten().tolist().index(k) for k in range(count)]
    assert first == sorted(first)


def test_bounds_are_16_to_128_at_most_half_the_cells_and_one_a_cell_in_small_images():
    assert [bounds(n) for n in (1, 31, 32, 33, 100, 256, 4000)] == [
        (1, 1), (31, 31), (16, 16), (16, 16), (16, 50), (16, 128), (16, 128),
    ]  # fmt: skip
    assert (FEWEST, MOST) == (16, 128)
    assert segment(random_features(5, 6), 5, 6).flatten().tolist() == list(range(30))


def test_plainly_different_blocks_are_the_regions_and_their_number_is_found():
    features, board = blocks(12, 16)
    assert torch.equal(segment(features, 12, 16), board)


def test_more_detail_gives_more_regions():
    plain, _ = blocks(16, 16)
    busy = plain.clone()
    busy[::3] = random_features(16, 16)[::3]
    assert segment(busy, 16, 16).max() > segment(plain, 16, 16).max() + 8


def test_a_cell_of_huge_norm_joins_the_region_of_its_kind():
    features, board = blocks(12, 16)
    features[77] *= 500
    assert torch.equal(segment(features, 12, 16), board)


def test_an_image_all_alike_has_the_fewest_regions():
    assert int(segment(torch.ones(144, 8), 12, 12).max()) + 1 == FEWEST
    assert int(segment(torch.zeros(144, 8), 12, 12).max()) + 1 == FEWEST


def test_half_precision_wide_and_inference_features_are_taken():
    features, board = blocks(12, 16, dim=600)
    with torch.inference_mode():
        assert torch.equal(segment(features.to(torch.bfloat16), 12, 16), board)
    large, large_board = blocks(32, 32, dim=600)  # through the randomised components
    assert torch.equal(segment(large, 32, 32), large_board)


def test_features_that_are_not_finite_are_refused():
    features = random_features(8, 8)
    features[3] = torch.inf
    with pytest.raises(RegionError, match=r"not finite.*bfloat16"):
        segment(features, 8, 8)


def test_segmenting_takes_milliseconds():
    def fastest(rows, cols, dim, times):
        features, took = random_features(rows, cols, dim).cumsum(dim=0), []
        for _ in range(times):
            start = time.thread_time()
            segment(features, rows, cols)
            took.append(time.thread_time() - start)
        return min(took)

    assert fastest(12, 12, 256, 5) < 0.05  # s; 0.006 measured
    assert fastest(50, 80, 1024, 1) < 2  # 0.4 measured
