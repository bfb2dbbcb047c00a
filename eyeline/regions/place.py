"""Where in its image a region lies, in words."""

import torch
from jaxtyping import Int
from torch import Tensor


def where(labels: Int[Tensor, "row col"], region: int) -> str:
    """Where in its image a region lies, in words: "top left", "centre", "right side", "bottom edge"."""
    rows, cols = labels.shape
    y, x = torch.nonzero(labels == region, as_tuple=True)
    if not len(y):
        raise ValueError(f"region {region} is not in this grid")
    tall = int(y.max() - y.min()) + 1 >= 0.75 * rows and rows > 2
    wide = int(x.max() - x.min()) + 1 >= 0.75 * cols and cols > 2
    if tall and wide:
        return "most of the image" if len(y) >= 0.5 * rows * cols else "all over the image"
    down = min(int((y.float().mean() + 0.5) / rows * 3), 2)
    across = min(int((x.float().mean() + 0.5) / cols * 3), 2)
    if tall:
        return ("left side", "middle, top to bottom", "right side")[across]
    if wide:
        return ("top edge", "middle, left to right", "bottom edge")[down]
    row, col = ("top", "", "bottom")[down], ("left", "", "right")[across]
    return f"{row} {col}".strip() or "centre"
