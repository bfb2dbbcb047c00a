"""Label maps and boxes against counting pixel by pixel, and the files that are refused."""

import json

import numpy as np
import pytest
from cells import SHAPES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eyeline.errors import RegionError
from eyeline.regions.given import from_boxes, from_label_map


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
