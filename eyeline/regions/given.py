"""A user's own regions: a label map or boxes, taken as drawn, whatever their number."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from eyeline.errors import ImageError, RegionError
from eyeline.files import read_text
from eyeline.images import MAX_PIXELS, decode
from eyeline.regions.view import vote

MAX_SHAPE_ERROR = 0.1  # a label map's proportions may differ this much from the image's


def from_label_map(
    path: str | Path, rows: int, cols: int, width: int, height: int
) -> Int[Tensor, "{rows} {cols}"]:
    """Regions from a picture of labels: a .png with one colour a region, or a 2-D .npy of whole numbers.

    The map may have any size in the proportions of the image (`width` x `height` pixels, upright). A cell
    takes the label of most of its pixels (the smallest label, if equal). Labels are numbered from 0 in the
    order of their values; one too small to win a cell is left out. Raises `RegionError`.
    """
    labels = _read_npy(path) if Path(path).suffix.lower() == ".npy" else _read_png(path)
    down, across = labels.shape
    if (down, across) != (rows, cols) and abs(math.log(across / down * height / width)) > MAX_SHAPE_ERROR:
        raise RegionError(
            f"The label map {str(path)!r} is {across} x {down} (width x height) for an image of {width} x "
            f"{height} pixels: the same proportions are expected; draw it on the upright image."
        )
    if down < rows:
        labels = labels[((np.arange(rows) + 0.5) * down / rows).astype(int)]
    if across < cols:
        labels = labels[:, ((np.arange(cols) + 0.5) * across / cols).astype(int)]
    cells = vote(labels, rows, cols)
    return _at_least_two(torch.from_numpy(cells), path).view(rows, cols)


def _read_npy(path: str | Path) -> Int[np.ndarray, "row col"]:
    try:
        labels = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a lying header costs nothing
    except FileNotFoundError as error:
        raise RegionError(f"There is no label map {str(path)!r}: check the path.") from error
    except Exception as error:  # numpy raises many kinds for a broken file
        raise RegionError(
            f"The label map {str(path)!r} cannot be read: expected a .npy file of numbers; use numpy.save."
        ) from error
    shape = getattr(labels, "shape", ())
    if len(shape) != 2 or labels.dtype.kind not in "iub" or not 0 < labels.size <= MAX_PIXELS:
        raise RegionError(
            f"The label map {str(path)!r} holds {getattr(labels, 'dtype', 'many arrays')} of shape {shape}: "
            "one whole number for each pixel, (height, width), is expected; save such an array."
        )
    return np.array(labels).astype(np.int64)


def _read_png(path: str | Path) -> Int[np.ndarray, "row col"]:
    try:
        labels = np.asarray(decode(path)).astype(np.int64)
    except ImageError as error:
        raise RegionError(f"The label map cannot be used. {error}") from error
    if labels.ndim == 2:
        return labels
    return (labels << 8 * np.arange(labels.shape[2])[::-1]).sum(axis=2)  # one number for each colour


def from_boxes(
    path: str | Path, rows: int, cols: int, width: int, height: int
) -> Int[Tensor, "{rows} {cols}"]:
    """Regions from a JSON list of boxes [x0, y0, x1, y1] (or {"boxes": [...]}), pixels of the upright image.

    A cell belongs to the smallest box over its centre; a box over no centre takes the cell that its own
    centre is in. Region i is box i; cells outside all boxes are one last region. Raises `RegionError`.
    """
    boxes = _read_boxes(path, width, height)
    y = (np.arange(rows)[:, None] + 0.5) * height / rows
    x = (np.arange(cols) + 0.5) * width / cols
    cells = np.full((rows, cols), len(boxes))
    sizes = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    for index in sorted(range(len(boxes)), key=lambda i: -sizes[i]):  # smaller boxes over larger ones
        x0, y0, x1, y1 = boxes[index]
        covered: Bool[np.ndarray, "rows cols"] = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
        if not covered.any():
            covered[int((y0 + y1) / 2 * rows / height), int((x0 + x1) / 2 * cols / width)] = True
        cells[covered] = index
    for index, box in enumerate(boxes):
        if not (cells == index).any():
            raise RegionError(
                f"Box {index} of {str(path)!r}, {box}, has no cell of its own: others cover all its cells of "
                f"{width / cols:.0f} x {height / rows:.0f} pixels; merge or remove some."
            )
    return _at_least_two(torch.from_numpy(cells.astype(np.int64)).flatten(), path).view(rows, cols)


def _read_boxes(path: str | Path, width: int, height: int) -> list[list[int | float]]:
    try:
        boxes = json.loads(read_text(Path(path)))
    except FileNotFoundError as error:
        raise RegionError(f"There is no file of boxes {str(path)!r}: check the path.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RegionError(
            f"The boxes {str(path)!r} cannot be read ({error}): expected a JSON list of [x0, y0, x1, y1]; correct it."
        ) from error
    boxes = boxes.get("boxes") if isinstance(boxes, dict) else boxes
    if not isinstance(boxes, list) or not boxes:
        raise RegionError(
            f"{str(path)!r} holds no boxes: expected a JSON list of [x0, y0, x1, y1] in pixels; add one."
        )
    for index, box in enumerate(boxes):
        numbers = isinstance(box, list) and len(box) == 4 and all(type(edge) in (int, float) for edge in box)
        # numbers beyond the last pixel are fractions, thousandths or another image's
        if not (numbers and 0 <= box[0] < box[2] <= width + 1 and 0 <= box[1] < box[3] <= height + 1):
            raise RegionError(
                f"Box {index} of {str(path)!r} is {json.dumps(box)[:80]}: expected [x0, y0, x1, y1] in "
                f"pixels with x0 < x1 <= {width} and y0 < y1 <= {height}; correct it."
            )
    return [
        [min(x0, width - 1), min(y0, height - 1), min(x1, width), min(y1, height)] for x0, y0, x1, y1 in boxes
    ]


def _at_least_two(cells: Int[Tensor, " patch"], path: str | Path) -> Int[Tensor, " patch"]:
    if len(cells) > 1 and int(cells.max()) == 0:
        raise RegionError(
            f"{str(path)!r} makes one region of the whole image: at least two are expected; mark a part."
        )
    return cells


READERS: dict[str, Callable[[str | Path, int, int, int, int], Tensor]] = {
    ".png": from_label_map,
    ".npy": from_label_map,
    ".json": from_boxes,
}
