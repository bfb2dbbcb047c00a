"""Images at a size that a model's image processor leaves as it is, so that every server sees the same pixels."""

from eyeline.errors import ImageError
from eyeline.model import Model

MOST_STEPS = 8  # nearly always one is enough

Size = tuple[int, int]  # width and height, pixels


def fixed_size(model: Model, size: Size) -> Size:
    """The size that an image of some size is brought to. Raises `ImageError`."""
    found = size[0], size[1]
    for _ in range(MOST_STEPS):
        before, found = found, _resized(model, found)
        if before == found:
            break
    return found


def _resized(model: Model, size: Size) -> Size:
    from PIL import Image

    try:
        blank = Image.new("RGB", size)
        grid = model.image_processor(
            images=[blank], return_tensors="pt", do_rescale=False, do_normalize=False
        )["image_grid_thw"]
    except ValueError as error:
        raise ImageError(
            f"The model's image processor refuses an image of {size[0]} x {size[1]} pixels: {error}; crop it."
        ) from error
    _, rows, cols = grid[0].tolist()
    patch = model.hf.config.vision_config.patch_size
    return cols * patch, rows * patch
