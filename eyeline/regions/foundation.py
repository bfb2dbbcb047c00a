"""Regions from a vision foundation model's features of the image, as in the paper."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.errors import RegionError, UnsupportedModelError
from eyeline.loading import plain_errors, quiet
from eyeline.regions.native import FEWEST, segment
from eyeline.regions.view import View

DINOV3 = "facebook/dinov3-vitl16-pretrain-lvd1689m"  # the paper's
CELL_PIXELS = 32  # a cell's side in the image, about: 28 or 32 in the families of adapters/
MAX_FINE_CELLS = 2048  # up to here a foundation model's patches are as fine as the vision tower's
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what DINO's processors default to
IMAGENET_STD = (0.229, 0.224, 0.225)


def dinov3(view: View, seed: int, model: str = DINOV3) -> Int[Tensor, "{view.rows} {view.cols}"]:
    """Regions from a vision foundation model, as in the paper; `model` is an id on the Hub or a folder."""
    foundation, features = load_foundation(model, view.features.device), view.features
    if view.rows * view.cols >= 2 * FEWEST:
        features = foundation_features(foundation, view.image, view.rows, view.cols)
    return segment(features, view.rows, view.cols)


@dataclass(frozen=True, slots=True)
class Foundation:
    """A vision foundation model, and how it wants its images."""

    hf: Any
    stride: int  # pixels that a patch is wide and high
    others: int  # tokens that come before the patches': CLS, registers
    resample: PIL.Image.Resampling
    scale: float  # multiplies 8-bit values
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]


STRIDES: dict[str, Callable[[Any], int]] = {
    "dinov2": lambda config: config.patch_size,
    "dinov2_with_registers": lambda config: config.patch_size,
    "dinov3_vit": lambda config: config.patch_size,
    # a stem of 4, then halved by each stage
    "dinov3_convnext": lambda config: 2 ** (len(config.hidden_sizes) + 1),
}


@functools.cache
def load_foundation(model: str, device: torch.device) -> Foundation:
    """A DINOv3 or DINOv2 of transformers, in float32, loaded once in a process. Raises `RegionError`."""
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_base import ImageProcessingMixin

    folder = Path(model).expanduser()
    place = str(folder) if folder.is_dir() else model
    try:
        with plain_errors(model), quiet(place), torch.inference_mode(False):
            config = AutoConfig.from_pretrained(place)
            if config.model_type not in STRIDES:
                raise RegionError(
                    f"The model {model!r} is of the family {config.model_type!r}: regions can be made from "
                    f"{', '.join(sorted(STRIDES))}; name a model of these."
                )
            # not AutoImageProcessor: DINOv3's needs torchvision
            processor, _ = ImageProcessingMixin.get_image_processor_dict(place)
            hf, report = AutoModel.from_pretrained(
                place, config=config, dtype=torch.float32, output_loading_info=True
            )
    except UnsupportedModelError as error:
        raise RegionError(
            f"{str(error).removesuffix('.')}; or name another for the regions: dinov3:FOLDER, or one that is "
            "open to all, dinov3:facebook/dinov2-large."
        ) from error
    if report["missing_keys"]:
        raise RegionError(
            f"The weights of {model!r} lack {len(report['missing_keys'])} tensors of the model (first "
            f"{min(report['missing_keys'])}): no regions can be made from it; give a complete checkpoint."
        )
    return Foundation(
        hf=hf.to(device),
        stride=STRIDES[config.model_type](config),
        others=1 + getattr(config, "num_register_tokens", 0),
        resample=PIL.Image.Resampling(processor.get("resample", PIL.Image.Resampling.BICUBIC)),
        scale=processor.get("rescale_factor", 1 / 255),
        mean=torch.tensor(processor.get("image_mean", IMAGENET_MEAN)).view(3, 1, 1),
        std=torch.tensor(processor.get("image_std", IMAGENET_STD)).view(3, 1, 1),
    )


def foundation_features(
    foundation: Foundation, image: PIL.Image.Image, rows: int, cols: int
) -> Float[Tensor, "{rows}*{cols} dim"]:
    """A foundation model's features of an image's cells, in raster order: the mean over the patches of each.

    The image is resized so that a cell is a whole number of patches, and none lies in two cells: 2 x 2 for
    patches of 14 or 16 pixels, 1 for ConvNeXt's 32. A cell then covers 28 or 32 pixels as it does before the
    thinking model's own vision tower: both see the image at about the same resolution. Of more than 2048 cells
    each is one patch, because patches attend to all patches.
    """
    side = max(1, round(CELL_PIXELS / foundation.stride)) if rows * cols <= MAX_FINE_CELLS else 1
    size = (cols * side * foundation.stride, rows * side * foundation.stride)
    pixels = torch.from_numpy(np.array(image.resize(size, foundation.resample))).permute(2, 0, 1)
    pixels = (pixels * foundation.scale - foundation.mean) / foundation.std
    with torch.inference_mode():
        tokens = foundation.hf(pixel_values=pixels[None].to(foundation.hf.device)).last_hidden_state[0]
        patches = tokens[foundation.others :].unflatten(0, (rows, side, cols, side))
        return patches.mean(dim=(1, 3)).flatten(0, 1)
