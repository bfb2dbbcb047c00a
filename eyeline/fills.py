"""What stands in the place of hidden pixels: the image's mean colour, the image out of focus, or its surroundings.

All fill `pixel_values` whole cells at a time, as the image processor has made them: nothing bleeds on resize.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from eyeline.adapters import ImageGrid
from eyeline.model import Model

CHANNELS = 3  # images.py makes every image RGB
Fill = Callable[[Tensor], Tensor]  # hidden (row, patch) -> pixels (row, pixel_row, value)


def with_mean_colour(model: Model, pixels: Float[Tensor, "pixel_row value"], images: list[ImageGrid]) -> Fill:
    """The mean colour of the image."""
    pictures = _pictures(model, pixels, images)
    colours = [picture.mean((1, 2), keepdim=True).expand_as(picture) for picture in pictures]
    return _constant(model, pixels, images, colours)


def with_blur(model: Model, pixels: Float[Tensor, "pixel_row value"], images: list[ImageGrid]) -> Fill:
    """The image out of focus, a Gaussian of one cell's side (Fong & Vedaldi 2017, arXiv 1704.03296)."""
    blurred = []
    for picture, image in zip(_pictures(model, pixels, images), images, strict=True):
        sigma = picture.shape[1] // image.rows
        reach = torch.arange(-3 * sigma, 3 * sigma + 1, device=pixels.device)
        kernel = torch.exp(-(reach**2) / (2 * sigma**2)).to(picture)
        for axis in (1, 2):  # weights over what lies inside the image
            line = picture.movedim(axis, -1)
            weight = functional.conv1d(torch.ones_like(line[:1, :1]), kernel[None, None], padding=3 * sigma)
            sums = functional.conv1d(line.flatten(0, 1)[:, None], kernel[None, None], padding=3 * sigma)
            picture = (sums[:, 0].view(line.shape) / weight).movedim(-1, axis)
        blurred.append(picture)
    return _constant(model, pixels, images, blurred)


def with_surroundings(
    model: Model, pixels: Float[Tensor, "pixel_row value"], images: list[ImageGrid]
) -> Fill:
    """What lies around, smoothly continued: pull-push over halved sizes (Gortler et al. 1996, "The Lumigraph").

    Nothing of what is hidden enters; where a whole image is hidden, what the processor makes 0: its mean colour.
    """
    pictures = _pictures(model, pixels, images)

    def fill(hidden: Bool[Tensor, "row patch"]) -> Float[Tensor, "row pixel_row value"]:
        parts = hidden.split([len(image) for image in images], dim=1)
        filled = []
        for picture, part, image in zip(pictures, parts, images, strict=True):
            seen = ~part.view(-1, 1, image.rows, image.cols)
            seen = seen.repeat_interleave(picture.shape[1] // image.rows, 2)
            seen = seen.repeat_interleave(picture.shape[2] // image.cols, 3).to(picture)
            filled.append(_pull_push(picture * seen, seen))
        return torch.stack(
            [_rows(model, pixels, images, [rows[at] for rows in filled]) for at in range(len(hidden))]
        )

    return _only_hidden(model, pixels, fill)


def _pull_push(
    values: Float[Tensor, "row channel y x"], weights: Float[Tensor, "row one y x"]
) -> Float[Tensor, "row channel y x"]:
    """`values` are 0 where `weights` are; there come the means of ever larger squares, smoothed."""
    if min(values.shape[2:]) <= 1:
        total = weights.sum((2, 3), keepdim=True)
        mean = values.sum((2, 3), keepdim=True) / total.clamp(min=1e-6)
        return torch.where(weights > 0, values / weights.clamp(min=1e-6), mean)
    smaller = [functional.avg_pool2d(each, 2, ceil_mode=True) for each in (values, weights)]
    behind = functional.interpolate(
        _pull_push(*smaller), size=values.shape[2:], mode="bilinear", align_corners=False
    )
    return torch.where(weights > 0, values / weights.clamp(min=1e-6), behind)


def _pictures(
    model: Model, pixels: Float[Tensor, "pixel_row value"], images: list[ImageGrid]
) -> list[Float[Tensor, "channel _ _"]]:
    """Each image as the processor has made it, out of the rows of `pixel_values`.

    A cell is `merge`^2 consecutive rows, cells in raster order, images one after the other; a row is (channel, frame, y, x)
    flattened, all frames the same (the `patchify` of Qwen2VL's and Glm4v's image processors).
    """
    merge, side = model.adapter.merge_size(model.hf), model.adapter.patch_size(model.hf)
    pictures = []
    for rows, image in zip(pixels.split([len(image) * merge**2 for image in images]), images, strict=True):
        patches = rows.view(image.rows, image.cols, merge, merge, CHANNELS, -1, side, side)[..., 0, :, :]
        pictures.append(patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(CHANNELS, image.rows * merge * side, -1))
    return pictures


def _rows(
    model: Model,
    pixels: Float[Tensor, "pixel_row value"],
    images: list[ImageGrid],
    pictures: Sequence[Float[Tensor, "channel _ _"]],
) -> Float[Tensor, "pixel_row value"]:
    """Pictures as rows of `pixel_values` again."""
    merge, side = model.adapter.merge_size(model.hf), model.adapter.patch_size(model.hf)
    frames = pixels.shape[1] // (CHANNELS * side**2)
    rows = []
    for picture, image in zip(pictures, images, strict=True):
        patches = picture.view(CHANNELS, image.rows, merge, side, image.cols, merge, side)
        patches = patches.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
        rows.append(patches.expand(-1, -1, -1, -1, -1, frames, -1, -1).reshape(-1, pixels.shape[1]))
    return torch.cat(rows)


def _constant(
    model: Model,
    pixels: Float[Tensor, "pixel_row value"],
    images: list[ImageGrid],
    pictures: Sequence[Float[Tensor, "channel _ _"]],
) -> Fill:
    """The same pictures show through whatever is hidden."""
    behind = _rows(model, pixels, images, pictures)
    return _only_hidden(model, pixels, lambda _: behind)


def _only_hidden(model: Model, pixels: Float[Tensor, "pixel_row value"], fill: Fill) -> Fill:
    rows_per_cell = model.adapter.merge_size(model.hf) ** 2
    return lambda hidden: torch.where(
        hidden.repeat_interleave(rows_per_cell, dim=1)[..., None], fill(hidden), pixels
    )


FILLS: dict[str, Callable[[Model, Tensor, list[ImageGrid]], Fill]] = {
    "pixels": with_mean_colour, "blur": with_blur, "inpaint": with_surroundings,
}  # fmt: skip
