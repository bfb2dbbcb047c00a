"""What holds for every source of regions, and how a source is named for each image."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import SHAPES, grid_of, is_connected, random_features
from conftest import picture
from foundations import save_foundation
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.adapters import ImageGrid
from eyeline.errors import RegionError
from eyeline.regions import SOURCES, Regions, regions_for
from eyeline.regions.foundation import dinov3
from eyeline.regions.native import bounds, segment
from eyeline.regions.view import View


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """All sources, with a model that is here for `dinov3`."""
    folder = save_foundation("dinov3_vit", tmp_path_factory.mktemp("dinov3_vit"))
    return SOURCES | {"dinov3": functools.partial(dinov3, model=folder)}


def test_segmenting_is_deterministic_and_draws_nothing_from_torchs_generator(sources):
    features = random_features(24, 24, 100)
    view = View(picture(), features, 24, 24)
    state = torch.random.get_rng_state()
    np_state = np.random.get_state()[1].copy()
    assert torch.equal(segment(features, 24, 24), segment(features, 24, 24))
    for source in sources.values():
        assert torch.equal(source(view, 0), source(view, 0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == np_state).all()


@settings(max_examples=15)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_every_source_uses_all_its_labels_within_bounds_and_keeps_regions_connected(sources, shape, seed):
    rows, cols = shape
    fewest, most = bounds(rows * cols)
    features = random_features(rows, cols, seed=seed)
    for name, source in sources.items():
        labels = source(View(picture(seed=seed), features, rows, cols), seed)
        count = int(labels.max()) + 1
        assert labels.shape == (rows, cols)
        assert sorted(labels.unique().tolist()) == list(range(count))
        assert fewest <= count <= most
        if name in ("native", "dinov3", "slic", "grid"):
            assert all(is_connected(labels == k) for k in range(count))


@settings(max_examples=20)
@given(shape=SHAPES, count=st.integers(2, 60), seed=st.integers(0, 99))
def test_a_number_of_regions_is_kept_to_as_far_as_there_are_cells(shape, count, seed):
    rows, cols = shape
    features = random_features(rows, cols, seed=seed)
    for name in ("native", "random", "voronoi", "slic"):
        labels = SOURCES[name](View(picture(seed=seed), features, rows, cols), seed, count=count)
        assert sorted(labels.unique().tolist()) == list(range(min(count, rows * cols))), name
    labels = SOURCES["grid"](View(picture(), features, 12, 16), 0, count=48)
    assert sorted(labels.unique().tolist()) == list(range(48))


def test_a_source_is_named_with_its_number_of_regions():
    image, features = picture(), random_features(12, 16)
    grid = ImageGrid(torch.arange(192), 12, 16)
    found = regions_for([image], [grid], [features], "native:32")
    assert found.count == 32
    assert torch.equal(found.labels[0], segment(features, 12, 16, 32))
    for wrong in ("native:", "native:1", "native:x", "grid:-3", "native:²"):
        with pytest.raises(RegionError, match="Unknown source of regions"):
            regions_for([image], [grid], [features], wrong)


def test_labels_run_on_over_the_images():
    regions = regions_for(
        [picture(), picture(128, 64)],
        [grid_of(2, 3), grid_of(8, 16)],
        [random_features(2, 3), random_features(8, 16)],
    )
    alone = segment(random_features(8, 16), 8, 16)
    assert regions.labels[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(regions.labels[1], alone + 6)
    assert regions.count == 6 + int(alone.max()) + 1
    assert regions.of_patch.tolist() == [*range(6), *(alone + 6).flatten().tolist()]
    assert regions.grids[0] == ((0, 1, 2), (3, 4, 5))


def test_each_image_may_have_a_source_of_its_own(tmp_path):
    np.save(tmp_path / "halves.npy", np.repeat([[7, 7, 9]], 2, axis=0))
    regions = regions_for(
        [picture(), picture()],
        [grid_of(2, 3), grid_of(2, 3)],
        [random_features(2, 3)] * 2,
        [tmp_path / "halves.npy", "grid"],
    )
    assert regions.grids == (((0, 0, 1), (0, 0, 1)), ((2, 3, 4), (5, 6, 7)))
    assert isinstance(regions, Regions)


def test_unknown_sources_and_wrong_numbers_of_them_are_refused():
    one = ([picture()], [grid_of(2, 3)], [random_features(2, 3)])
    for unknown in ("dino", "dinov3:", "grid:1", Path("voronoi")):
        with pytest.raises(
            RegionError,
            match=r"expected native, dinov3, .*, voronoi, .*native:32.*, dinov3:MODEL .*\.png.*\.json",
        ):
            regions_for(*one, unknown)
    with pytest.raises(RegionError, match="2 region sources were given for 1 images"):
        regions_for(*one, ["grid", "grid"])
