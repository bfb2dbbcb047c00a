import json
import time

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from eyeline.adapters import ImageGrid
from eyeline.errors import RegionError
from eyeline.regions import (
    FEWEST,
    MOST,
    SOURCES,
    Regions,
    bounds,
    from_boxes,
    from_label_map,
    regions_for,
    segment,
    where,
)

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


def cells_of(labels):
    return {frozenset(torch.nonzero(labels.flatten() == k)[:, 0].tolist()) for k in labels.unique()}


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


def test_segmenting_is_deterministic_and_draws_nothing_from_torchs_generator():
    features = random_features(24, 24, 100)
    state = torch.random.get_rng_state()
    np_state = np.random.get_state()[1].copy()
    assert torch.equal(segment(features, 24, 24), segment(features, 24, 24))
    for source in SOURCES.values():
        source(picture(), features, 24, 24, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == np_state).all()


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


@settings(max_examples=30)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_every_source_uses_all_its_labels_within_bounds(shape, seed):
    rows, cols = shape
    fewest, most = bounds(rows * cols)
    features = random_features(rows, cols, seed=seed)
    for source in SOURCES.values():
        labels = source(picture(), features, rows, cols, seed)
        count = int(labels.max()) + 1
        assert labels.shape == (rows, cols)
        assert sorted(labels.unique().tolist()) == list(range(count))
        assert fewest <= count <= most


def test_grid_regions_are_rectangles_about_as_many_as_native():
    features, _ = blocks(12, 16)
    labels = SOURCES["grid"](picture(), features, 12, 16, 0)
    assert int(labels.max()) + 1 == 16
    for k in range(16):
        y, x = torch.nonzero(labels == k, as_tuple=True)
        assert len(y) == (y.max() - y.min() + 1) * (x.max() - x.min() + 1) == 12


def test_random_regions_are_as_many_as_native_of_equal_size_and_follow_the_seed():
    features = random_features(12, 16)
    one, again, other = (SOURCES["random"](picture(), features, 12, 16, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.max() == segment(features, 12, 16).max()
    assert one.flatten().bincount().max() - one.flatten().bincount().min() <= 1


def grid_of(rows, cols):
    return ImageGrid(torch.arange(rows * cols), rows, cols)


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
    with pytest.raises(RegionError, match=r"'dino'.*native, grid, random.*\.png.*\.json"):
        regions_for(*one, "dino")
    with pytest.raises(RegionError, match="2 region sources were given for 1 images"):
        regions_for(*one, ["grid", "grid"])


def test_a_label_map_gives_each_cell_the_label_of_most_of_its_pixels(tmp_path):
    labels = np.zeros((60, 90), np.uint8)
    labels[:, 40:] = 200  # 20 of the middle cell's 30 columns
    labels[30:, :16] = 50
    labels[:3, :3] = 99  # too small to win a cell
    Image.fromarray(labels).save(tmp_path / "map.png")
    np.save(tmp_path / "map.npy", labels.astype(np.int32) - 50)
    for name in ("map.png", "map.npy"):
        assert from_label_map(tmp_path / name, 2, 3, 900, 600).tolist() == [[0, 2, 2], [1, 2, 2]]


@given(
    shape=SHAPES,
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kinds=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_the_vote_equals_counting_pixel_by_pixel(tmp_path_factory, shape, size, kinds, seed):
    (rows, cols), (height, width) = shape, size
    labels = np.random.default_rng(seed).integers(0, kinds, (height, width))
    path = tmp_path_factory.mktemp("maps") / "map.npy"
    np.save(path, labels)
    slow = np.zeros((rows, cols), int)
    for row in range(rows):
        for col in range(cols):
            ys = (
                [y for y in range(height) if y * rows // height == row]
                if height >= rows
                else [int((row + 0.5) * height / rows)]
            )
            xs = (
                [x for x in range(width) if x * cols // width == col]
                if width >= cols
                else [int((col + 0.5) * width / cols)]
            )
            slow[row, col] = np.bincount(labels[np.ix_(ys, xs)].flatten()).argmax()
    if len(np.unique(slow)) == 1 and rows * cols > 1:
        with pytest.raises(RegionError, match="one region of the whole image"):
            from_label_map(path, rows, cols, width, height)
    else:
        expected = np.unique(slow, return_inverse=True)[1].reshape(rows, cols)
        assert from_label_map(path, rows, cols, width, height).tolist() == expected.tolist()


def test_a_colour_or_palette_png_has_one_region_a_colour(tmp_path):
    colours = Image.new("RGB", (30, 20), "red")
    colours.paste("blue", (10, 0, 20, 20))
    colours.paste((255, 0, 1), (20, 0, 30, 20))
    colours.save(tmp_path / "rgb.png")
    colours.quantize(8).save(tmp_path / "palette.png")
    assert from_label_map(tmp_path / "rgb.png", 2, 3, 300, 200).tolist() == [[1, 0, 2], [1, 0, 2]]
    assert len(from_label_map(tmp_path / "palette.png", 2, 3, 300, 200).unique()) == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 6), np.float32), "holds float32 of shape"),
        (np.zeros((4, 6, 3), int), "whole number for each pixel"),
        (np.zeros((0, 6), int), "whole number for each pixel"),
        (np.array({}, object), "cannot be read"),
        (np.zeros((4, 6), int), "one region of the whole image"),
        (np.arange(24).reshape(6, 4), "is 4 x 6 .* for an image of 60 x 40 pixels"),
    ],
    ids=["floats", "three axes", "empty", "objects", "one label", "turned"],
)
def test_a_label_map_that_does_not_fit_is_refused(tmp_path, array, message):
    np.save(tmp_path / "map.npy", array, allow_pickle=True)
    with pytest.raises(RegionError, match=message):
        from_label_map(tmp_path / "map.npy", 2, 3, 60, 40)


def test_a_label_map_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("broken.npy", "empty.npy", "missing.npy", "broken.png", "missing.png"):
        with pytest.raises(RegionError, match=name):
            from_label_map(tmp_path / name, 2, 3, 60, 40)
    huge = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.int64)) | {"shape": (10**6, 10**6)}
    with (tmp_path / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, huge)
    with pytest.raises(RegionError, match="huge"):
        from_label_map(tmp_path / "huge.npy", 2, 3, 60, 40)


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_a_cell_belongs_to_the_smallest_box_over_its_centre_and_the_rest_is_background(tmp_path):
    boxes = [[0, 0, 40, 40], [0, 0, 19, 19], [45, 21, 55, 39]]
    for content in (boxes, {"boxes": boxes}):
        labels = from_boxes(write(tmp_path / "boxes.json", content), 4, 6, 60, 40)
        assert labels.tolist() == [
            [1, 1, 0, 0, 3, 3],
            [1, 1, 0, 0, 3, 3],
            [0, 0, 0, 0, 2, 3],
            [0, 0, 0, 0, 2, 3],
        ]


def test_a_box_over_no_centre_takes_the_cell_it_lies_in(tmp_path):
    path = write(tmp_path / "boxes.json", [[56, 36, 60, 40], [0.5, 0.5, 2, 2]])
    assert from_boxes(path, 2, 3, 60, 40).tolist() == [[1, 2, 2], [2, 2, 0]]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "holds no boxes"),
        ({"regions": []}, "holds no boxes"),
        ([[0, 0, 10]], "Box 0"),
        ([[0, 0, 9, 9], [0, 0, "9", 9]], "Box 1"),
        ([[0, 0, True, 9]], "Box 0"),
        ([[9, 0, 3, 9]], "x0 < x1 <= 60"),
        ([[0, 0, 1000, 1000]], "in pixels"),
        ([[0, 0, float("nan"), 9]], "Box 0"),
        ([[0, 0, 9, 9], [0, 0, 9, 9]], "Box 0 .* has no cell of its own"),
        ([[0, 0, 60, 40]], "one region of the whole image"),
    ],
)
def test_boxes_that_make_no_regions_are_refused(tmp_path, boxes, message):
    with pytest.raises(RegionError, match=message) as caught:
        from_boxes(write(tmp_path / "boxes.json", boxes), 2, 3, 60, 40)
    assert "boxes.json" in str(caught.value)


def test_a_file_of_boxes_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "broken.json").write_text("[[0, 0")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.json").mkdir()
    for name in ("broken.json", "bytes.json", "folder.json", "missing.json"):
        with pytest.raises(RegionError, match=name):
            from_boxes(tmp_path / name, 2, 3, 60, 40)


@pytest.mark.parametrize(
    ("rows", "cols", "words"),
    [
        (slice(0, 2), slice(0, 2), "top left"),
        (slice(0, 2), slice(4, 5), "top"),
        (slice(4, 5), slice(4, 5), "centre"),
        (slice(4, 5), slice(8, 9), "right"),
        (slice(7, 9), slice(7, 9), "bottom right"),
        (slice(0, 9), slice(0, 2), "left side"),
        (slice(0, 9), slice(4, 5), "middle, top to bottom"),
        (slice(8, 9), slice(1, 9), "bottom edge"),
        (slice(0, 9), slice(0, 8), "most of the image"),
        (slice(0, 9, 4), slice(0, 9, 4), "all over the image"),
    ],
)
def test_where_says_where_a_region_lies(rows, cols, words):
    labels = torch.zeros(9, 9, dtype=torch.long)
    labels[rows, cols] = 5
    assert where(labels, 5) == words


def test_where_works_on_the_smallest_grids():
    assert where(torch.zeros(1, 1, dtype=torch.long), 0) == "centre"
    assert [where(torch.arange(6).view(2, 3), k) for k in range(6)] == [
        "top left", "top", "top right", "bottom left", "bottom", "bottom right",
    ]  # fmt: skip
