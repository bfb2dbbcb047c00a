"""Where a region lies, in words."""

import pytest
import torch

from eyeline.regions.place import where


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
